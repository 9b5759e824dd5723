"""What holds for every solver on every simulator that it serves."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from numerics import relative_error
from problems import PAIR_IDS, PAIRS, SOLVERS, compiled_solve, problem, serves

# Compilers reorder sums; conjugate gradients multiply the rounding by the condition number, which is below 100 here.
ROUNDING = {"float32": 1e-4, "float64": 1e-8}
# XLA takes seconds to compile each: every solver with a context where it takes one; those without matrices, whose size
# is that of the field, on one in float32, by FFTs where that has them.
CONTEXT, FIELDS = "masked_sensors", ("motion_blur", "poisson_float32")
WITHOUT_MATRICES = (
    keras_sip.AnalyticInverse,
    keras_sip.DampedSpectralInverse,
    keras_sip.WienerInverse,
    keras_sip.GradientDescent,
    keras_sip.GaussNewton,
    keras_sip.LevenbergMarquardt,
    keras_sip.Chain,
    keras_sip.MaximumAPosteriori,
    keras_sip.ReverseSimulation,
)


def xla_problems(solver):
    of_solver = {problem.name: problem for s, problem in PAIRS if s is solver}
    names = [CONTEXT]
    if isinstance(solver, WITHOUT_MATRICES):
        names.append(next((name for name in FIELDS if name in of_solver), None))
    return [of_solver[name] for name in names if name in of_solver] or list(of_solver.values())


XLA_PAIRS = [(solver, problem) for solver in SOLVERS for problem in xla_problems(solver)]

over_all_pairs = pytest.mark.parametrize("solver, problem", PAIRS, ids=PAIR_IDS)
over_solvers = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
over_solvers_of_poisson = pytest.mark.parametrize(
    "solver", [solver for solver in SOLVERS if serves(solver, problem("poisson_1d"))], ids=lambda s: type(s).__name__
)
DIRECT = (keras_sip.AnalyticInverse, keras_sip.Chain)


def assert_same_solution(solver, problem, received, expected):
    """Equal updates and status; only equally low objectives of a solver whose tries rounding can tip."""
    tolerance = ROUNDING[problem.simulator.dtype]
    x0, y_target, _ = problem.start_and_target()
    start = problem.simulator.objective(problem.simulator.forward(x0, problem.context), y_target, problem.context)
    if np.all(start > 0):  # squares of 1e-21 are 0 in float32
        size = np.maximum(start, expected.objective)
        assert np.max(np.abs(received.objective - expected.objective) / size) < tolerance
    if isinstance(solver, (keras_sip.LevenbergMarquardt, keras_sip.LBFGS, keras_sip.LineSearch)):
        return
    assert np.array_equal(received.status, expected.status)
    assert np.array_equal(received.num_steps, expected.num_steps)
    if np.any(expected.update):  # gradient descent stands still where squares underflow
        assert relative_error(received.update, expected.update) < tolerance


@over_all_pairs
def test_graph_equals_eager(solver, problem):
    x0, y_target, _ = problem.start_and_target()
    eager = solver.solve(problem.simulator, x0, y_target, problem.context, evaluate_result=True)
    assert_same_solution(solver, problem, compiled_solve(solver, problem)(x0, y_target, *problem.known()), eager)


@pytest.mark.parametrize("solver, problem", XLA_PAIRS, ids=[f"{type(s).__name__}-{p.name}" for s, p in XLA_PAIRS])
def test_xla_equals_graph(solver, problem):
    x0, y_target, _ = problem.start_and_target()
    graph = compiled_solve(solver, problem)(x0, y_target, *problem.known())
    xla = compiled_solve(solver, problem, jit_compile=True)(x0, y_target, *problem.known())
    assert_same_solution(solver, problem, xla, graph)


@over_all_pairs
def test_batch_is_a_loop_over_examples(solver, problem):
    x0, y_target, _ = problem.start_and_target()
    solve = compiled_solve(solver, problem)
    alone = [solve(x0[i : i + 1], y_target[i : i + 1], *problem.known(slice(i, i + 1))) for i in range(len(x0))]
    joined = keras_sip.SolverResult(*(tf.concat(field, axis=0) for field in zip(*alone, strict=True)))
    assert_same_solution(solver, problem, joined, solve(x0, y_target, *problem.known()))


@pytest.mark.parametrize("spoiled", ["x0", "y_target"])
@over_all_pairs
def test_nan_example_leaves_the_others_bit_identical(solver, problem, spoiled):
    x0, y_target, _ = problem.start_and_target()
    inputs = {"x0": x0.numpy(), "y_target": y_target.numpy()}
    inputs[spoiled][1].flat[0] = np.nan
    solve = compiled_solve(solver, problem)
    expected = solve(x0, y_target, *problem.known())
    received = solve(*inputs.values(), *problem.known())
    for field, value in received._asdict().items():
        others = [0, 2, 3]
        assert np.array_equal(value.numpy()[others], getattr(expected, field).numpy()[others], equal_nan=True), field
    assert received.status[1] == keras_sip.Status.NON_FINITE
    assert received.failed.numpy().tolist() == [False, True, False, False]
    assert np.all(np.isfinite(received.update))


@over_all_pairs
def test_every_field_is_per_example(solver, problem):
    x0, y_target, _ = problem.start_and_target()
    result = compiled_solve(solver, problem)(x0, y_target, *problem.known())
    simulator, batch = problem.simulator, len(x0)
    assert {name: tuple(value.shape) for name, value in result._asdict().items()} == {
        "x": (batch, *simulator.x_shape),
        "update": (batch, *simulator.x_shape),
        "y": (batch, *simulator.y_shape),
        "status": (batch,),
        "num_steps": (batch,),
        "objective": (batch,),
        "optimality": (batch,),
    }
    assert result.x.dtype == result.update.dtype == result.y.dtype == result.objective.dtype == simulator.dtype
    assert result.status.dtype == result.num_steps.dtype == "int32"
    # Summed side by side: each step, and the sums of a composition's parts, round both, at the size of the larger one.
    roundings = 2 * (1 + np.max(result.num_steps)) * np.finfo(simulator.dtype).eps
    size = np.max(np.abs(x0)) + np.max(np.abs(result.update))
    assert np.max(np.abs(result.x - (x0 + result.update))) <= roundings * size
    assert relative_error(result.y, simulator.forward(result.x, problem.context)) < ROUNDING[simulator.dtype]


@over_solvers_of_poisson
def test_y0_is_taken_as_given_and_y_returned_when_asked_for(solver):
    """Each spares one simulation: that at the start, and that at the result."""
    calls = []

    class Counting(keras_sip.Poisson):
        def forward(self, x, context=None):
            calls.append(x)
            return super().forward(x, context)

    simulator = Counting(5, dtype="float64")
    sample, start = simulator.sample(2, (0, 0)), simulator.sample(2, (0, 1))

    def solve(**options):
        calls.clear()
        result = solver.solve(simulator, start["x"], sample["y"], **options)
        return result, len(calls)

    # What a solver measures of a simulator once and for all does not count.
    solve()
    plain, simulations = solve()
    with_y0, simulations_with_y0 = solve(y0=start["y"])
    evaluated, simulations_evaluated = solve(evaluate_result=True)
    assert simulations_with_y0 == max(simulations - 1, 0)
    assert simulations_evaluated == simulations + 1
    assert np.array_equal(with_y0.update, plain.update)
    assert plain.y is None and plain.objective is None
    assert np.array_equal(evaluated.y, simulator.forward(evaluated.x))
    assert np.array_equal(evaluated.objective, simulator.objective(evaluated.y, sample["y"]))


@over_solvers
def test_configuration_survives_json(solver):
    text = json.dumps(keras.saving.serialize_keras_object(solver))
    restored = keras.saving.deserialize_keras_object(json.loads(text))
    assert restored == solver
    assert type(restored) is type(solver)


def test_every_option_survives_json():
    solver = keras_sip.LevenbergMarquardt(
        max_steps=7,
        ftol=None,
        xtol=1e-5,
        gtol=1e-4,
        residual_tolerance=1e-3,
        on_failure="raise",
        damping=0.5,
        max_tries=3,
        linear_solver="dense",
        cg_steps=11,
        cg_tolerance=0.0,
        probes=2,
    )
    defaults = keras_sip.LevenbergMarquardt()
    assert all(getattr(solver, field.name) != getattr(defaults, field.name) for field in dataclasses.fields(solver))
    text = json.dumps(keras.saving.serialize_keras_object(solver))
    assert keras.saving.deserialize_keras_object(json.loads(text)) == solver


def test_numpy_numbers_survive_json():
    solver = keras_sip.GaussNewton(max_steps=np.int64(3), xtol=np.float32(0.5))
    text = json.dumps(keras.saving.serialize_keras_object(solver))
    assert keras.saving.deserialize_keras_object(json.loads(text)) == solver


@over_solvers
def test_solver_is_frozen(solver):
    with pytest.raises(dataclasses.FrozenInstanceError):
        solver.max_steps = 5
    other = solver.with_options(on_failure="raise")
    assert other.on_failure == "raise"
    assert solver.on_failure != "raise"


WITHOUT_OPTIONS = (keras_sip.DirectInverse, keras_sip.LimitedStep, keras_sip.LineSearch, keras_sip.Fallback, *DIRECT)
ITERATIVE = [type(solver) for solver in SOLVERS if not isinstance(solver, WITHOUT_OPTIONS)]


@pytest.mark.parametrize("solver", ITERATIVE)
@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_steps": 0}, "`max_steps` to be an integer of at least 1"),
        ({"max_steps": 2.0}, "Received max_steps=2.0 .float."),
        ({"xtol": -1e-3}, "`xtol` to be a finite number at least 0"),
        ({"residual_tolerance": float("nan")}, "Received residual_tolerance=nan"),
        ({"on_failure": "keep_best"}, "one of 'zero', 'gradient', 'raise'"),
    ],
)
def test_wrong_options_are_refused(solver, options, message):
    with pytest.raises(ValueError, match=message):
        solver(**options)


@pytest.mark.parametrize(
    "solver, options",
    [
        (keras_sip.GradientDescent, {"step_size": 0.0}),
        (keras_sip.GradientDescent, {"step_size": float("inf")}),
        (keras_sip.GaussNewton, {"cg_steps": 0}),
        (keras_sip.GaussNewton, {"linear_solver": "qr"}),
        (keras_sip.Newton, {"damping": -1.0}),
        (keras_sip.SaddleFreeNewton, {"max_loss_change": 0.0}),
        (keras_sip.SaddleFreeNewton, {"max_relative_loss_change": -1.0}),
        (keras_sip.SaddleFreeNewton, {"curvature_power": float("nan")}),
        (keras_sip.NormalizedGradient, {"norm": "max"}),
        (keras_sip.SignStep, {"step_size": 0.0}),
        (keras_sip.GaussNewton, {"cg_tolerance": -1.0}),
        (keras_sip.LevenbergMarquardt, {"damping": 0.0}),
        (keras_sip.LevenbergMarquardt, {"max_tries": 0}),
        (keras_sip.LevenbergMarquardt, {"cg_steps": True}),
        (keras_sip.LevenbergMarquardt, {"probes": 0}),
        (keras_sip.AnalyticInverse, {"max_steps": 2}),
        (keras_sip.DampedSpectralInverse, {"max_steps": 2}),
        (keras_sip.DampedSpectralInverse, {"noise": -1e-6}),
        (keras_sip.DampedSpectralInverse, {"amplitude": 0.0}),
        (keras_sip.WienerInverse, {"noise": float("nan")}),
        (keras_sip.ReverseSimulation, {"gain": 0.0}),
    ],
)
def test_wrong_own_options_are_refused(solver, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"Expected .*{name}.*\nReceived .*{name}="):
        solver(**options)


@over_solvers
def test_unknown_options_are_refused(solver):
    with pytest.raises(TypeError, match="steps_max"):
        type(solver)(steps_max=3)


@over_solvers_of_poisson
def test_wrong_shape_and_precision_are_refused(solver):
    simulator = keras_sip.Poisson(5, dtype="float64")
    field = np.ones((2, 5, 1))
    with pytest.raises(ValueError, match="`x0` of shape|`x` of shape"):
        solver.solve(simulator, field[..., 0], field)
    with pytest.raises(ValueError, match="`y_target` of shape"):
        solver.solve(simulator, field, field[:, 1:])
    with pytest.raises(TypeError, match="`y_target` of shape .* and dtype float64.*\nReceived dtype float32"):
        solver.solve(simulator, field, field.astype("float32"))
