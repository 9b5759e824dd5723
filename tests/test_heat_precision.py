"""float64 physics around a float32 network: float64 from the data to the solver, by every route."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from numerics import relative_error

FIXTURE = Path(__file__).parent / "fixtures" / "heat.npz"


class Answer(keras.layers.Layer):
    """A weight for each cell, whatever the input."""

    def build(self, input_shape):
        self.answer = self.add_weight(input_shape[1:])

    def call(self, inputs):
        return 0.0 * inputs + self.answer


def network_of(x):
    """A float32 network whose output is x, and which SGD can change cell by cell."""
    inputs = keras.Input(x.shape[1:])
    layer = Answer()
    network = keras.Model(inputs, layer(inputs))
    layer.answer.assign(x[0])
    return network


@pytest.fixture(scope="module")
def near_solution():
    """(simulator, a start 8e-4 off x* in every cell, y*, x*)."""
    with np.load(FIXTURE) as arrays:
        x_true = arrays["x"][..., None]
    simulator = keras_sip.Heat(x_true.shape[1:3])
    y_target = simulator(x_true)
    x0 = x_true + 8e-4 * np.random.default_rng(0).standard_normal(x_true.shape)
    # As the network gives it: float32 weights, and the mean of y*.
    x0 = simulator.project(tf.constant(x0.astype("float32").astype("float64")), y_target)
    return simulator, x0.numpy(), y_target.numpy(), x_true


def sgd():
    """A rate of 1 makes the step of a network with a weight for each cell the update itself."""
    return keras.optimizers.SGD(1.0)


def assert_close_to_solution(x, x_true):
    # The start is 6e-4 off; the update of an observation rounded to float32 would be 1.4 off.
    assert np.mean(np.abs(x - x_true)) < 1e-3


def moved(x, x0):
    return np.max(np.abs(x - x0)) > 1e-5


def test_fit_from_arrays_takes_one_damped_update(near_solution):
    simulator, x0, y_target, x_true = near_solution
    model = keras_sip.SIPModel(network_of(x0), simulator, keras_sip.DampedSpectralInverse(), input_scale=1.0)
    model.compile(sgd())
    history = model.fit(y_target, x_true, epochs=1, verbose=0).history
    x = model.predict(y_target, verbose=0)
    assert x.dtype == "float64"
    assert moved(x, x0)
    assert_close_to_solution(x, x_true)
    assert history["failed"] == [0.0]
    measured = model.evaluate(y_target, x_true, verbose=0, return_dict=True)
    assert measured["x_error"] == pytest.approx(np.mean(np.abs(x - x_true)), rel=1e-5)


def test_fit_from_the_simulator_s_data_stays_in_float64(near_solution):
    simulator, x0, _, _ = near_solution
    y, x = next(iter(keras_sip.dataset(simulator, 2, 0)))
    assert y.dtype == x.dtype == tf.float64
    model = keras_sip.SIPModel(network_of(x0), simulator, keras_sip.DampedSpectralInverse(), input_scale=1.0)
    model.compile(sgd())
    model.fit(keras_sip.dataset(simulator, 2, 0), steps_per_epoch=1, verbose=0)
    assert model(y).dtype == tf.float64
    assert model.network.dtype_policy.name == "float32"


def functional_model(simulator, x0, **options):
    """The functional route: layers alone, and Keras' own fit."""
    y_target = keras.Input(simulator.y_shape, dtype="float64")
    x = keras_sip.Project(simulator)(network_of(x0)(y_target), y_target)
    y = keras_sip.SIPPhysicsLayer(simulator, keras_sip.DampedSpectralInverse(), **options)(x, y_target)
    model = keras.Model(y_target, y)
    model.compile(sgd(), keras_sip.HalfSumOfSquares())
    return model, keras.Model(y_target, x)


def test_functional_route_takes_the_same_update(near_solution):
    simulator, x0, y_target, x_true = near_solution
    model, answer = functional_model(simulator, x0)
    data = keras_sip.from_arrays(simulator, y_target, batch_size=1).map(lambda y: (y, y))
    model.fit(data, shuffle=False, verbose=0)
    x = answer.predict(data.map(lambda y, _: y), verbose=0)
    assert x.dtype == "float64"
    assert moved(x, x0)
    assert_close_to_solution(x, x_true)
    expected = keras_sip.DampedSpectralInverse().solve(simulator, x0, y_target).update
    # The weights are float32 and near 1.
    assert np.max(np.abs(x - x0 - expected)) < 1e-6


def test_float32_observation_is_refused_or_taken_as_noise_of_that_size(near_solution):
    simulator, x0, y_target, x_true = near_solution
    coarse = tf.constant(y_target, tf.float32)

    def update(layer):
        with tf.GradientTape() as tape:
            x = tf.Variable(x0)
            y = layer(x, coarse)
            loss = 0.5 * tf.reduce_sum(tf.square(y - tf.cast(coarse, tf.float64)))
        return -tape.gradient(loss, x)

    with pytest.raises(TypeError, match="dtype float64.*\nReceived dtype float32"):
        update(keras_sip.SIPPhysicsLayer(simulator, keras_sip.DampedSpectralInverse()))
    with pytest.raises(TypeError, match="dtype float64.*\nReceived dtype float32"):
        keras_sip.from_arrays(simulator, coarse)
    layer = keras_sip.SIPPhysicsLayer(simulator, keras_sip.DampedSpectralInverse(), y_precision="float32")
    assert_close_to_solution(x0 + update(layer), x_true)
    # What it would be if the rounding were taken for signal.
    ruined = keras_sip.DampedSpectralInverse().solve(simulator, x0, tf.cast(coarse, tf.float64)).x
    assert np.mean(np.abs(ruined - x_true)) > 0.3


def test_noise_level_in_the_context_reaches_the_solver_in_training(near_solution):
    simulator, x0, y_target, x_true = near_solution
    noisy = y_target + 1e-4 * np.random.default_rng(1).standard_normal(y_target.shape)
    errors = {}
    for known in (False, True):
        model = keras_sip.SIPModel(network_of(x0), simulator, keras_sip.DampedSpectralInverse(), input_scale=1.0)
        model.compile(sgd())
        context = {"noise_level": np.array([1e-4])} if known else None
        model.fit(keras_sip.from_arrays(simulator, noisy, context=context), verbose=0)
        errors[known] = np.mean(np.abs(model.predict(y_target, verbose=0) - x_true))
    assert errors[True] < 1e-2
    assert errors[False] > 0.3


def test_losses_compare_in_float64():
    y = np.ones((1, 4, 4, 1))
    loss = keras_sip.HalfSumOfSquares()(y, y + 1e-12)
    assert loss.dtype == tf.float64
    assert relative_error(loss, 0.5 * 16 * 1e-24) < 1e-3
