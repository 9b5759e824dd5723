"""Newton's methods against dense NumPy, their rate, their limits, and what float32 leaves of a small eigenvalue."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from keras_sip import Status
from keras_sip.solvers.curvature import curvature
from keras_sip.solvers.problem import InverseProblem
from numerics import dense_jacobian, relative_error

NAMES = ["curved", "masked_sensors", "directions"]


def gradient_and_hessian(problem):
    """`[B, n]` and `[B, n, n]` of the objective at the start, the Hessian by central differences of the gradient."""
    x0, y_target, _ = problem.start_and_target()

    def gradient(x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = problem.simulator.forward(x, problem.context)
            objective = problem.simulator.objective(y, y_target, problem.context)
        return tape.gradient(objective, x).numpy()

    return gradient(x0.numpy()), dense_jacobian(gradient, x0.numpy())


def solve(solver, problem):
    x0, y_target, _ = problem.start_and_target()
    return problems.compiled_solve(solver, problem)(x0, y_target, *problem.known())


@pytest.mark.parametrize("name", NAMES)
def test_newton_step_solves_the_hessian_system(name):
    problem = problems.problem(name)
    gradient, hessian = gradient_and_hessian(problem)
    expected = -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    # Central differences are good to about 1e-9 and the condition number is below 100.
    assert relative_error(solve(keras_sip.Newton(), problem).update, expected) < 1e-6


def saddle_free(gradient, hessian, objective, fixed=np.inf, relative=np.inf):
    """The docstring's step of one example, in NumPy."""
    values, vectors = np.linalg.eigh(hessian)
    slopes = vectors.T @ gradient
    lengths = np.abs(slopes / values)
    small = values <= np.exp(np.mean(np.log(np.abs(values))))
    limits = np.minimum(fixed, relative * objective) / np.abs(slopes)
    return -vectors @ (np.sign(slopes) * np.where(small, np.minimum(lengths, limits), lengths))


@pytest.mark.parametrize("fixed, relative", [(None, None), (1e-4, None), (None, 0.5), (1e-4, 0.5)])
def test_saddle_free_step_goes_downhill_along_every_eigenvector(fixed, relative):
    problem = problems.problem("directions")
    x0, y_target, _ = problem.start_and_target()
    gradient, hessian = gradient_and_hessian(problem)
    objective = problem.simulator.objective(problem.simulator.forward(x0), y_target).numpy()
    bounds = {"fixed": fixed or np.inf, "relative": relative or np.inf}
    expected = [saddle_free(*parts, **bounds) for parts in zip(gradient, hessian, objective, strict=True)]
    solver = keras_sip.SaddleFreeNewton(max_loss_change=fixed, max_relative_loss_change=relative)
    assert relative_error(solver.solve(problem.simulator, x0, y_target).update, expected) < 1e-6


def test_convergence_is_quadratic_near_the_root():
    simulator = keras_sip.from_function(problems.curved_process, 3, dtype="float64")
    x_true = np.array([[0.4, -0.3, 0.8]])
    errors = [
        np.max(np.abs(solver.solve(simulator, x_true + 0.2, simulator(x_true)).x - x_true))
        for solver in (keras_sip.Newton(max_steps=steps) for steps in (1, 2, 3))
    ]
    assert np.all(np.log(errors[1:]) / np.log(errors[:-1]) > 1.7)
    assert errors[-1] < 1e-6


def saddle(x):
    """L = 1/2 (u^2 - 1)^2 + 1/2 v^2: minima at (+-1, 0), a saddle at 0."""
    return tf.stack([x[:, 0] ** 2, x[:, 1]], axis=1)


SADDLE = keras_sip.from_function(saddle, 2, dtype="float64")
SADDLE_TARGET = np.array([[1.0, 0.0]])


