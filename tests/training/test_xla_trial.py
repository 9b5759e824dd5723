"""XLA for a user's own simulator: tried when steps are slow, used when it is faster, and never where the user says."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.training import xla_trial


class Drift(keras_sip.Simulator):
    """A field that a few small steps carry along."""

    x_shape, y_shape = (8, 1), (8, 1)

    def forward(self, x, context=None):
        for _ in range(2):
            x = x - 0.2 * x * (x - tf.roll(x, 1, 1))
        return x

    def sample(self, batch_size, seed):
        x = tf.random.stateless_normal((batch_size, 8, 1), seed)
        return {"x": x, "y": self.forward(x)}


def make_model(prefers_xla=None, dense=False):
    simulator = Drift()
    simulator.prefers_xla = prefers_xla
    inputs = keras.Input((8, 1))
    layer = keras.layers.Dense(1) if dense else keras.layers.Conv1D(1, 3, padding="same")
    model = keras_sip.SIPModel(keras.Model(inputs, layer(inputs)), simulator, None, "adjoint")
    model.compile(keras.optimizers.SGD(1e-3))
    return model


def fit(model, steps=4):
    model.fit(keras_sip.dataset(model.simulator, 4, seed=0), steps_per_epoch=steps, verbose=0)
    return np.concatenate([np.ravel(weights) for weights in model.get_weights()])


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "convolution"])
def test_a_faster_update_is_used_from_the_next_step_on_and_said_in_the_log(dense, monkeypatch, caplog):
    keras.utils.set_random_seed(0)
    expected = fit(make_model(prefers_xla=False, dense=dense))
    monkeypatch.setattr(xla_trial, "SLOW_STEP", 0.0)
    monkeypatch.setattr(xla_trial, "_seconds", lambda *args, jit_compile: 0.01 if jit_compile else 0.32)
    keras.utils.set_random_seed(0)
    model = make_model(dense=dense)
    with caplog.at_level(logging.INFO, "keras_sip"):
        received = fit(model)
    assert "0.32 s by kernels, 0.01 s under XLA, which is used" in caplog.text
    assert model.physics.prefers_xla is True and model.jit_compile is dense
    # The same steps: rounding in another order.
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-7)


def test_what_xla_cannot_do_or_does_no_faster_is_not_used(monkeypatch):
    monkeypatch.setattr(xla_trial, "SLOW_STEP", 0.0)
    for seconds in (None, 0.3):
        monkeypatch.setattr(
            xla_trial, "_seconds", lambda *args, jit_compile, by_xla=seconds: by_xla if jit_compile else 0.3
        )
        model = make_model()
        fit(model, steps=2)
        assert model.physics.prefers_xla is False and model.jit_compile is False


def test_quick_steps_and_simulators_that_say_it_are_not_timed(monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("timed")

    monkeypatch.setattr(xla_trial, "_seconds", refused)
    fit(make_model(), steps=3)
    monkeypatch.setattr(xla_trial, "SLOW_STEP", 0.0)
    fit(make_model(prefers_xla=False), steps=3)


def test_both_ways_are_timed_on_the_update_of_the_method():
    model = make_model()
    observation, x = keras_sip.evaluation_set(model.simulator, 4, seed=0)
    for way in (None, True):
        assert 0 < xla_trial._seconds(model, observation, x, jit_compile=way) < 60
