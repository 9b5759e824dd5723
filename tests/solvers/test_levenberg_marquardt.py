"""Levenberg-Marquardt against dense NumPy, SciPy and problems that plain Gauss-Newton does not solve."""

import functools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

import keras_sip
import problems
from keras_sip import Status
from keras_sip.solvers.problem import InverseProblem
from numerics import dense_jacobian, relative_error

CONVERGED_CG = {"linear_solver": "conjugate_gradient", "cg_steps": 30, "cg_tolerance": 1e-13}


def trust_region_step(residual, jacobian, x, scaling, radius):
    """(step, |D step|, whether it is damped, predicted decrease): lambda by SciPy's bracketing, in dense NumPy."""
    r, scaled = residual(x), jacobian(x) / scaling

    def step(damping):
        return -np.linalg.solve(scaled.T @ scaled + damping * np.eye(len(x)), scaled.T @ r)

    damping = 0.0
    if np.linalg.norm(step(0.0)) > radius:
        damping = scipy.optimize.brentq(lambda d: np.linalg.norm(step(d)) - radius, 0, 1e12, xtol=1e-14, rtol=1e-14)
    change = scaled @ step(damping)
    predicted = -(r @ change) - 0.5 * change @ change
    return step(damping) / scaling, np.linalg.norm(step(damping)), damping > 0, predicted


def dense_levenberg_marquardt(residual, jacobian, x, *, steps):
    """The docstring's algorithm for one example, y_target 0. Returns x and how many tries were turned down."""
    scaling, radius, rejections, size = np.zeros(len(x)), None, 0, np.inf
    for _ in range(steps):
        r, j = residual(x), jacobian(x)
        if r @ r < 1e-24:
            break
        fallen, size = min(np.linalg.norm(r) / size, 1.0), np.linalg.norm(r)
        scaling = np.maximum(fallen * scaling, np.linalg.norm(j, axis=0))
        radius = radius and fallen * radius
        if radius is None:
            scaled = j / scaling
            radius = np.linalg.norm(np.linalg.solve(scaled.T @ scaled + 0.1 * np.eye(len(x)), scaled.T @ r))
        while True:
            step, length, is_damped, predicted = trust_region_step(residual, jacobian, x, scaling, radius)
            after = residual(x + step)
            curved = after - r - j @ step
            actual = 0.5 * (r @ r - after @ after)
            if not is_damped:
                damping = 0.0
            else:
                gradient = j.T @ r + j.T @ (j @ step)
                damping = -(gradient @ step) / length**2
            scaled = j / scaling
            matrix = scaled.T @ scaled + damping * np.eye(len(x))
            correction = -np.linalg.solve(matrix, scaled.T @ curved)
            second = step + correction / scaling
            lower = 0.5 * (r @ r - residual(x + second) @ residual(x + second))
            if np.linalg.norm(correction) <= 0.75 * length and lower > max(actual, 0):
                step, actual = second, lower
            gain = actual / predicted
            if gain >= 1e-4:
                break
            rejections += 1
            slope = -(j.T @ r) @ trust_region_step(residual, jacobian, x, scaling, radius)[0]
            radius = np.clip(0.5 * slope / (slope - actual), 0.1, 0.5) * length
        x = x + step
        if gain < 0.25:
            radius = 0.5 * length
        elif not is_damped:
            radius = 2 * length
        elif gain > 0.75:
            radius = max(radius, 2 * length)
    return x, rejections


def rosenbrock(x):
    """Residuals of Rosenbrock's function; the minimum is (1, 1), at the end of a curved valley."""
    return tf.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], axis=1)


ROSENBROCK = keras_sip.from_function(rosenbrock, 2, dtype="float64")
STARTS = np.array([[-1.2, 1.0], [0.0, 0.0], [-3.0, -4.0], [1.0, 1.0]])

TIMES = np.linspace(0, 4, 20)


def decay(x):
    """a exp(-b t) + c at 20 times."""
    return x[:, :1] * tf.exp(-x[:, 1:2] * tf.constant(TIMES)) + x[:, 2:]


DECAY = keras_sip.from_function(decay, 3, dtype="float64")


@functools.cache
def compiled(simulator, **options):
    solver = keras_sip.LevenbergMarquardt(**{**CONVERGED_CG, **options})
    return tf.function(
        lambda x0, y_target: solver.solve(simulator, x0, y_target, evaluate_result=True),
        autograph=False,
        reduce_retracing=True,
    )


def solve(simulator, x0, y_target, **options):
    return compiled(simulator, **options)(tf.constant(x0), tf.constant(y_target))


