"""The one loop of all iterative solvers: steps, limits, per-example stopping, and what a new solver gets from it."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from keras_sip import Status
from keras_sip.solvers.base import Step
from keras_sip.solvers.problem import InverseProblem
from numerics import relative_error

CURVED = problems.problem("curved")
GAUSS_NEWTON = keras_sip.GaussNewton(cg_steps=20, cg_tolerance=1e-12)


@pytest.mark.parametrize("problem", [CURVED, problems.problem("masked_sensors")], ids=repr)
@pytest.mark.parametrize(
    "solver", [keras_sip.GradientDescent(step_size=0.1), GAUSS_NEWTON], ids=["gradient_descent", "gauss_newton"]
)
def test_m_steps_are_m_calls_of_one_step(solver, problem):
    x, y_target, _ = problem.start_and_target()
    three = problems.compiled_solve(solver.with_options(max_steps=3), problem)(x, y_target, *problem.known())
    one = problems.compiled_solve(solver, problem)
    updates = []
    for _ in range(3):
        result = one(x, y_target, *problem.known())
        updates.append(result.update)
        x = result.x
    assert relative_error(three.update, sum(updates)) < 1e-12
    assert np.all(three.num_steps == 3)
    assert np.all(three.status == Status.MAX_STEPS)


@pytest.mark.parametrize("max_steps", [1, 5])
def test_update_survives_where_x_cannot_hold_it(max_steps):
    """P = e^x at x = -12: the update of gradient descent, 1e-11, is below the rounding of x in float32."""
    x0 = np.full((3, 1), -12.0, "float32")
    y_target = np.exp(x0) * np.array([[0.25], [0.5], [4.0]], "float32")
    simulator = keras_sip.from_function(problems.exponential_process, 1)
    result = keras_sip.GradientDescent(max_steps=max_steps).solve(simulator, x0, y_target)
    y = np.exp(np.float64(x0))
    expected = -max_steps * (y - y_target) * y  # all steps start from the same rounded x
    assert np.array_equal(result.x, x0)
    assert result.update.numpy() == pytest.approx(expected, rel=1e-6)


def test_tolerance_stops_each_example_on_its_own():
    x_true = np.random.default_rng(1).normal(size=(4, 3))
    y_target = CURVED.simulator(x_true)
    x0 = x_true + np.reshape([0.0, 1e-6, 1e-2, 1.0], (4, 1))
    solver = GAUSS_NEWTON.with_options(max_steps=20, ftol=None, gtol=None, residual_tolerance=1e-6)
    result = solver.solve(CURVED.simulator, x0, y_target)
    assert np.all(result.status == Status.CONVERGED)
    assert np.all(np.diff(result.num_steps) > 0)
    assert result.num_steps[0] == 0
    assert result.num_steps[3] < 10
    for i in range(4):
        alone = solver.solve(CURVED.simulator, x0[i : i + 1], y_target[i : i + 1])
        assert alone.num_steps[0] == result.num_steps[i]
        assert alone.update[0].numpy() == pytest.approx(result.update[i].numpy(), rel=1e-9)


def test_tolerance_is_relative_to_the_residual_at_the_start():
    x0, y_target, _ = CURVED.start_and_target()

    def norm(x):
        return np.linalg.norm(CURVED.simulator(x) - y_target, axis=1) / np.linalg.norm(
            CURVED.simulator(x0) - y_target, axis=1
        )

    solver = keras_sip.GradientDescent(step_size=0.05, max_steps=500, residual_tolerance=0.1)
    result = problems.compiled_solve(solver, CURVED)(x0, y_target)
    before = problems.compiled_solve(solver.with_options(max_steps=int(min(result.num_steps)) - 1), CURVED)(
        x0, y_target
    )
    assert np.all(result.status == Status.CONVERGED)
    assert np.all(norm(result.x) <= 0.1)
    assert np.all(norm(before.x) > 0.1)


@pytest.mark.parametrize("solver", [keras_sip.GaussNewton, keras_sip.LevenbergMarquardt])
def test_tolerance_also_stops_at_a_minimum_that_leaves_a_residual(solver):
    """Four sensors, three unknowns: a residual of noise remains, which no step could lower."""
    x0, y_target, _ = CURVED.start_and_target()
    y_target += 0.1 * np.random.default_rng(4).normal(size=y_target.shape)
    result = solver(max_steps=50).solve(CURVED.simulator, x0, y_target, evaluate_result=True)
    assert np.all(result.status == Status.CONVERGED)
    assert np.all(result.num_steps < 20)
    with tf.GradientTape() as tape:
        tape.watch(result.x)
        objective = CURVED.simulator.objective(CURVED.simulator.forward(result.x), y_target)
    assert np.all(objective > 1e-6)
    # The gradient along a direction of the Jacobian's size, relative to the residual.
    assert np.max(np.abs(tape.gradient(objective, result.x))) < 1e-5


def test_without_tolerances_only_rounding_stops():
    x0, y_target, _ = CURVED.start_and_target()
    y_target += 0.1  # out of reach: a residual remains
    without = GAUSS_NEWTON.with_options(max_steps=20, ftol=None, xtol=None, gtol=None)
    loose = GAUSS_NEWTON.with_options(max_steps=20, gtol=1e-2)
    result, early = (solver.solve(CURVED.simulator, x0, y_target, evaluate_result=True) for solver in (without, loose))
    assert np.all(result.status == Status.CONVERGED)
    # Some roundings of x and y, which are up to ten times the residual.
    assert np.max(result.optimality) < 1e-13
    assert np.all(early.status == Status.CONVERGED)
    assert np.all(early.num_steps < result.num_steps)
    assert np.all((early.optimality <= 1e-2) & (early.optimality > 1e-13))


@keras.saving.register_keras_serializable(package="keras_sip_tests")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bisection(keras_sip.InverseSolver):
    """The root of an increasing function by halving [-width, width]: a solver with a state, in a few lines."""

    width: float = 8.0

    def init(self, problem, x):
        return {"half": tf.fill(tf.shape(x)[:1], tf.constant(self.width, x.dtype))}

    def step(self, problem, x, state):
        residual = problem.residual(x)
        half = state["half"] / 2
        objective = problem.objective(x)
        return Step(
            update=-tf.sign(residual) * half[:, None],
            objective=objective,
            converged=objective == 0,
            failure=tf.zeros_like(objective, tf.int32),
            state={"half": half},
        )


def test_own_solver_inherits_the_loop():
    simulator = keras_sip.from_function(tf.exp, 1, dtype="float64")
    x_true = np.array([[1.1], [-2.3], [0.0], [np.nan]])
    result = Bisection(max_steps=40).solve(simulator, np.zeros((4, 1)), np.exp(x_true))
    # 8 / 2^40 of the interval is left.
    assert np.max(np.abs(result.x[:3] - x_true[:3])) < 1e-11
    assert result.num_steps.numpy().tolist() == [40, 40, 0, 0]
    assert result.status.numpy().tolist() == [Status.MAX_STEPS] * 2 + [Status.CONVERGED, Status.NON_FINITE]


def test_solver_without_a_step_says_so():
    x0, y_target, _ = CURVED.start_and_target()
    with pytest.raises(NotImplementedError, match="`InverseSolver` to define `step.self, problem, x, state."):
        keras_sip.InverseSolver().solve(CURVED.simulator, x0, y_target)


class Unaware(keras_sip.InverseSolver):
    """A wrapped library that returns NaN and says nothing."""

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        update = tf.where(tf.range(tf.shape(x0)[0])[:, None] == 1, float("nan"), tf.ones_like(x0))
        status = tf.fill(tf.shape(x0)[:1], int(Status.CONVERGED))
        return self.finish(InverseProblem(simulator, y_target, context), x0, update, status, tf.ones_like(status))


@pytest.mark.parametrize("on_failure", ["zero", "gradient"])
def test_non_finite_update_of_a_direct_solver_is_a_failure(on_failure):
    x0, y_target, _ = CURVED.start_and_target()
    result = Unaware(on_failure=on_failure).solve(CURVED.simulator, x0, y_target)
    assert result.status.numpy().tolist() == [0, Status.NON_FINITE, 0, 0]
    assert np.all(np.isfinite(result.update))
    assert np.any(result.update[1] != 0) == (on_failure == "gradient")
