"""The adjoint that training adds to updates, against its formula in NumPy."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.training.methods import Batch
from keras_sip.training.physics import ScaledPhysics

RANDOM = np.random.default_rng(3)
UPDATE, DOWNHILL = RANDOM.standard_normal((2, 4, 3))
UPDATE *= np.array([0.1, 0.3, 0.5, 2.0])[:, None]
RISING = keras.optimizers.schedules.PolynomialDecay(0.0, 100, 1.0)


def added(mix, step=None):
    return mix.added(tf.constant(UPDATE), tf.constant(DOWNHILL), step).numpy()


def rms(entry, **options):
    return np.sqrt(np.mean(entry**2, **options))


def test_over_the_batch_or_each_example_it_is_as_long_as_the_update():
    np.testing.assert_allclose(added(keras_sip.AdjointMix(2.0)), 2 * DOWNHILL * rms(UPDATE) / rms(DOWNHILL))
    of_each = added(keras_sip.AdjointMix(2.0, per_example=True))
    np.testing.assert_allclose(rms(of_each, axis=1), 2 * rms(UPDATE, axis=1))


def test_it_waits_until_updates_are_small():
    of_each = added(keras_sip.AdjointMix(1.0, below=0.5, per_example=True))
    lengths = rms(UPDATE, axis=1)
    np.testing.assert_allclose(rms(of_each, axis=1), lengths * np.maximum(1 - lengths / 0.5, 0))
    assert np.all(of_each[3] == 0) and np.all(of_each[0] != 0)
    assert np.all(added(keras_sip.AdjointMix(1.0, below=0.9 * rms(UPDATE))) == 0)


def test_a_schedule_is_of_the_training_step():
    whole = added(keras_sip.AdjointMix(1.0))
    for step in (0, 25, 100, 1000):
        expected = min(step / 100, 1.0) * whole
        np.testing.assert_allclose(added(keras_sip.AdjointMix(RISING), tf.constant(step)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "mix", [1.5, RISING, keras_sip.AdjointMix(0.5, below=0.3, per_example=True), keras_sip.AdjointMix(RISING)]
)
def test_methods_with_it_come_back_from_their_config(mix):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(keras_sip.SIP(adjoint_mix=mix))))
    restored = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(restored) == config
    assert type(restored.adjoint_mix) is type(mix)


def test_of_a_linear_process_the_update_is_that_of_another_norm():
    """P = diag(1, 3), exact inverse: U + beta |U| / |a| J^T J U with J = P in units of x_scale."""
    simulator = keras_sip.from_function(lambda x: x * tf.constant([1.0, 3.0], tf.float64), 2, dtype="float64")
    physics = ScaledPhysics(simulator, 1.0, keras_sip.GaussNewton(cg_steps=4))
    z, target = tf.constant(UPDATE[:, :2]), tf.constant(DOWNHILL[:, :2])
    batch = Batch(target, target, None, None, tf.ones([4], tf.float64))
    update = keras_sip.SIP(adjoint_mix=0.7).desired_update(physics, batch, z).update
    exact = target / np.array([1.0, 3.0]) - z
    adjoint = exact * np.array([1.0, 9.0])
    np.testing.assert_allclose(update, exact + 0.7 * adjoint * rms(exact) / rms(adjoint), rtol=1e-9)


@pytest.mark.parametrize("mix", [-1.0, "much", True, None])
def test_what_is_no_mix_is_refused(mix):
    with pytest.raises((ValueError, TypeError), match="Expected"):
        keras_sip.SIP(adjoint_mix=mix)
