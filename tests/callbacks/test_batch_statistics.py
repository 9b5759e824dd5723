import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.callbacks import BatchStatistics


def make_model(network=None, seed=0, batch_statistics="moving"):
    keras.utils.set_random_seed(seed)
    simulator = keras_sip.Poisson((8, 8))
    network = network or keras_sip.UNet(simulator.y_shape, 1, levels=1, filters=4, seed=seed)
    model = keras_sip.SIPModel(network, simulator, keras_sip.AnalyticInverse(), input_scale=1.0)
    model.compile(keras.optimizers.Adam(1e-2), batch_statistics=batch_statistics)
    return model


def observations(count, seed=2):
    return keras_sip.evaluation_set(keras_sip.Poisson((8, 8)), count, seed)


def weights(model):
    """All but the moving statistics."""
    return [v.numpy() for v in model.network.variables if "moving" not in v.path]


def measured(statistics, model):
    statistics.set_model(model)
    statistics.measure()
    return model


def test_statistics_are_those_of_all_batches_together():
    # A batch norm of Keras' own directly behind the input, so that NumPy sees the numbers that it normalizes.
    inputs = keras.Input((8, 8, 1))
    norm = keras.layers.BatchNormalization()
    network = keras.Model(inputs, keras.layers.Conv2D(1, 1)(norm(inputs)))
    observation, _ = observations(13)
    measured(BatchStatistics(observation, batch_size=4), make_model(network))
    # Equal batches: the mean of their variances and the variance of their means are the variance of all. The 13th
    # example makes no batch.
    seen = observation.numpy()[:12]
    np.testing.assert_allclose(norm.moving_mean, seen.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, seen.var((0, 1, 2)), rtol=1e-5)
    assert norm.momentum == 0.99


@pytest.mark.usefixtures("eagerly")
def test_one_batch_makes_inference_what_training_is():
    model = make_model()
    model.fit(keras_sip.dataset(model.simulator, 16, seed=0), steps_per_epoch=5, verbose=0)
    observation, _ = observations(16)
    before = model.predict(observation, verbose=0)
    measured(BatchStatistics(observation, batch_size=16), model)
    after = model(observation).numpy()
    training = model(observation, training=True).numpy()
    # Training divides by the biased variance, inference by the unbiased: 16 examples of 8 x 8 cells differ by
    # 1/2048 of the deviation in each of a few layers.
    scale = np.abs(training).max()
    assert np.abs(after - training).max() < 0.02 * scale
    assert np.abs(before - training).max() > 0.1 * scale


@pytest.mark.usefixtures("eagerly")
def test_training_is_the_same_to_the_last_bit():
    observation, _ = observations(16)
    results = []
    for callbacks in ([], [BatchStatistics(observation, batch_size=4)]):
        model = make_model()
        data = keras_sip.dataset(model.simulator, 4, seed=0)
        model.fit(data, steps_per_epoch=3, epochs=2, validation_data=observations(8, 3), callbacks=callbacks, verbose=0)
        results.append(model)
    for expected, received in zip(*map(weights, results), strict=True):
        np.testing.assert_array_equal(received, expected)


@pytest.mark.usefixtures("eagerly")
def test_fit_leaves_the_statistics_of_the_last_weights():
    observation, x = observations(16)
    statistics = BatchStatistics(observation, batch_size=8)
    model = make_model()
    model.fit(keras_sip.dataset(model.simulator, 4, seed=0), steps_per_epoch=3, callbacks=[statistics], verbose=0)
    after_fit = [v.numpy() for v in model.network.non_trainable_variables]
    again = model.evaluate(observation, x, verbose=0, return_dict=True, callbacks=[statistics])
    for expected, received in zip(after_fit, model.network.non_trainable_variables, strict=True):
        # Another trace: rounding.
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)
    assert np.isfinite(again["x_error"])


@pytest.mark.usefixtures("eagerly")
def test_a_model_measures_by_itself_on_the_first_batches_of_its_training():
    model = make_model(batch_statistics="measured")
    data = keras_sip.dataset(model.simulator, 16, seed=0)
    # Going on at step 2, it is measured on what the whole run is measured on.
    rest = keras_sip.dataset(model.simulator, 16, seed=0, start_step=2)
    model.fit(data, steps_per_epoch=2, verbose=0)
    model.fit(rest, steps_per_epoch=2, verbose=0)
    received = [v.numpy() for v in model.network.non_trainable_variables]
    first = tf.concat([observation for observation, _ in data.take(512 // 16)], 0)
    measured(BatchStatistics(first, batch_size=16), model)
    for value, expected in zip(received, model.network.non_trainable_variables, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
    # Trained on by other means, it is measured again before it answers.
    model.train_on_batch(*next(iter(data)))
    model.predict(first[:2], verbose=0)
    after = [v.numpy() for v in model.network.non_trainable_variables]
    assert any(np.max(np.abs(one - other)) > 1e-4 for one, other in zip(after, received, strict=True))


def test_evaluate_tells_by_default_what_statistics_measured_by_hand_give():
    data = keras_sip.dataset(keras_sip.Poisson((8, 8)), 16, seed=0)
    first = tf.concat([observation for observation, _ in data.take(512 // 16)], 0)
    evaluation = observations(32, 3)
    default, moving = make_model(batch_statistics="measured"), make_model()
    for model in (default, moving):
        model.fit(data, steps_per_epoch=5, verbose=0)
    received = default.evaluate(*evaluation, verbose=0, return_dict=True)["x_error"]
    averages = moving.evaluate(*evaluation, verbose=0, return_dict=True)["x_error"]
    by_hand = BatchStatistics(first, batch_size=16)
    expected = moving.evaluate(*evaluation, verbose=0, return_dict=True, callbacks=[by_hand])["x_error"]
    # The same numbers in another order.
    np.testing.assert_allclose(received, expected, rtol=1e-5)
    assert abs(averages - expected) > 1e-3 * expected


def test_frozen_layers_keep_what_they_have():
    model = make_model()
    model.network.trainable = False
    before = [v.numpy() for v in model.network.variables]
    measured(BatchStatistics(observations(4)[0], batch_size=4), model)
    for expected, received in zip(before, model.network.variables, strict=True):
        np.testing.assert_array_equal(received, expected)


def test_a_network_without_batch_norm_is_left_as_it_is():
    model = make_model(keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, padding="same")]))
    before = [v.numpy() for v in model.network.variables]
    measured(BatchStatistics(observations(4)[0], batch_size=4), model)
    for expected, received in zip(before, model.network.variables, strict=True):
        np.testing.assert_array_equal(received, expected)


@pytest.mark.usefixtures("eagerly")
def test_observations_with_a_context():
    simulator = keras_sip.NavierStokes((16, 16), num_steps=2)
    network = keras_sip.UNet((16, 16, 2), 2, levels=1, filters=4)
    model = keras_sip.SIPModel(network, simulator, keras_sip.ReverseSimulation())
    observation, _ = keras_sip.evaluation_set(simulator, 8, 0)
    before = [v.numpy() for v in model.network.non_trainable_variables]
    measured(BatchStatistics(observation, batch_size=4), model)
    after = model.network.non_trainable_variables
    assert any(not np.allclose(old, new) for old, new in zip(before, after, strict=True))
    assert all(np.all(np.isfinite(new)) for new in after)


def test_less_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="at least 32 observations, one batch"):
        BatchStatistics(tf.zeros((3, 8, 8, 1)))
    with pytest.raises(ValueError, match="batch_size"):
        BatchStatistics(tf.zeros((3, 8, 8, 1)), batch_size=0)