@pytest.mark.parametrize("name", ["curved", "masked_sensors", "curved_nondimensional"])
def test_first_step_solves_the_damped_normal_equations(name):
    problem = problems.problem(name)
    x0, y_target, _ = problem.start_and_target()
    jacobian = dense_jacobian(lambda x: problem.simulator.forward(tf.constant(x), problem.context).numpy(), x0.numpy())
    residual = (problem.simulator.forward(x0, problem.context) - y_target).numpy()
    expected = [
        -np.linalg.solve(j.T @ j + 1e-3 * np.diag(np.sum(j**2, axis=0)), j.T @ r)
        for j, r in zip(jacobian, residual, strict=True)
    ]
    solver = keras_sip.LevenbergMarquardt(**CONVERGED_CG)
    update = problems.compiled_solve(solver, problem)(x0, y_target, *problem.known()).update
    assert relative_error(update, expected) < 1e-7


@pytest.mark.parametrize("steps", [2, 3, 6])
def test_steps_are_those_of_the_dense_algorithm(steps):
    starts = np.concatenate([STARTS[:3], [[-1.2, 100.0]]])
    received = solve(ROSENBROCK, starts, np.zeros((4, 2)), max_steps=steps, linear_solver="dense").x.numpy()

    def residual(x):
        return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])

    def jacobian(x):
        return np.array([[-20 * x[0], 10.0], [-1.0, 0.0]])

    dense = [dense_levenberg_marquardt(residual, jacobian, x, steps=steps) for x in starts]
    assert received == pytest.approx(np.array([x for x, _ in dense]), rel=1e-6, abs=1e-6)


def test_rosenbrock_is_solved_from_every_start():
    result = solve(ROSENBROCK, STARTS, np.zeros((4, 2)), max_steps=60)
    assert np.max(np.abs(result.x - 1.0)) < 1e-9
    assert np.all(result.status == Status.CONVERGED)
    assert result.num_steps[3] == 0
    assert np.all(np.asarray(result.num_steps[:3]) < 40)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_curve_fit_is_that_of_scipy(noise):
    x_true = np.array([[2.0, 1.3, 0.5], [1.0, 0.4, -1.0], [5.0, 3.0, 0.0]])
    y_target = DECAY(x_true).numpy() + noise * np.random.default_rng(0).standard_normal((3, 20))
    result = solve(DECAY, np.ones((3, 3)), y_target, max_steps=60)
    for received, y in zip(result.x.numpy(), y_target, strict=True):
        fit = scipy.optimize.least_squares(
            lambda p, y=y: p[0] * np.exp(-p[1] * TIMES) + p[2] - y, np.ones(3), xtol=1e-15, ftol=1e-15, gtol=1e-15
        )
        assert received == pytest.approx(fit.x, rel=1e-6, abs=1e-6)
    assert np.all(result.status == Status.CONVERGED)


def test_curve_fit_in_float32_ends_at_its_rounding_and_keeps_what_it_has():
    """Steps are turned down once the objective is all rounding: that is the end of the road, not a failure."""
    single = keras_sip.from_function(
        lambda x: x[:, :1] * tf.exp(-x[:, 1:2] * tf.constant(TIMES, tf.float32)) + x[:, 2:], 3
    )
    x_true = np.array([[2.0, 1.3, 0.5], [1.0, 0.4, -1.0]], "float32")
    result = solve(single, np.ones((2, 3), "float32"), single(x_true), max_steps=60, cg_tolerance=1e-5)
    assert np.all(result.status == Status.CONVERGED)
    assert np.max(np.abs(result.x - x_true)) < 1e-4


def test_it_solves_what_gauss_newton_does_not():
    simulator = keras_sip.from_function(tf.atan, 1, dtype="float64")
    x0, y_target = np.array([[3.0], [-10.0]]), np.zeros((2, 1))
    newton = keras_sip.GaussNewton(max_steps=8).solve(simulator, x0, y_target)
    assert not np.any(np.abs(newton.x) < 1)
    assert np.max(np.abs(solve(simulator, x0, y_target, max_steps=30).x)) < 1e-9


def test_every_step_lowers_the_objective():
    simulator = keras_sip.from_function(tf.exp, 2, dtype="float64")
    x, y_target = tf.constant([[-4.0, 2.0], [3.0, -1.0]], "float64"), tf.exp([[1.0, 0.0], [-2.0, 2.0]])
    solver, problem = keras_sip.LevenbergMarquardt(), InverseProblem(simulator, tf.cast(y_target, x.dtype))
    state = solver.init(problem, x)
    for _ in range(6):
        step = solver.step(problem, x, state)
        assert np.all(problem.objective(x + step.update) < step.objective)
        x, state = x + step.update, step.state