def test_newton_goes_to_the_saddle_and_saddle_free_newton_to_the_minimum():
    x0 = np.array([[0.1, 0.3]])
    newton = keras_sip.Newton(max_steps=3).solve(SADDLE, x0, SADDLE_TARGET)
    free = keras_sip.SaddleFreeNewton(max_steps=40, max_relative_loss_change=2.0).solve(SADDLE, x0, SADDLE_TARGET)
    assert np.max(np.abs(newton.x)) < 1e-9
    assert np.abs(free.x.numpy()) == pytest.approx(np.array([[1.0, 0.0]]), abs=1e-9)


def test_gradient_zero_is_a_breakdown_at_a_saddle_and_the_end_at_a_minimum():
    unreachable = np.array([[1.0, 0.0], [-1.0, 0.0]])  # L = 1/2 (u^2 + 1)^2 of the second: a minimum at 0
    for solver in (keras_sip.Newton(), keras_sip.SaddleFreeNewton()):
        result = solver.solve(SADDLE, np.zeros((2, 2)), unreachable)
        assert result.status.numpy().tolist() == [Status.BREAKDOWN, Status.CONVERGED]
        assert np.all(result.update == 0)


def test_singular_hessian_is_a_breakdown_unless_a_limit_bounds_the_step():
    """L = 1/2 (u^3 - 1)^2 + ... has slope but no curvature at u^3 = 2/5."""
    simulator = keras_sip.from_function(lambda x: x**3, 1, dtype="float64")
    flat, steep = np.cbrt(0.4), 1.2
    x0, y_target = np.array([[flat], [steep]]), np.ones((2, 1))
    for solver in (keras_sip.Newton(), keras_sip.SaddleFreeNewton()):
        assert solver.solve(simulator, x0, y_target).status.numpy().tolist() == [Status.BREAKDOWN, Status.MAX_STEPS]
    limited = keras_sip.SaddleFreeNewton(max_relative_loss_change=2.0).solve(simulator, x0, y_target)
    gradient = 3 * flat**2 * (flat**3 - 1)
    assert limited.status[0] == Status.MAX_STEPS
    assert limited.update.numpy()[0, 0] == pytest.approx((flat**3 - 1) ** 2 / abs(gradient), rel=1e-9)


def test_direction_without_slope_or_curvature_is_left_alone():
    """Two unknowns that act only by their sum: the step is the shortest one."""
    simulator = keras_sip.from_function(lambda x: tf.sinh(x[:, :1] + x[:, 1:]), 2, dtype="float64")
    for solver in (keras_sip.Newton(max_steps=20), keras_sip.SaddleFreeNewton(max_steps=20)):
        result = solver.solve(simulator, np.array([[0.1, 0.4]]), np.sinh([[1.5]]))
        assert result.x.numpy() == pytest.approx(np.array([[0.6, 0.9]]), abs=1e-9)


def test_fixed_limit_is_in_units_of_the_loss_and_the_relative_one_in_that_of_the_example():
    """y in other units: the same step in x with the relative limit, another one with the fixed limit."""
    x0, y_target = np.array([[0.5, 0.3]]), SADDLE_TARGET
    larger = keras_sip.from_function(lambda x: 10 * saddle(x), 2, dtype="float64")

    def steps(**limit):
        solver = keras_sip.SaddleFreeNewton(**limit)
        both = ((SADDLE, 1), (larger, 10))
        return [solver.solve(simulator, x0, unit * y_target).update.numpy()[0] for simulator, unit in both]

    relative, fixed = steps(max_relative_loss_change=1e-3), steps(max_loss_change=1e-3)
    assert relative[1] == pytest.approx(relative[0], rel=1e-9)
    gradient = np.array([2 * 0.5 * (0.5**2 - 1), 0.3])
    # Only u, of negative curvature, is limited: |g du| = 1e-3.
    assert fixed[0] == pytest.approx([1e-3 / abs(gradient[0]), -0.3], rel=1e-9)
    assert fixed[1] == pytest.approx([1e-3 / abs(100 * gradient[0]), -0.3], rel=1e-9)


