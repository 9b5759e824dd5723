"""`refine`: one path for a number of steps that is a number or a tensor, and never a worse objective."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from covering import kind
from keras_sip import Status
from problems import problem

SENSORS = problems.MaskedSensors()
SAMPLE = SENSORS.sample(6, (0, 0))
CURVED = problem("curved")
GAUSS_NEWTON = keras_sip.GaussNewton(cg_steps=60, cg_tolerance=1e-9)
DESCENT = keras_sip.GradientDescent(step_size=0.1, max_steps=2)


def traced(solver, simulator, context=None, jit_compile=None):
    """`(x0, y_target, steps) -> SolverResult` in one graph for every number of steps."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def refined(x0, y_target, steps):
        return solver.refine(simulator, x0, y_target, context, steps=steps)

    return refined


# These take a number eagerly, which traces nothing. The others go on, or end, by differences that are all rounding, and
# a graph rounds otherwise than eager execution does.
EAGERLY = (
    keras_sip.GaussNewton,
    keras_sip.Newton,
    keras_sip.SaddleFreeNewton,
    keras_sip.NormalizedGradient,
    keras_sip.SignStep,
)


def of_its_kind(solver):
    """A field, where that is quick to trace, or else sensors with a context."""
    quick = kind(solver) == "direct" or isinstance(solver, (keras_sip.GradientDescent, keras_sip.Chain))
    return problem("poisson_1d" if quick else "masked_sensors")


# One of each class: the two kinds of BFGS are repeated by the same loop.
SOLVERS = {type(solver): solver for solver in problems.SOLVERS if not isinstance(solver, keras_sip.ReverseSimulation)}
OF_EACH_KIND = [(solver, of_its_kind(solver)) for solver in SOLVERS.values()]


@pytest.mark.parametrize("solver, problem", OF_EACH_KIND, ids=[type(s).__name__ for s, _ in OF_EACH_KIND])
def test_steps_as_a_number_and_as_a_tensor_agree_for_every_solver(solver, problem):
    x0, y_target, _ = problem.start_and_target()
    refined = traced(solver, problem.simulator, problem.context)
    start = problem.simulator.objective(problem.simulator.forward(x0, problem.context), y_target, problem.context)
    for steps in (0, 1, 3):
        tensor = refined(x0, y_target, tf.constant(steps))
        assert np.all(tensor.objective <= start)
        eagerly = steps == 0 or isinstance(solver, EAGERLY)
        if steps == 1 and not eagerly:
            continue  # each number is a graph of its own
        refine = solver.refine if eagerly else tf.function(solver.refine, autograph=False)
        number = refine(problem.simulator, x0, y_target, problem.context, steps=steps)
        np.testing.assert_allclose(tensor.x, number.x, rtol=1e-8, atol=1e-10)
        np.testing.assert_array_equal(tensor.status, number.status)
        np.testing.assert_array_equal(tensor.num_steps, number.num_steps)
        y = problem.simulator.forward(tensor.x, problem.context)
        np.testing.assert_allclose(tensor.y, y, rtol=1e-6, atol=1e-30)
        assert np.all((tensor.optimality >= 0) & (tensor.optimality <= 1) | (steps == 0) | np.isnan(tensor.optimality))
        if steps == 0:
            np.testing.assert_array_equal(tensor.x, x0)
    assert refined.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    "solver", [GAUSS_NEWTON, DESCENT, keras_sip.Chain(DESCENT, GAUSS_NEWTON), keras_sip.MaximumAPosteriori()]
)
def test_steps_of_each_example_are_its_own(solver):
    """A vector of steps gives each example what a batch with its number gives it."""
    x0 = tf.zeros_like(SAMPLE["x"])
    steps = np.array([0, 1, 3, 2, 0, 1])
    refined = traced(solver, SENSORS, SAMPLE["context"])
    together = refined(x0, SAMPLE["y"], tf.constant(steps, tf.int32))
    for count in np.unique(steps):
        alone = refined(x0, SAMPLE["y"], tf.constant(count, tf.int32))
        for field in ("x", "status", "num_steps", "objective"):
            mine, expected = (getattr(result, field).numpy()[steps == count] for result in (together, alone))
            np.testing.assert_array_equal(mine, expected, err_msg=f"{field} after {count} steps")


def test_one_program_under_xla_takes_as_many_steps_as_it_is_told():
    solver = keras_sip.LevenbergMarquardt()
    refined = traced(solver, SENSORS, SAMPLE["context"], jit_compile=True)
    x0 = tf.zeros_like(SAMPLE["x"])
    for steps in (1, 3):
        expected = solver.refine(SENSORS, x0, SAMPLE["y"], SAMPLE["context"], steps=steps)
        received = refined(x0, SAMPLE["y"], tf.constant(steps))
        np.testing.assert_allclose(received.x, expected.x, rtol=1e-8, atol=1e-10)


