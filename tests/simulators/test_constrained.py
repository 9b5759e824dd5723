"""x that is positive or bounded, posed in an unknown that may be any number."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import keras_sip
from keras_sip.ops import random_fields

tfb = tfp.bijectors


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Rates(keras_sip.Simulator):
    """Two positive rates below 4, seen at three times."""

    x_shape, y_shape, dtype = (2,), (3,), "float64"

    def forward(self, x, context=None):
        time = tf.constant([0.2, 0.5, 1.0], x.dtype)
        return tf.exp(-x[:, :1] * time) + 2.0 * tf.exp(-x[:, 1:] * time)

    def sample(self, batch_size, seed):
        x = random_fields.uniform([batch_size, 2], seed, dtype=self.dtype) * 3.0 + 0.5
        return {"x": x, "y": self.forward(x)}


BOUNDED = tfb.Sigmoid(low=0.0, high=4.0)


def test_unknown_is_unconstrained_and_everything_physical_stays():
    physical = Rates()
    simulator = keras_sip.Constrained(physical, BOUNDED)
    sample, x = simulator.sample(5, (0, 1)), physical.sample(5, (0, 1))["x"].numpy()
    # The logit of x / 4.
    np.testing.assert_allclose(sample["x"], np.log(x / (4 - x)), rtol=1e-12)
    np.testing.assert_allclose(simulator(sample["x"]), physical(x), rtol=1e-12)
    np.testing.assert_allclose(
        simulator.distance(sample["x"], sample["x"] + 1),
        physical.distance(tf.constant(x), tf.constant(4 / (1 + (4 - x) / x * np.exp(-1)))),
        rtol=1e-10,
    )
    assert not simulator.has("inverse")
    u = simulator.sample(256, (0, 0))["x"].numpy()
    np.testing.assert_allclose(simulator.x_scale, np.sqrt(np.mean(u**2, axis=0)), rtol=1e-12)


def test_a_number_that_was_mapped_before_has_a_gradient():
    # Bijectors remember what they made of a tensor, while that is kept.
    simulator, u = keras_sip.Constrained(Rates(), BOUNDED), tf.constant([[0.3, -0.4]], tf.float64)
    x = simulator.to_physical(u)
    with tf.GradientTape() as tape:
        tape.watch(u)
        y = tf.reduce_sum(simulator(u))
    rate = 4.0 / (1.0 + np.exp(-u.numpy()))
    np.testing.assert_allclose(x, rate, rtol=1e-12)
    slope = np.array([1.0, 2.0]) * -np.sum([t * np.exp(-rate * t) for t in (0.2, 0.5, 1.0)], axis=0)
    np.testing.assert_allclose(tape.gradient(y, u), slope * rate * (1.0 - rate / 4.0), rtol=1e-12)


@pytest.mark.parametrize(
    "bijector",
    [
        BOUNDED,
        tfb.Exp(),
        tfb.Chain([tfb.Shift(0.1), tfb.Softplus()]),
        tfb.Sigmoid(0.0, [4.0, 5.0]),
    ],
    ids=["sigmoid", "exp", "chain", "array"],
)
def test_copies_and_configs_are_equal_simulators(bijector):
    simulator = keras_sip.Constrained(Rates(), bijector)
    u = np.array([[0.3, -2.0]])
    config = keras.saving.serialize_keras_object(simulator)
    for other in (
        keras.saving.deserialize_keras_object(config),
        pickle.loads(pickle.dumps(simulator)),
        copy.deepcopy(simulator),
    ):
        np.testing.assert_array_equal(other(u), simulator(u))
        assert other.get_config() == simulator.get_config()


def test_a_bijector_given_to_a_model_is_that_of_its_simulator(tmp_path):
    network = keras_sip.MLP(3, 2, hidden=(8,), seed=0)
    model = keras_sip.SIPModel(network, Rates(), keras_sip.LevenbergMarquardt(), x_bijector=BOUNDED)
    expected = keras_sip.SIPModel(network, keras_sip.Constrained(Rates(), BOUNDED), keras_sip.LevenbergMarquardt())
    y = Rates().sample(4, (0, 2))["y"]
    np.testing.assert_array_equal(model.refine(y, 3).x, expected.refine(y, 3).x)
    x = model.simulator.to_physical(model(y))
    assert np.all((x > 0) & (x < 4))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(y), model(y))


def test_network_solver_and_posterior_stay_within_the_bounds():
    simulator = keras_sip.Constrained(Rates(), BOUNDED)
    model = keras_sip.SIPModel(keras_sip.MLP(3, 2, hidden=(8,), seed=0), simulator, keras_sip.MaximumAPosteriori())
    sample = simulator.sample(4, (0, 2))
    # Noise of 10 %: without bounds some of these rates may be anything.
    observation = {"y": sample["y"], "context": {"noise_level": np.full(4, 0.1)}}
    samples = simulator.to_physical(model.posterior(observation).sample(500, seed=0)).numpy()
    assert np.all((samples > 0) & (samples < 4))
    x = simulator.to_physical(model.refine(sample["y"], 20).x)
    np.testing.assert_allclose(x, simulator.to_physical(sample["x"]), atol=0.2)


@pytest.mark.parametrize(
    ("bijector", "message"),
    [
        (tfb.Sigmoid(low=0.0, high=2.0), "x within the range of Sigmoid"),
        (tfb.Chain([tfb.Scale(-1.0), tfb.Exp()]), "x within the range of Chain"),
        (tfb.Sigmoid(low=0.0, high=[4.0, 4.0, 4.0]), r"numbers of shape \(2,\)"),
        (np.exp, "a tfp.bijectors.Bijector"),
    ],
    ids=["range", "sign", "shape", "type"],
)
def test_bijectors_that_do_not_fit_are_refused_in_three_parts(bijector, message):
    with pytest.raises((TypeError, ValueError), match=rf"Expected .*({message}).*\nReceived .*\n"):
        keras_sip.Constrained(Rates(), bijector)


def test_labels_out_of_range_are_refused():
    simulator = keras_sip.Constrained(Rates(), tfb.Exp())
    with pytest.raises(ValueError, match="1 of 2 numbers outside of it or at its edge, between -1 and -1"):
        simulator.from_physical([[1.0, -1.0]])
