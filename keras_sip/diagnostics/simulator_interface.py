"""What a simulator says of itself: shapes, samples, constraints, scales, its inverse and its configuration."""

import json

import keras
import numpy as np
import tensorflow as tf

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.findings import Check, failed, note, passed, skipped
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.base import check_simulator_interface, join_observation
from keras_sip.simulators.nondimensional import Nondimensional

# An inverse that leaves more than this of the residual is none.
INVERSE_REMAINDER = {"float32": 1e-2, "float64": 1e-4}


def interface(case):
    simulator = check_simulator_interface(case.simulator)
    for name in ("x_shape", "y_shape"):
        shape = getattr(simulator, name)
        if not all(isinstance(size, (int, np.integer)) and size > 0 for size in tuple(shape)):
            return failed(f"{name} = {shape!r}", f"Make `{name}` a tuple of positive ints, without the batch axis.")
    return passed(f"x {tuple(simulator.x_shape)} -> y {tuple(simulator.y_shape)}, {simulator.dtype}")


def forward(case):
    y = case.y
    wrong = _wrong_field(y, case.simulator.y_shape, case)
    if wrong:
        return failed(f"forward returns {wrong}", "Correct `forward`, or `y_shape` and `dtype`, so that they agree.")
    if not examples.is_finite(y):
        return failed(
            f"not finite at {_count_bad(y)} of {len(y)} examples ({case.examples.origin})",
            "Keep x where P is defined: let `sample` draw it there, or pass x=... to this check.",
        )
    origin = "" if case.examples.origin != "random numbers" else "; no samples: random x near 0 was used"
    return passed(f"finite, largest |y| {np.max(np.abs(y)):.3g}{origin}")


def residual(case):
    r = case.simulator.residual(case.y, case.y, case.context)
    if not tf.is_tensor(r) or r.shape[:1] != case.x.shape[:1] or r.dtype != case.x.dtype:
        return failed(f"residual returns {_described(r)}", f"Return one {case.simulator.dtype} tensor [B, ...].")
    # Against the residual between different examples, whatever its units.
    size = np.max(np.abs(case.simulator.residual(case.y, tf.roll(case.y, 1, axis=0), case.context)))
    if not np.max(np.abs(r)) <= case.rounding * size:
        return failed(
            f"residual(y, y) is {np.max(np.abs(r)):.3g}, not 0",
            "Let the residual vanish where y explains y_target: 1/2 sum r^2 is what is minimised.",
        )
    return passed("0 where y = y_target")


def objective(case):
    y_target = tf.roll(case.y, 1, axis=0)
    value = case.simulator.objective(case.y, y_target, case.context)
    if not tf.is_tensor(value) or value.shape != case.x.shape[:1]:
        return failed(f"objective returns {_described(value)}", "Return one number for each example, a tensor [B].")
    gradient = case.simulator.objective_gradient(case.y, y_target, case.context)
    if not examples.is_finite(value, gradient):
        return failed(
            "the objective or its gradient dL/dy is not finite",
            "Guard square roots, norms and logarithms in `residual` or `objective` (double-where).",
        )
    return passed("one finite number an example, finite dL/dy")


def sample(case):
    if not case.simulator.has(Ability.SAMPLE):
        return skipped("not defined; train on your data with from_arrays")
    drawn = case.simulator.sample(case.num_examples, (case.seed, 0))
    if not isinstance(drawn, dict) or not {"x", "y"} <= set(drawn) <= {"x", "y", "context"}:
        received = sorted(drawn) if isinstance(drawn, dict) else type(drawn).__name__
        return failed(f"sample returns {received}", 'Return {"x": ..., "y": ...}, with "context" where there is one.')
    for name, shape in (("x", case.simulator.x_shape), ("y", case.simulator.y_shape)):
        wrong = _wrong_field(drawn[name], shape, case)
        if wrong:
            return failed(f"{name} is {wrong}", f"Draw {name} as [batch_size, *{name}_shape], {case.simulator.dtype}.")
        if not examples.is_finite(drawn[name]):
            return failed(f"{name} is not finite", "Draw x where P is defined.")
    lengths = {name: len(entry) for name, entry in (drawn.get("context") or {}).items()}
    if set(lengths.values()) - {case.num_examples}:
        return failed(f"context entries of length {lengths}", "Give every context entry the batch as leading axis.")
    return passed("shapes, precision and finite values")


