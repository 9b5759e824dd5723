"""What solvers ask of an inverse problem: its Jacobian, and the first-order measures of a point."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

import keras_sip
import problems
from keras_sip.solvers.problem import InverseProblem
from numerics import dense_jacobian, relative_error


@pytest.mark.parametrize("name", ["curved", "masked_sensors", "curved_nondimensional"])
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_jacobian_of_all_directions_at_once_is_that_of_differences(name, jit_compile):
    """The context of each example goes with its copies."""
    problem = problems.problem(name)
    x0, y_target, _ = problem.start_and_target()

    def jacobian(x0, y_target, context=None):
        return InverseProblem(problem.simulator, y_target, context).scaled_at(x0).jacobian(x0)

    y, residual, received = problem.compiled(jacobian, "x", "y", jit_compile=jit_compile)(
        x0, y_target, *problem.known()
    )

    def process(x):
        return problem.simulator.forward(tf.constant(x), problem.context).numpy()

    scale = np.max(np.abs(process(x0.numpy()) - y_target), axis=1)
    expected = dense_jacobian(process, x0.numpy()) / scale[:, None, None]
    # Central differences.
    assert relative_error(received, expected) < 1e-8
    assert relative_error(y, process(x0.numpy())) < 1e-12
    assert relative_error(residual, (process(x0.numpy()) - y_target) / scale[:, None]) < 1e-12


def test_a_wide_jacobian_takes_one_sweep_backward_for_each_observation():
    calls = []

    @tf.custom_gradient
    def observed(x):
        def backward(upstream):
            calls.append(upstream)
            return upstream * tf.ones_like(x)

        return tf.reduce_sum(x, axis=1, keepdims=True), backward

    simulator = keras_sip.from_function(lambda x: tf.concat([observed(x), x[:, :3]], 1), 96, dtype="float64")
    solver = keras_sip.LevenbergMarquardt()
    result = solver.solve(simulator, np.zeros((2, 96)), np.ones((2, 4)))
    assert np.max(np.abs(simulator(result.x) - 1)) < 1e-2
    # Each of the four is traced with the transposed product of another; the gradient needs no more.
    assert len(calls) <= 12


def test_optimality_is_the_largest_cosine_whatever_the_units():
    """A minimum of SciPy's, and a point off it, for columns that differ by 1e12 in size."""
    generator = np.random.default_rng(0)
    matrix, y_target = generator.standard_normal((6, 3)), generator.standard_normal((1, 6))
    units = np.array([1e-6, 1.0, 1e6])
    simulator = keras_sip.from_function(lambda x: tf.linalg.matvec(tf.constant(matrix * units), x), 3, dtype="float64")
    best = scipy.optimize.lsq_linear(matrix, y_target[0]).x
    x = np.array([best, best + [0.3, -0.1, 0.2]]) / units
    found = keras_sip.GradientDescent().refine(simulator, x, np.repeat(y_target, 2, axis=0), steps=0)
    residual = x * units @ matrix.T - y_target
    columns = matrix / np.linalg.norm(matrix, axis=0)
    expected = np.max(np.abs(residual @ columns), axis=1) / np.linalg.norm(residual, axis=1)
    assert found.optimality[0] < 1e-14
    assert float(found.optimality[1]) == pytest.approx(expected[1], rel=1e-9)
    assert found.status.numpy().tolist() == [keras_sip.Status.CONVERGED, keras_sip.Status.MAX_STEPS]


def test_optimality_of_another_objective_is_the_change_that_one_x_scale_promises():
    problem = problems.problem("directions")
    x0, y_target, _ = problem.start_and_target()
    found = keras_sip.Newton().refine(problem.simulator, x0, y_target, steps=0)
    with tf.GradientTape() as tape:
        tape.watch(x0)
        objective = problem.simulator.objective(problem.simulator.forward(x0), y_target)
    expected = np.max(np.abs(tape.gradient(objective, x0)), axis=1) / objective
    np.testing.assert_allclose(found.optimality, expected, rtol=1e-10)