class Halfway(keras_sip.AnalyticInverse):
    """Half of the way to the solution, by a `solve` of its own."""

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        whole = keras_sip.AnalyticInverse().solve(simulator, x0, y_target, context)
        return whole._replace(x=x0 + 0.5 * whole.update, update=0.5 * whole.update)


def test_a_solver_with_its_own_solve_is_run_over_and_over():
    simulator = keras_sip.Poisson((8, 8), dtype="float64")
    sample = simulator.sample(3, (0, 0))
    refined = traced(Halfway(), simulator)
    for steps in (0, 1, 4):
        result = refined(tf.zeros_like(sample["x"]), sample["y"], tf.constant(steps))
        np.testing.assert_allclose(result.x, (1 - 0.5**steps) * sample["x"], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(result.update, result.x, rtol=1e-12)


def test_a_step_that_makes_it_worse_is_not_kept():
    class Away(Halfway):
        def solve(self, simulator, x0, *arguments, **options):
            result = super().solve(simulator, x0, *arguments, **options)
            return result._replace(x=x0 - 2 * result.update, update=-2 * result.update)

    simulator = keras_sip.Poisson((8, 8))
    sample = simulator.sample(3, (0, 0))
    x0 = 0.5 * sample["x"]
    result = Away().refine(simulator, x0, sample["y"], steps=tf.constant(2))
    np.testing.assert_array_equal(result.x, x0)
    np.testing.assert_array_equal(result.update, 0 * x0)
    assert np.all(result.status == Status.STALLED)


@pytest.mark.parametrize(
    "solver",
    [
        keras_sip.GradientDescent(step_size=2.0),
        keras_sip.GaussNewton(),
        keras_sip.LevenbergMarquardt(),
        keras_sip.Newton(),
        keras_sip.SaddleFreeNewton(),
        keras_sip.NormalizedGradient(),
        keras_sip.SignStep(),
        keras_sip.LBFGS(),
        keras_sip.LimitedStep(keras_sip.Newton()),
        keras_sip.LineSearch(keras_sip.Newton()),
        keras_sip.Fallback(keras_sip.Newton(), keras_sip.GaussNewton()),
        keras_sip.Chain(keras_sip.GradientDescent(step_size=0.1), keras_sip.GaussNewton()),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_never_worse_from_starts_all_over_the_place(solver):
    simulator = keras_sip.from_function(lambda x: tf.sin(3 * x) + tf.exp(x), 2, dtype="float64")
    generator = np.random.default_rng(0)
    x0, y_target = generator.uniform(-4, 4, (200, 2)), simulator(generator.uniform(-4, 4, (200, 2)))
    start = simulator.objective(simulator(x0), y_target)
    kept = traced(solver, simulator)(tf.constant(x0), y_target, tf.constant(4))
    assert np.all(kept.objective <= start)
    assert np.mean(kept.objective < start) > 0.3
    # The objective and the optimality are those of the point that is returned.
    y = simulator(kept.x)
    np.testing.assert_allclose(kept.objective, simulator.objective(y, y_target), rtol=1e-12)
    assert not np.any(kept.failed & (kept.objective < start))


def test_best_point_on_the_way_is_returned_with_a_status_of_its_own():
    """Gradient descent with too long a step along a narrow valley first falls, then climbs."""
    valley = keras_sip.from_function(lambda x: x * tf.constant([1.0, 10.0], "float64"), 2, dtype="float64")
    x0, y_target = np.array([[10.0, 1e-3]]), np.zeros((1, 2))
    solver = keras_sip.GradientDescent(step_size=0.03)
    plain = [
        float(solver.with_options(max_steps=n).solve(valley, x0, y_target, evaluate_result=True).objective[0])
        for n in range(1, 15)
    ]
    assert np.argmin(plain) not in (0, 13)
    result = solver.refine(valley, x0, y_target, steps=14)
    assert float(result.objective[0]) == pytest.approx(min(plain), rel=1e-12)
    assert result.status[0] == Status.MAX_STEPS
    residual = valley(result.x).numpy()[0]
    # The columns of J are the axes.
    assert float(result.optimality[0]) == pytest.approx(np.max(np.abs(residual)) / np.linalg.norm(residual), rel=1e-9)


def test_later_step_that_is_undefined_does_not_undo_the_one_before():
    """Gauss-Newton from -0.2 leaps to where e^(10 x) is worse, and overflows in the step after that."""

    def explode(x):
        return tf.exp(10 * x)

    simulator = keras_sip.from_function(explode, 1, dtype="float64")
    x0, y_target = np.array([[0.15], [-0.2], [-40.0]]), np.ones((3, 1))
    start = simulator.objective(simulator(x0), y_target)
    result = keras_sip.GaussNewton().refine(simulator, x0, y_target, steps=30)
    assert np.all(result.objective <= start)
    assert result.status[0] == Status.CONVERGED
    assert abs(result.x[0, 0]) < 1e-9


def test_chain_gives_its_steps_to_the_last_solver():
    x0, y_target, _ = CURVED.start_and_target()
    first = DESCENT.refine(CURVED.simulator, x0, y_target, steps=2)
    second = GAUSS_NEWTON.refine(CURVED.simulator, first.x, y_target, steps=1)
    result = keras_sip.Chain(DESCENT, GAUSS_NEWTON).refine(CURVED.simulator, x0, y_target, steps=1)
    np.testing.assert_allclose(result.x, second.x, rtol=1e-12)
    np.testing.assert_array_equal(result.num_steps, first.num_steps + second.num_steps)
    # A solver that leaps away does not undo what was reached before it, and one that is worse throughout leaves x0.
    leap = keras_sip.GradientDescent(step_size=1e3)
    kept = keras_sip.Chain(GAUSS_NEWTON, leap).refine(CURVED.simulator, x0, y_target, steps=1)
    np.testing.assert_allclose(kept.x, GAUSS_NEWTON.refine(CURVED.simulator, x0, y_target, steps=1).x, rtol=1e-12)
    stayed = keras_sip.Chain(leap).refine(CURVED.simulator, x0, y_target, steps=1)
    np.testing.assert_array_equal(stayed.update, np.zeros_like(x0))


@pytest.mark.parametrize("wrap", [lambda solver: solver, keras_sip.LineSearch], ids=["plain", "searched"])
def test_curvature_power_is_left_out_whatever_the_steps_are(wrap):
    """It weights steps for training; a refinement that kept it would end at another answer."""
    x0, y_target, _ = CURVED.start_and_target()
    weighted, plain = (wrap(keras_sip.SaddleFreeNewton(curvature_power=p)) for p in (0.5, 0.0))
    expected = plain.refine(CURVED.simulator, x0, y_target, steps=3)
    for steps in (3, tf.constant(3)):
        received = weighted.refine(CURVED.simulator, x0, y_target, steps=steps)
        np.testing.assert_allclose(received.objective, expected.objective, rtol=1e-9, atol=1e-30)
    assert np.all(expected.objective < 1e-9)


def test_bad_example_is_reported_and_changes_no_other():
    x0, y_target, _ = CURVED.start_and_target()
    spoiled = x0.numpy()
    spoiled[1] = np.nan
    refined = traced(keras_sip.LevenbergMarquardt(), CURVED.simulator)
    expected, received = (refined(tf.constant(x), y_target, tf.constant(4)) for x in (x0, spoiled))
    for field, value in received._asdict().items():
        others = [0, 2, 3]
        assert np.array_equal(value.numpy()[others], getattr(expected, field).numpy()[others]), field
    assert received.status[1] == Status.NON_FINITE
    assert np.all(received.update[1] == 0)


class Smoothing(keras_sip.Simulator):
    """Sixteen unknowns behind a smoothing matrix of condition 1e3: what y does not tell, noise fills in."""

    x_shape, y_shape, dtype = (16,), (16,), "float64"
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((16, 16)))[0]
    matrix = rotation @ np.diag(10.0 ** -np.linspace(0, 3, 16)) @ rotation.T

    def forward(self, x, context=None):
        return x @ tf.constant(self.matrix, x.dtype)

    def inverse(self, y_target, x_near, context=None):
        return y_target @ tf.constant(np.linalg.inv(self.matrix), y_target.dtype)

    def residual(self, y, y_target, context=None):
        # Half of the sensors are silent: their noise is no part of the residual.
        return (y - y_target) * tf.constant(np.repeat([1.0, 0.0], 8), y.dtype)


# Landweber's iteration, whose error falls and then rises, and one that repeats a `solve` of its own.
@pytest.mark.parametrize("solver", [keras_sip.GradientDescent(step_size=1.0), Halfway()], ids=["loop", "own solve"])
def test_refinement_stops_at_the_noise_where_its_level_is_known(solver):
    simulator = Smoothing()
    generator = np.random.default_rng(5)
    x_true, x0 = generator.standard_normal((3, 16)), np.zeros((3, 16))
    x0[2] = x_true[2]
    level = np.array([0.2, 0.0, 0.2])
    y = np.asarray(simulator(x_true)) + level[:, None] * generator.choice([-1.0, 1.0], (3, 16))
    told, untold = (
        traced(solver, simulator, context)(x0, y, tf.constant(200)) for context in ({"noise_level": level}, None)
    )
    # 8 data of noise +-level: the first point at or below 1/2 sum of their squares is the last.
    assert told.objective[0] <= 4 * level[0] ** 2 * (1 + 1e-9)
    assert untold.objective[0] < told.objective[0]
    assert told.num_steps[0] < untold.num_steps[0]
    error = np.linalg.norm(np.stack([told.x[0], untold.x[0]]) - x_true[0], axis=1)
    assert error[0] < error[1]
    assert told.status[0] == Status.STALLED
    # No noise, no stop; and what y is explained by already is returned as it is.
    np.testing.assert_array_equal(told.x[1], untold.x[1])
    np.testing.assert_array_equal(told.x[2], x0[2])
