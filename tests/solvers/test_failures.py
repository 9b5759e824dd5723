"""What becomes of an example that the solver cannot help, for every `on_failure`."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from keras_sip import Status

FALLBACKS = ["zero", "gradient", "raise"]
CURVED = problems.problem("curved")
POISSON = problems.problem("poisson_float64")
SOLVERS = [
    (keras_sip.AnalyticInverse(), POISSON),
    (keras_sip.GradientDescent(step_size=0.1, max_steps=2), CURVED),
    (keras_sip.GaussNewton(), CURVED),
    (keras_sip.LevenbergMarquardt(), CURVED),
    (keras_sip.SaddleFreeNewton(max_relative_loss_change=2.0), CURVED),
]


# The gradient takes the simulator and the batch along; the others are one code for a direct solver and for the loop.
ALL_FALLBACKS = (keras_sip.AnalyticInverse, keras_sip.GaussNewton)
FAILING = [(s, p, f) for s, p in SOLVERS for f in FALLBACKS if f == "gradient" or isinstance(s, ALL_FALLBACKS)]


@pytest.mark.parametrize("spoiled", ["x0", "y_target"])
@pytest.mark.parametrize(
    "solver, problem, on_failure", FAILING, ids=[f"{type(s).__name__}-{fallback}" for s, _, fallback in FAILING]
)
def test_other_examples_are_bit_identical_whatever_the_fallback(solver, problem, on_failure, spoiled):
    solver = solver.with_options(on_failure=on_failure)
    x0, y_target, _ = problem.start_and_target()
    inputs = {"x0": x0.numpy(), "y_target": y_target.numpy()}
    inputs[spoiled][2].flat[-1] = np.inf
    solve = problems.compiled_solve(solver, problem)
    expected, received = solve(x0, y_target), solve(**inputs)
    others = [0, 1, 3]
    for field in ("update", "x", "y", "status", "num_steps", "objective"):
        assert np.array_equal(getattr(received, field).numpy()[others], getattr(expected, field).numpy()[others]), field
    assert received.status[2] == Status.NON_FINITE
    assert np.all(received.update[2] == 0)  # there is no direction downhill either


def explode(x):
    return tf.exp(10 * x)


# Far below its target, the linear model of e^(10 x) asks for a step to where that overflows.
EXPLODING = keras_sip.from_function(explode, 1, x_scale=0.1)
EXPLODING_X0 = np.array([[-1.0], [0.1], [-1.2]], "float32")
EXPLODING_Y = np.exp(10 * np.array([[0.1], [0.12], [0.1]], "float32"))


def solve_exploding(**options):
    solver = keras_sip.GaussNewton(**{"max_steps": 2, **options})
    return solver.solve(EXPLODING, EXPLODING_X0, EXPLODING_Y, evaluate_result=True)


def objective_at(x):
    return EXPLODING.objective(EXPLODING(x), EXPLODING_Y).numpy()


def test_failure_is_reported_with_its_reason():
    result = solve_exploding()
    assert result.status.numpy().tolist() == [Status.NON_FINITE, Status.MAX_STEPS, Status.NON_FINITE]
    assert result.failed.numpy().tolist() == [True, False, True]
    assert "not finite" in Status(int(result.status[0])).message


def test_every_status_says_what_to_do():
    assert all(len(status.message.split()) >= 5 and status.message.endswith(".") for status in Status)


def test_zero_leaves_a_failed_example_where_it_was():
    result = solve_exploding(on_failure="zero")
    assert np.array_equal(result.x.numpy()[[0, 2]], EXPLODING_X0[[0, 2]])
    assert np.all(result.update[1] != 0)


def test_gradient_takes_a_bounded_step_downhill():
    result = solve_exploding(on_failure="gradient")
    # The Cauchy step is the one that overflowed; one x_scale is the bound.
    assert result.update.numpy()[[0, 2], 0] == pytest.approx([0.1, 0.1])
    assert np.all(result.objective < objective_at(EXPLODING_X0))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_gradient_fallback_does_not_depend_on_the_unit_of_x(scale):
    """A Levenberg-Marquardt that may not try again takes the Cauchy step in units of x_scale."""
    stretched = keras_sip.from_function(lambda x: tf.exp(x / scale), 2, dtype="float64", x_scale=[scale, scale])
    solver = keras_sip.LevenbergMarquardt(max_tries=1, on_failure="gradient")
    x0 = np.array([[-9.0, -8.0]])
    result = solver.solve(stretched, scale * x0, np.exp([[1.0, 2.0]]))
    assert result.status.numpy().tolist() == [Status.REJECTED]
    # The Cauchy step would be of length exp(8); the bound is a root mean square of one x_scale.
    assert np.linalg.norm(result.update) / scale == pytest.approx(np.sqrt(2), rel=1e-9)


def test_gradient_fallback_is_the_cauchy_step_where_that_is_shorter():
    from_start = tf.constant([[0.3, -0.2]], "float64")
    matrix = np.array([[3.0, 1.0], [0.5, 2.0]])
    linear = keras_sip.from_function(lambda x: tf.linalg.matvec(tf.constant(matrix), x), 2, dtype="float64")
    y_target = tf.zeros((1, 2), "float64")
    refusing = Refusing(on_failure="gradient")
    residual = matrix @ from_start.numpy()[0]
    gradient = matrix.T @ residual
    expected = -gradient * (gradient @ gradient) / np.sum((matrix @ gradient) ** 2)
    assert refusing.solve(linear, from_start, y_target).update.numpy()[0] == pytest.approx(expected, rel=1e-12)


class Refusing(keras_sip.GradientDescent):
    """A solver that gives up at once."""

    def step(self, problem, x, state):
        step = super().step(problem, x, state)
        return step._replace(failure=tf.fill(tf.shape(x)[:1], int(Status.BREAKDOWN)))


def test_refine_keeps_the_start_where_the_inverse_is_worse():
    simulator = keras_sip.from_function(tf.sinh, 2, dtype="float64", inverse=lambda y_target, x_near: y_target + x_near)
    x0, y_target = np.array([[1.0, 1.0], [0.0, 0.0]]), np.sinh([[1.0, 1.1], [0.1, 0.1]])
    result = keras_sip.AnalyticInverse().refine(simulator, x0, y_target, steps=1)
    assert np.array_equal(result.update[0], [0.0, 0.0])
    assert np.array_equal(result.update[1], y_target[1])


def test_raise_names_the_examples_in_eager_execution():
    with pytest.raises(keras_sip.SolverError) as caught:
        solve_exploding(on_failure="raise")
    message = str(caught.value)
    assert "2 failed of 3: examples [0, 2], status NON_FINITE" in message
    assert Status.NON_FINITE.message in message


def test_raise_leaves_it_to_the_status_in_a_graph():
    solver = keras_sip.GaussNewton(max_steps=2, on_failure="raise")
    result = tf.function(solver.solve, autograph=False)(EXPLODING, tf.constant(EXPLODING_X0), tf.constant(EXPLODING_Y))
    assert result.failed.numpy().tolist() == [True, False, True]
    assert np.all(result.update.numpy()[[0, 2]] == 0)


@pytest.mark.parametrize("solver", [keras_sip.GaussNewton(), keras_sip.LevenbergMarquardt()], ids=["gn", "lm"])
def test_flat_start_is_a_breakdown(solver):
    simulator = keras_sip.from_function(tf.tanh, 2, dtype="float64")
    # tanh(50) is 1 and its derivative 0, to the last bit; the other example is well.
    result = solver.solve(simulator, np.array([[50.0, 50.0], [0.1, 0.2]]), np.array([[0.0, 0.5], [0.15, 0.2]]))
    assert result.status.numpy().tolist() == [Status.BREAKDOWN, Status.MAX_STEPS]
    assert np.all(result.update[0] == 0)
    assert np.all(result.update[1] != 0)


@pytest.mark.parametrize("solver", [keras_sip.GaussNewton(), keras_sip.LevenbergMarquardt()], ids=["gn", "lm"])
def test_infinite_derivative_is_not_finite(solver):
    simulator = keras_sip.from_function(tf.sqrt, 2, dtype="float64")
    result = solver.solve(simulator, np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 1.0], [1.5, 2.0]]))
    assert result.status.numpy().tolist() == [Status.NON_FINITE, Status.MAX_STEPS]
    assert np.all(np.isfinite(result.update))


ON_CURVED = [
    solver
    for solver in problems.SOLVERS
    if problems.serves(solver, CURVED) and not isinstance(solver, keras_sip.Chain | keras_sip.AnalyticInverse)
]


@pytest.mark.parametrize("solver", ON_CURVED, ids=lambda solver: type(solver).__name__)
def test_start_at_the_solution_is_converged(solver):
    x0, _, _ = CURVED.start_and_target()
    result = problems.compiled_solve(solver, CURVED)(x0, CURVED.simulator.forward(x0))
    assert np.all(result.status == Status.CONVERGED)
    assert np.all(result.num_steps == 0)
    assert np.all(result.update == 0)


HARD = {
    "nan": ([np.nan, 0.0], [0.0, 0.0], Status.NON_FINITE),
    "overflow": ([800.0, 0.1], [0.0, 0.5], Status.NON_FINITE),
    "flat": ([-800.0, -800.0], [1.0, 0.5], Status.BREAKDOWN),
    "solved": ([0.25, -0.5], np.exp([0.25, -0.5]), Status.CONVERGED),
}
EXPONENTIAL = keras_sip.from_function(problems.exponential_process, 2, dtype="float64")


@pytest.mark.parametrize(
    "solver",
    [
        keras_sip.GaussNewton(),
        keras_sip.LevenbergMarquardt(),
        keras_sip.Newton(),
        keras_sip.SaddleFreeNewton(),
        keras_sip.NormalizedGradient(),
        keras_sip.SignStep(),
        keras_sip.LBFGS(),
        keras_sip.LineSearch(keras_sip.Newton()),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_bad_examples_among_64_good_ones_say_what_they_are_and_disturb_none(solver):
    generator = np.random.default_rng(0)
    x_true = generator.uniform(-1, 1, (64, 2))
    x0, y_target = x_true + generator.uniform(0.1, 0.3, (64, 2)), np.exp(x_true)
    solve = tf.function(solver.with_options(max_steps=3).solve, autograph=False, reduce_retracing=True)
    good = solve(EXPONENTIAL, tf.constant(x0), tf.constant(y_target))
    for index, (start, target, _) in zip((3, 17, 40, 63), HARD.values(), strict=True):
        x0[index], y_target[index] = start, target
    mixed = solve(EXPONENTIAL, tf.constant(x0), tf.constant(y_target))
    others = np.setdiff1d(np.arange(64), [3, 17, 40, 63])
    for field in ("update", "status", "num_steps"):
        assert np.array_equal(getattr(mixed, field).numpy()[others], getattr(good, field).numpy()[others])
    assert mixed.status.numpy()[[3, 17, 40, 63]].tolist() == [status for *_, status in HARD.values()]
    assert not np.any(good.failed)
    assert np.all(mixed.update.numpy()[63] == 0)
    assert np.all(np.isfinite(mixed.update))