def seed(case):
    if not case.simulator.has(Ability.SAMPLE):
        return skipped("not defined")
    first, again, other = (
        examples.rows(case.simulator.sample(case.num_examples, (case.seed, step))["x"]) for step in (0, 0, 1)
    )
    if not np.array_equal(first, again):
        return failed("two calls with one seed give different x", STATELESS)
    if np.array_equal(first, other):
        return failed("two seeds give the same x", STATELESS)
    # A data pipeline is a graph, and gives seeds as tensors.
    words = tf.constant([case.seed, 1], tf.int64)
    drawn = [function(words) for function in (_drawn_x(case), tf.function(_drawn_x(case), autograph=False))]
    if not examples.worst_error(*drawn) <= case.rounding:
        return failed("in a compiled data pipeline, one seed gives other x than eagerly", STATELESS)
    return passed("same seed, same x; other seed, other x; graph = eager")


def network_input(case):
    received = case.simulator.network_input(join_observation(case.y, case.context))
    if not tf.is_tensor(received) or received.shape[:1] != case.x.shape[:1] or not received.dtype.is_floating:
        return failed(f"it returns {_described(received)}", "Return one floating-point tensor [B, ...].")
    if not examples.is_finite(received):
        return failed("it is not finite", "Guard logarithms and divisions: the network trains on this.")
    return passed(f"{tuple(received.shape[1:])}")


def x_scale(case):
    Nondimensional(case.simulator)
    size = np.sqrt(np.mean(np.square(examples.rows(case.x / tf.constant(case.simulator.x_scale, case.x.dtype)))))
    if case.examples.origin != "random numbers" and not 0.01 < size < 100:
        return note(
            f"x is {size:.2g} times x_scale",
            "Set `x_scale` to the size of x: the network's outputs are multiplied by it and work best near 1.",
        )
    return passed(f"x is {size:.2g} times x_scale (best near 1)")


def distance(case):
    value = case.simulator.distance(case.x, tf.roll(case.x, 1, axis=0))
    itself = case.simulator.distance(case.x, case.x)
    if not tf.is_tensor(value) or value.shape != case.x.shape[:1]:
        return failed(f"distance returns {_described(value)}", "Return one number for each example, a tensor [B].")
    # A circular or nearest-solution distance of x to itself may carry rounding.
    if not (examples.is_finite(value) and np.all(value >= 0) and np.max(itself) <= case.rounding * (1 + np.max(value))):
        return failed("negative, not finite, or not 0 from x to x", "Make it the error of x against x_ref, at least 0.")
    return passed("0 from x to x, else at least 0")


def project(case):
    if not case.simulator.has(Ability.PROJECT):
        return skipped("not defined")
    observation = join_observation(case.y, case.context)
    projected = case.simulator.project(case.x, observation)
    wrong = _wrong_field(projected, case.simulator.x_shape, case)
    if wrong:
        return failed(f"project returns {wrong}", "Return x, moved to what its observation tells about it.")
    shift = examples.worst_error(projected, case.x)
    if not shift <= 100 * case.rounding:
        return note(f"moves true causes by {shift:.2g}", "Keep x that fits its observation where it is.")
    return passed(f"leaves true causes where they are (to {shift:.1g})")


