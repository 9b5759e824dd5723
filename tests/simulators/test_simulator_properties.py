"""What holds for every simulator of the registry: derivatives, compilation, independent examples, configuration."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from numerics import central_difference, dense_jacobian, relative_error
from problems import PROBLEMS

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


def jvp(problem, x, v):
    with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
        y = problem.simulator.forward(x, problem.context)
    return accumulator.jvp(y)


def vjp(problem, x, w):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = problem.simulator.forward(x, problem.context)
    return tape.gradient(y, x, output_gradients=w)


def test_jvp_is_the_central_difference(problem):
    x, v, _ = directions(problem)
    limits = DIFFERENCES[problem.simulator.dtype]
    expected = central_difference(numpy_forward(problem), x.numpy(), v.numpy(), limits["step"])
    assert relative_error(jvp(problem, x, v), expected) < limits["tolerance"]


def test_vjp_is_that_of_the_jacobian_by_central_differences(problem):
    x, _, w = directions(problem)
    limits = DIFFERENCES[problem.simulator.dtype]
    jacobian = dense_jacobian(numpy_forward(problem), x.numpy(), limits["step"])
    expected = np.einsum("bmn,bm->bn", jacobian, w.numpy().reshape(len(w), -1)).reshape(x.shape)
    assert relative_error(vjp(problem, x, w), expected) < limits["tolerance"]


def test_vjp_is_the_transpose_of_jvp(problem):
    x, v, w = directions(problem)
    forward = np.sum(np.float64(w) * np.float64(jvp(problem, x, v)))
    backward = np.sum(np.float64(vjp(problem, x, w)) * np.float64(v))
    assert backward == pytest.approx(forward, rel=100 * ROUNDING[problem.simulator.dtype])


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