def test_radius_that_grew_in_good_steps_does_not_use_up_the_tries_of_a_hard_one():
    x = tf.constant(STARTS[:1])
    solver = keras_sip.LevenbergMarquardt(max_steps=2)
    problem = InverseProblem(ROSENBROCK, tf.zeros_like(x))
    state = solver.init(problem, x)._replace(radius=tf.constant([1e20], tf.float64))
    assert problem.objective(x + keras_sip.GaussNewton().step(problem, x, ()).update) > problem.objective(x)
    step = solver.step(problem, x, state)
    assert step.failure[0] == 0
    assert problem.objective(x + step.update) < problem.objective(x)
    assert step.state.radius[0] < 1e3


def test_tries_that_one_step_does_not_suffice_for_go_on_in_the_next():
    """From x = -20 the linear model of e^x leaps by e^21, which a single step of one try cannot mend."""
    simulator = keras_sip.from_function(tf.exp, 1, dtype="float64")
    start, y_target = np.array([[-20.0]]), np.exp(np.ones((1, 1)))
    assert keras_sip.LevenbergMarquardt(max_tries=1).solve(simulator, start, y_target).status[0] == Status.REJECTED
    result = solve(simulator, start, y_target, max_steps=100, max_tries=1, linear_solver="dense")
    assert float(result.x[0, 0]) == pytest.approx(1.0, abs=1e-9)
    assert result.status[0] == Status.CONVERGED


def test_overflow_is_one_more_try_turned_down():
    """From x = -9 the first tries go to e^20000 and overflow; larger dampings find a step."""
    simulator = keras_sip.from_function(tf.exp, 1)
    x0, y_target = np.full((1, 1), -9.0, "float32"), np.exp(np.ones((1, 1), "float32"))
    result = keras_sip.LevenbergMarquardt(max_tries=12).solve(simulator, x0, y_target, evaluate_result=True)
    assert result.status[0] == Status.MAX_STEPS
    assert result.objective[0] < simulator.objective(simulator(x0), y_target)[0]


@tf.custom_gradient
def with_wrong_gradient(x):
    return tf.exp(x), lambda upstream: -upstream * tf.exp(x)


def test_step_that_no_damping_makes_good_is_reported_as_rejected():
    wrong = keras_sip.from_function(with_wrong_gradient, 2, dtype="float64")
    x0, y_target = np.zeros((1, 2)), np.exp([[1.0, 0.5]])
    for on_failure in ("gradient", "zero"):
        result = keras_sip.LevenbergMarquardt(on_failure=on_failure).solve(wrong, x0, y_target)
        assert result.status[0] == Status.REJECTED
        assert result.num_steps[0] == 0
        assert np.any(result.update[0] != 0) == (on_failure == "gradient")
        assert np.sqrt(np.mean(np.square(result.update))) <= 1 + 1e-12
    assert "No tried step lowered the objective" in Status.REJECTED.message


def test_rejected_example_moves_by_a_bounded_step_downhill():
    """A network would collapse on silent zeros (seen where x is far too low)."""
    simulator = keras_sip.from_function(tf.exp, 2)
    x0, y_target = np.array([[-9.0, -9.0], [0.9, 1.1]], "float32"), np.exp(np.ones((2, 2), "float32"))
    result = keras_sip.LevenbergMarquardt(max_tries=1).solve(simulator, x0, y_target, evaluate_result=True)
    assert result.status.numpy().tolist() == [Status.REJECTED, Status.MAX_STEPS]
    assert np.all(result.update[0] > 0)
    assert np.sqrt(np.mean(np.square(result.update[0]))) == pytest.approx(1.0)
    assert np.all(result.objective < simulator.objective(simulator(x0), y_target))


def test_minimum_with_a_residual_is_converged_and_not_left():
    x0, y_target = np.ones((1, 3)), DECAY(np.array([[2.0, 1.3, 0.5]])).numpy() + 0.1 * np.cos(40 * TIMES)
    best = solve(DECAY, x0, y_target, max_steps=60).x
    again = solve(DECAY, best, y_target, max_steps=60)
    assert again.status[0] == Status.CONVERGED
    assert np.max(np.abs(again.update)) < 1e-6


def test_estimated_scaling_is_another_one_but_finds_the_same_minimum():
    problem = problems.problem("curved")
    x0, y_target, x_true = problem.start_and_target()
    exact, estimated = (keras_sip.LevenbergMarquardt(**CONVERGED_CG, probes=probes, damping=0.1) for probes in (8, 3))
    steps = [solver.solve(problem.simulator, x0, y_target).update for solver in (exact, estimated)]
    assert relative_error(*steps) > 1e-3
    result = problems.compiled_solve(estimated.with_options(max_steps=20), problem)(x0, y_target)
    assert relative_error(result.x, x_true) < 1e-9