def rotated_sine(xi, angle=np.pi / 4, gamma=10.0):
    cosine, sine = np.cos(angle), np.sin(angle)

    def process(x):
        u = gamma / xi * (cosine * x[:, 0] - sine * x[:, 1])
        v = gamma * xi * (sine * x[:, 0] + cosine * x[:, 1])
        return tf.stack([tf.sin(u), v], axis=1)

    return process


@pytest.mark.parametrize("xi", [1.0, 32.0, 256.0])
def test_small_eigenvalue_survives_float32(xi):
    """Released code sees it in steps of 1/128 at xi = 32, where it is at most 0.11 beside 1e5."""
    generator = np.random.default_rng(0)
    x0, y_target = 0.3 * generator.standard_normal((100, 2)), generator.uniform(-1, 1, (100, 2))
    x0, y_target = np.float32(x0), np.float32(y_target)
    eigenvalues = []
    for dtype in ("float32", "float64"):
        simulator = keras_sip.from_function(rotated_sine(xi), 2, dtype=dtype)
        problem = InverseProblem(simulator, tf.constant(y_target.astype(dtype)))
        model = problem.quadratic_model(tf.constant(x0.astype(dtype)))
        eigenvalues.append(curvature(model, dtype, scaled=False).eigenvalues.numpy())
    error = np.abs(eigenvalues[0] - eigenvalues[1]) / np.max(np.abs(eigenvalues[1]), axis=0)
    # Relative to the largest of its kind over the batch, for it passes through 0. v is good to a rounding of its terms,
    # which its large residual passes on; it does not touch the small eigenvalue.
    assert np.max(error) < 1e-5


def test_curvature_power_one_is_gradient_descent():
    """|lambda| g / |lambda|, in physical units; halfway, each component has lost half of its logarithm."""
    problem = problems.problem("curved")
    x0, y_target, _ = problem.start_and_target()
    whole = keras_sip.SaddleFreeNewton(curvature_power=1.0).solve(problem.simulator, x0, y_target).update
    descent = keras_sip.GradientDescent().solve(problem.simulator, x0, y_target).update
    assert relative_error(whole, descent) < 1e-10
    gradient, hessian = gradient_and_hessian(problem)
    half = keras_sip.SaddleFreeNewton(curvature_power=0.5).solve(problem.simulator, x0, y_target).update
    values, vectors = np.linalg.eigh(hessian)
    expected = np.einsum("bij,bj,bkj,bk->bi", vectors, np.abs(values) ** -0.5, vectors, -gradient)
    assert relative_error(half, expected) < 1e-6


@pytest.mark.parametrize("solver", [keras_sip.Newton, keras_sip.SaddleFreeNewton])
def test_damping_is_added_in_units_of_the_loss(solver):
    problem = problems.problem("curved")
    x0, y_target, _ = problem.start_and_target()
    gradient, hessian = gradient_and_hessian(problem)
    expected = -np.linalg.solve(hessian + 0.7 * np.eye(3), gradient[:, :, None])[:, :, 0]
    assert np.all(np.linalg.eigvalsh(hessian) > 0)  # where the two methods agree
    received = solver(damping=0.7).solve(problem.simulator, x0, y_target).update
    assert relative_error(received, expected) < 1e-6


def test_tolerance_stops_at_a_minimum_that_leaves_a_residual():
    problem = problems.problem("curved")
    x0, y_target, _ = problem.start_and_target()
    y_target += 0.1 * np.random.default_rng(4).normal(size=y_target.shape)
    result = keras_sip.Newton(max_steps=50).solve(problem.simulator, x0, y_target)
    assert np.all(result.status == Status.CONVERGED)
    assert np.all(result.num_steps < 20)


@pytest.mark.parametrize(
    "solver", [keras_sip.Newton(), keras_sip.SaddleFreeNewton(), keras_sip.LBFGS(full_matrix=True)]
)
def test_large_x_is_refused_with_the_remedy(solver):
    with pytest.raises(TypeError, match="an x of at most 256 components") as caught:
        solver.check(keras_sip.Poisson((64, 64)))
    assert "GaussNewton() or LevenbergMarquardt()" in str(caught.value)
