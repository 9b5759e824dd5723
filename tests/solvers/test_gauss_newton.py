"""Gauss-Newton without matrices against dense linear algebra."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from numerics import dense_jacobian, relative_error

CONVERGED = keras_sip.GaussNewton(linear_solver="conjugate_gradient", cg_steps=200, cg_tolerance=1e-13)


def least_squares_step(problem):
    """argmin |r + J dx| of every example, by numpy.linalg.lstsq."""
    x0, y_target, _ = problem.start_and_target()

    def residual(x):
        y = problem.simulator.forward(tf.constant(x), problem.context)
        return problem.simulator.residual(y, y_target, problem.context).numpy()

    jacobian = dense_jacobian(residual, x0.numpy())
    steps = [np.linalg.lstsq(j, -r.ravel(), rcond=1e-9)[0] for j, r in zip(jacobian, residual(x0.numpy()), strict=True)]
    return np.reshape(steps, x0.shape)


@pytest.mark.parametrize(
    "name", ["poisson_float64", "poisson_periodic", "tanh", "curved", "curved_nondimensional", "masked_sensors"]
)
def test_step_is_the_least_squares_solution(name):
    problem = problems.problem(name)
    x0, y_target, _ = problem.start_and_target()
    update = problems.compiled_solve(CONVERGED, problem)(x0, y_target, *problem.known()).update
    # The Jacobian by central differences is good to about 1e-9; systems of condition up to 100 multiply that.
    assert relative_error(update, least_squares_step(problem)) < 1e-6


def test_underdetermined_step_is_the_shortest_one():
    matrix = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]])
    simulator = keras_sip.from_function(lambda x: tf.linalg.matvec(tf.constant(matrix), x), 3, dtype="float64")
    y_target = np.array([[1.0, 2.0], [-3.0, 0.5]])
    update = CONVERGED.solve(simulator, np.zeros((2, 3)), y_target).update
    # Of full rank: a cut-off far below its singular values, and far above their rounding.
    assert relative_error(update, y_target @ np.linalg.pinv(matrix, rcond=1e-10).T) < 1e-12


def test_one_cg_step_is_the_cauchy_step():
    problem = problems.problem("curved")
    x0, y_target, _ = problem.start_and_target()
    jacobian = dense_jacobian(lambda x: problem.simulator(x).numpy(), x0.numpy())
    residual = (problem.simulator(x0) - y_target).numpy()
    gradient = np.einsum("bmn,bm->bn", jacobian, residual)
    length = np.sum(gradient**2, axis=1) / np.sum(np.einsum("bmn,bn->bm", jacobian, gradient) ** 2, axis=1)
    update = (
        keras_sip.GaussNewton(linear_solver="conjugate_gradient", cg_steps=1)
        .solve(problem.simulator, x0, y_target)
        .update
    )
    assert relative_error(update, -length[:, None] * gradient) < 1e-8


def test_enough_cg_steps_land_on_the_solution_of_poisson():
    simulator = keras_sip.Poisson((12, 10), dtype="float64")
    sample = simulator.sample(2, (0, 0))
    x0 = np.random.default_rng(0).standard_normal(sample["x"].shape)
    solve = tf.function(CONVERGED.solve, autograph=False)
    error = np.abs(solve(simulator, tf.constant(x0), sample["y"]).x - sample["x"])
    assert np.max(error) < 1e-9  # a condition number of 60, squared in the normal equations


def test_convergence_is_quadratic_where_the_residual_vanishes():
    simulator = keras_sip.from_function(problems.curved_process, 3, dtype="float64")
    x_true = np.array([[0.4, -0.3, 0.8]])
    y_target = simulator(x_true)
    errors = [
        np.max(np.abs(CONVERGED.with_options(max_steps=n).solve(simulator, x_true + 0.3, y_target).x - x_true))
        for n in (1, 2, 3)
    ]
    orders = np.log(errors[1:]) / np.log(errors[:-1])
    assert np.all(orders > 1.7)


@pytest.mark.parametrize("solver", [keras_sip.GaussNewton(), keras_sip.LevenbergMarquardt()], ids=["gn", "lm"])
def test_objective_that_is_no_sum_of_squares_is_refused_naming_the_method(solver):
    with pytest.raises(TypeError, match="objective is 1/2 sum r.2") as caught:
        solver.check(problems.Directions())
    assert "which overrides `objective`" in str(caught.value)
    assert "define `residual(self, y, y_target, context=None)`" in str(caught.value)
    with pytest.raises(TypeError, match=type(solver).__name__):
        solver.check(keras_sip.Nondimensional(problems.Directions()))


def test_own_residual_is_what_it_solves():
    class Decibels(keras_sip.Simulator):
        """Powers compared by their logarithms; linear in x there."""

        x_shape = y_shape = (2,)
        dtype = "float64"

        def forward(self, x, context=None):
            return tf.exp(x)

        def residual(self, y, y_target, context=None):
            return tf.math.log(y / y_target)

    x_true = np.array([[3.0, -2.0]])
    result = CONVERGED.solve(Decibels(), np.zeros((1, 2)), np.exp(x_true))
    assert relative_error(result.x, x_true) < 1e-12
