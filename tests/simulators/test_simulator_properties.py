"""What holds for every simulator of the registry: derivatives, compilation, independent examples, configuration."""

import copy
import functools
import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.ops import derivatives
from keras_sip.solvers.problem import InverseProblem
from numerics import central_difference, dense_jacobian, relative_error
from problems import PAIRS, PROBLEMS, serves

# Central differences: truncation h^2 and rounding eps / h, relative to values near 1.
DIFFERENCES = {"float32": {"step": 1e-2, "tolerance": 1e-3}, "float64": {"step": 1e-5, "tolerance": 1e-8}}
# A few dozen roundings; compilers reorder sums.
ROUNDING = {"float32": 1e-5, "float64": 1e-13}

pytestmark = pytest.mark.parametrize("problem", PROBLEMS, ids=repr)


@functools.cache
def compiled_forward(problem, *, jit_compile=False):
    return problem.compiled(problem.simulator.forward, "x", jit_compile=jit_compile)


def numpy_forward(problem):
    return lambda x: compiled_forward(problem)(tf.constant(x, problem.simulator.dtype), *problem.known()).numpy()


def directions(problem):
    """A point and random directions in x and y."""
    x = problem.start_and_target()[0]
    generator = np.random.default_rng(5)
    v, w = (generator.standard_normal((x.shape[0], *shape)) for shape in problem.shapes())
    return x, tf.constant(v, x.dtype), tf.constant(w, x.dtype)


@functools.cache
def jvp(problem):
    """J v at the point and along the direction of `directions`, by forward accumulation."""
    x, v, _ = directions(problem)
    with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
        y = problem.simulator.forward(x, problem.context)
    return accumulator.jvp(y)


@functools.cache
def vjp(problem):
    """J^T w there."""
    x, _, w = directions(problem)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = problem.simulator.forward(x, problem.context)
    return tape.gradient(y, x, output_gradients=w)


def test_jvp_is_the_central_difference(problem):
    x, v, _ = directions(problem)
    limits = DIFFERENCES[problem.simulator.dtype]
    expected = central_difference(numpy_forward(problem), x.numpy(), v.numpy(), limits["step"])
    assert relative_error(jvp(problem), expected) < limits["tolerance"]


def test_vjp_is_that_of_the_jacobian_by_central_differences(problem):
    x, _, w = directions(problem)
    limits = DIFFERENCES[problem.simulator.dtype]
    jacobian = dense_jacobian(numpy_forward(problem), x.numpy(), limits["step"])
    expected = np.einsum("bmn,bm->bn", jacobian, w.numpy().reshape(len(w), -1)).reshape(x.shape)
    assert relative_error(vjp(problem), expected) < limits["tolerance"]


def test_vjp_is_the_transpose_of_jvp(problem):
    _, v, w = directions(problem)
    forward = np.sum(np.float64(w) * np.float64(jvp(problem)))
    backward = np.sum(np.float64(vjp(problem)) * np.float64(v))
    assert backward == pytest.approx(forward, rel=100 * ROUNDING[problem.simulator.dtype])


def test_second_derivatives_are_the_central_difference_of_the_gradient(problem):
    """H v of 1/2 |r|^2: what Newton's methods are made of, also where they are tested on another field."""
    seen = any(isinstance(s, keras_sip.Newton) and p is problem for s, p in PAIRS)
    if seen or not serves(keras_sip.Newton(), problem):
        pytest.skip("seen by Newton's method itself, or not differentiable twice")
    x, v, _ = directions(problem)
    y_target = problem.start_and_target()[1]

    def gradient(x, context=None):
        return derivatives.gradient(InverseProblem(problem.simulator, y_target, context).objective, x)[1]

    def product(x, v, context=None):
        return derivatives.jvp(lambda x: gradient(x, context), x, v)[1]

    gradient_at = problem.compiled(gradient, "x")
    received = problem.compiled(product, "x", "x")(x, v, *problem.known())
    limits = DIFFERENCES[problem.simulator.dtype]
    expected = central_difference(
        lambda x: gradient_at(tf.constant(x, problem.simulator.dtype), *problem.known()).numpy(),
        x.numpy(),
        v.numpy(),
        limits["step"],
    )
    assert relative_error(received, expected) < limits["tolerance"]


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_compiled_forward_is_the_eager_one(problem, jit_compile):
    x = problem.start_and_target()[0]
    eager = problem.simulator.forward(x, problem.context)
    compiled = compiled_forward(problem, jit_compile=jit_compile)(x, *problem.known())
    assert compiled.dtype == problem.simulator.dtype
    assert compiled.shape == (x.shape[0], *problem.simulator.y_shape)
    assert relative_error(compiled, eager) < ROUNDING[problem.simulator.dtype]