def inverse(case):
    if not case.simulator.has(Ability.INVERSE):
        return skipped("not defined; LevenbergMarquardt() needs none")
    simulator = case.simulator
    x_near = examples.starts(case.x, 0.5)
    x = simulator.inverse(case.y, x_near, case.context)
    wrong = _wrong_field(x, simulator.x_shape, case)
    if wrong:
        return failed(f"inverse returns {wrong}", "Return x [B, *x_shape] in the simulator's precision.")
    before, after = (
        examples.rows(simulator.residual(case.forward(value), case.y, case.context)) for value in (x_near, x)
    )
    floor = np.finfo(simulator.dtype).eps * np.max(np.abs(case.y))
    remainder = np.max(np.max(np.abs(after), axis=1) / np.maximum(np.max(np.abs(before), axis=1), floor))
    if not remainder <= INVERSE_REMAINDER[simulator.dtype]:
        return failed(
            f"P(inverse(y)) leaves {remainder:.2g} of the residual",
            "Correct `inverse` so that P(inverse(y_target, x_near)) = y_target, or remove it.",
        )
    return passed(f"P(inverse(y)) = y (leaves {remainder:.1g} of the residual)")


def configuration(case):
    simulator = case.simulator
    name = type(simulator).__name__
    if keras.saving.get_registered_name(type(simulator)) == name:
        return note(
            f"{name} is not registered: it trains, but models with it do not load elsewhere",
            f'Add @keras.saving.register_keras_serializable(package="my_project") above `class {name}`.',
        )
    try:
        text = json.dumps(keras.saving.serialize_keras_object(simulator))
    except (TypeError, ValueError) as error:
        return note(f"it trains, but cannot be saved: {str(error).splitlines()[-1]}")
    restored = keras.saving.deserialize_keras_object(json.loads(text))
    if restored.get_config() != simulator.get_config() or not np.array_equal(
        restored.forward(case.x, case.context), case.y
    ):
        return failed(
            "the simulator made from its configuration is another one",
            "Return from `get_config` all that `__init__` needs, as plain numbers, strings and lists.",
        )
    return passed("a JSON round trip gives the same simulator")


STATELESS = "Use tf.random.stateless_normal(shape, seed) and the like: a seeded run can then be repeated and resumed."
GRAPH_SAMPLE = "Data pipelines run it in a graph: write `sample`, and the `forward` it calls, in TensorFlow operations."
IN_TENSORFLOW = "Write it in TensorFlow operations on tensors [B, ...]."

INTERFACE_CHECKS = [
    Check("interface", interface, "Subclass keras_sip.Simulator, or use keras_sip.from_function(fn, x_shape)."),
    Check("sample", sample, 'Let `sample(batch_size, seed)` return {"x": ..., "y": ...}.', ("interface",)),
    Check("seed", seed, GRAPH_SAMPLE, ("sample",)),
    Check(
        "forward",
        forward,
        "Write y = P(x) for x [B, *x_shape] in TensorFlow. If it needs a context, let `sample` draw it, or pass x=... "
        "and context={...} to this check.",
        ("interface",),
    ),
    Check("residual", residual, IN_TENSORFLOW, ("forward",)),
    Check("objective", objective, IN_TENSORFLOW, ("residual",)),
    Check("network input", network_input, IN_TENSORFLOW, ("forward",)),
    Check("x_scale", x_scale, "Make `x_scale` positive numbers that broadcast against x.", ("sample", "forward")),
    Check("distance", distance, IN_TENSORFLOW, ("forward",)),
    Check("project", project, IN_TENSORFLOW, ("forward",)),
    Check("inverse", inverse, "Write `inverse(y_target, x_near, context=None) -> x`, or remove it.", ("forward",)),
    Check(
        "configuration",
        configuration,
        "Keep constructor arguments plain (numbers, strings, lists), or write `get_config` and `from_config`.",
        ("forward",),
    ),
]


def _drawn_x(case):
    return lambda seed: case.simulator.sample(case.num_examples, seed)["x"]


def _wrong_field(field, shape, case):
    """What is wrong with a field that should be `[B, *shape]` in the simulator's precision; None where nothing is."""
    expected = (case.x.shape[0], *shape)
    if tf.is_tensor(field) and tuple(field.shape) == expected and field.dtype == case.simulator.dtype:
        return None
    return f"{_described(field)}, not {expected} {case.simulator.dtype}"


def _described(value):
    return f"{tuple(value.shape)} {value.dtype.name}" if tf.is_tensor(value) else f"a {type(value).__name__}"


def _count_bad(y):
    return int(np.sum(~np.isfinite(examples.rows(y)).all(axis=1)))
