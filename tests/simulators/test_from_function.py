"""A plain TensorFlow function as a simulator."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from numerics import relative_error


def cube(x):
    return x**3


@keras.saving.register_keras_serializable(package="keras_sip_tests")
def cube_inverse(y_target, x_near):
    return tf.sign(y_target) * tf.abs(y_target) ** (1 / 3)


@keras.saving.register_keras_serializable(package="keras_sip_tests")
def normal_sample(batch_size, seed):
    return tf.random.stateless_normal((batch_size, 2), seed)


def measured_twice(x, context=None):
    return context["gain"] * tf.concat([x, x], axis=1)


def test_shape_of_y_is_found_by_tracing():
    simulator = keras_sip.from_function(lambda x: tf.reshape(tf.concat([x, -x], 1), (-1, 2, 3)), 3)
    assert (simulator.x_shape, simulator.y_shape, simulator.dtype) == ((3,), (2, 3), "float32")
    assert keras_sip.from_function(tf.math.square, (4, 5), dtype="float64").y_shape == (4, 5)


def test_function_with_a_context_states_its_shape():
    simulator = keras_sip.from_function(measured_twice, 2, y_shape=(4,), dtype="float64")
    y = simulator([[1.0, 2.0]], {"gain": np.array([[3.0]])})
    assert np.array_equal(y, [[3.0, 6.0, 3.0, 6.0]])


def of_fixed_batch(x):
    return tf.ones((4, 2))


@pytest.mark.parametrize(
    "fn, received",
    [
        (lambda x: x.undefined, "AttributeError"),
        (lambda x: np.exp(x), "NotImplementedError"),
        (lambda x: tf.matmul(x, tf.ones((5, 2))), "ValueError"),
        (measured_twice, "TypeError: 'NoneType' object is not subscriptable"),
        (lambda x: (x, x), "(<tf.Tensor"),
        (lambda x: tf.reduce_sum(x), "shape ()"),
        (lambda x: tf.reduce_sum(x, axis=0), "shape (2,)"),
        (of_fixed_batch, "shape (4, 2)"),
        (lambda x: tf.cast(x, tf.float64), "dtype float64"),
    ],
)
def test_function_that_is_no_process_is_refused_with_what_it_did(fn, received):
    with pytest.raises(ValueError, match="Expected `fn` to ") as caught:
        keras_sip.from_function(fn, 2)
    assert received in str(caught.value)
    assert "leading" in str(caught.value).split("\n")[-1]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"fn": 3.0}, TypeError, "`fn` to be a function of tensors"),
        ({"inverse": "cube"}, TypeError, "`inverse` to be a function of tensors"),
        ({"dtype": "bfloat16"}, ValueError, "one of 'float32', 'float64'"),
        ({"x_shape": (3, -1)}, ValueError, "each size of x_shape"),
        ({"x_shape": 2.5}, ValueError, "each size of x_shape"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        keras_sip.from_function(**{"fn": cube, "x_shape": 2, **arguments})


def test_optional_parts_are_there_only_where_given():
    plain = keras_sip.from_function(cube, 2)
    assert not plain.has("inverse")
    assert not plain.has("sample")
    assert plain.x_scale == 1.0
    with pytest.raises(NotImplementedError, match="define `inverse"):
        plain.inverse(tf.ones((1, 2)), tf.ones((1, 2)))
    with pytest.raises(NotImplementedError, match="define `sample"):
        plain.sample(1, (0, 0))

    whole = keras_sip.from_function(cube, 2, inverse=cube_inverse, sample=normal_sample)
    sample = whole.sample(3, (0, 1))
    assert np.array_equal(sample["y"], cube(sample["x"]))
    assert relative_error(whole.inverse(sample["y"], sample["x"]), sample["x"]) < 1e-6
    assert whole.x_scale == pytest.approx([1, 1], rel=0.15)  # 256 normal numbers: 3 standard deviations


def test_given_x_scale_is_not_measured():
    assert keras_sip.from_function(cube, 2, sample=normal_sample, x_scale=[3.0, 4.0]).x_scale == [3.0, 4.0]


def test_samples_take_the_simulator_s_precision():
    simulator = keras_sip.from_function(cube, 2, dtype="float64", sample=normal_sample)
    assert {entry.dtype for entry in simulator.sample(2, (0, 0)).values()} == {tf.float64}


def test_registered_functions_survive_json():
    simulator = keras_sip.from_function(
        problems.tanh_process,
        2,
        dtype="float64",
        inverse=cube_inverse,
        sample=normal_sample,
        x_scale=np.array([1.0, 2.0]),
    )
    text = json.dumps(keras.saving.serialize_keras_object(simulator))
    restored = keras.saving.deserialize_keras_object(json.loads(text))
    assert restored.get_config() == simulator.get_config()
    assert restored.x_scale == [1.0, 2.0]
    sample, again = simulator.sample(2, (1, 2)), restored.sample(2, (1, 2))
    assert np.array_equal(sample["y"], again["y"])
    assert np.array_equal(simulator.inverse(sample["y"], sample["x"]), restored.inverse(again["y"], again["x"]))


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"fn": cube}, "cube"),
        ({"fn": problems.tanh_process, "inverse": lambda y_target, x_near: y_target}, "<lambda>"),
        ({"fn": functools.partial(tf.pow, y=3.0)}, "my_function"),
    ],
    ids=["function", "lambda", "partial"],
)
def test_saving_an_unregistered_function_prints_the_line_to_add(arguments, name):
    simulator = keras_sip.from_function(x_shape=2, **arguments)
    with pytest.raises(ValueError, match="the unregistered function") as caught:
        keras.saving.serialize_keras_object(simulator)
    message = str(caught.value)
    assert f'@keras.saving.register_keras_serializable(package="my_project") above `def {name}`' in message


def test_repr_needs_no_registered_function():
    simulator = keras_sip.from_function(cube, 2)
    assert repr(simulator) == "from_function(cube, (2,))"
    assert repr(keras_sip.Nondimensional(simulator)) == "Nondimensional(from_function(cube, (2,)))"


def test_function_that_is_not_known_when_loading_is_named():
    config = {**keras_sip.from_function(problems.tanh_process, 2).get_config(), "fn": "elsewhere>gone"}
    with pytest.raises(ValueError, match="Received 'elsewhere>gone'.*\n.*[Ii]mport"):
        type(keras_sip.from_function(problems.tanh_process, 2)).from_config(config)