def test_batch_is_a_loop_over_examples(problem):
    x = problem.start_and_target()[0]
    forward = compiled_forward(problem)
    one_by_one = [forward(x[i : i + 1], *problem.known(slice(i, i + 1))) for i in range(len(x))]
    assert relative_error(forward(x, *problem.known()), np.concatenate(one_by_one)) < ROUNDING[problem.simulator.dtype]


def test_nan_example_leaves_the_others_bit_identical(problem):
    x = problem.start_and_target()[0].numpy()
    spoiled = x.copy()
    spoiled[1].flat[0] = np.nan
    others = [0, 2, 3]
    forward = numpy_forward(problem)
    assert np.isnan(forward(spoiled)[1]).any()
    assert np.array_equal(forward(spoiled)[others], forward(x)[others])


def test_configuration_survives_json(problem):
    text = json.dumps(keras.saving.serialize_keras_object(problem.simulator))
    restored = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(restored) is type(problem.simulator)
    assert restored.get_config() == problem.simulator.get_config()
    assert (restored.x_shape, restored.y_shape, restored.dtype) == (
        problem.simulator.x_shape,
        problem.simulator.y_shape,
        problem.simulator.dtype,
    )
    x = problem.start_and_target()[0]
    assert np.array_equal(restored(x, problem.context), problem.simulator(x, problem.context))


@functools.cache
def answers(problem):
    """[(method, its arguments, what it returns)] of the problem's simulator."""
    simulator, context = problem.simulator, problem.context
    x, y_target, _ = problem.start_and_target()
    y = simulator.forward(x, context)
    observation = keras_sip.join_observation(y, context)
    methods = [
        ("forward", x, context),
        ("residual", y, y_target, context),
        ("objective", y, y_target, context),
        ("objective_gradient", y, y_target, context),
        ("project", x, observation),
        ("network_input", observation),
        ("distance", x, x + 1),
    ]
    if simulator.has("inverse"):
        methods.append(("inverse", y_target, x, context))
    if simulator.has("sample"):
        methods.append(("sample", 2, (1, 2)))
    return [(name, arguments, getattr(simulator, name)(*arguments)) for name, *arguments in methods]


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s)), keras_sip.SimulatorWrapper],
    ids=["copy", "deepcopy", "pickle", "empty_wrapper"],
)
def test_a_copy_and_an_empty_wrapper_equal_their_simulator(problem, duplicate):
    simulator = problem.simulator
    again = duplicate(simulator)
    if not isinstance(again, keras_sip.SimulatorWrapper) or isinstance(simulator, keras_sip.SimulatorWrapper):
        assert type(again) is type(simulator) or duplicate is keras_sip.SimulatorWrapper
    inner = again.physical if duplicate is keras_sip.SimulatorWrapper else again
    assert type(inner) is type(simulator) and inner.get_config() == simulator.get_config()
    assert {a: again.has(a) for a in keras_sip.Ability} == {a: simulator.has(a) for a in keras_sip.Ability}
    for name in ("x_shape", "y_shape", "dtype", "prefers_xla", "is_least_squares"):
        assert getattr(again, name) == getattr(simulator, name)
    assert again.context_spec() == simulator.context_spec()
    np.testing.assert_array_equal(again.x_scale, simulator.x_scale)
    assert type(again.diagonal_form) is type(simulator.diagonal_form)
    assert type(again.reverse_form) is type(simulator.reverse_form)
    for name, arguments, expected in answers(problem):
        tf.nest.map_structure(np.testing.assert_array_equal, getattr(again, name)(*arguments), expected)


def test_arrays_and_lists_are_tensors(problem):
    x, y_target, _ = problem.start_and_target()
    simulator, context = problem.simulator, problem.context
    y = simulator.forward(x, context)
    as_arrays = functools.partial(tf.nest.map_structure, lambda tensor: tensor.numpy())
    methods = [("forward", x), ("residual", y, y_target), ("objective", y, y_target), ("__call__", x)]
    if simulator.has("inverse"):
        methods.append(("inverse", y_target, x))
    for name, *fields in methods:
        method, arrays = getattr(simulator, name), as_arrays(fields)
        expected = method(*fields, context)
        arrays_context = as_arrays(context) if context else None
        assert np.array_equal(method(*arrays, context=arrays_context), expected, equal_nan=True)
        assert np.array_equal(method(*(a.tolist() for a in arrays), arrays_context), expected, equal_nan=True)


def test_the_declared_context_is_that_of_the_samples(problem):
    simulator = problem.simulator
    if not simulator.has("sample"):
        pytest.skip("no samples to compare with")
    context = simulator.sample(3, (0, 1)).get("context") or {}
    declared = simulator.context_spec()
    assert set(declared) == set(context)
    assert all(declared[name].is_compatible_with(entry) for name, entry in context.items())
