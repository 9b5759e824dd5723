"""HalfInverse and NaturalGradient against NumPy with the dense Jacobian of a tiny network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_network as tiny

import keras_sip

Y = 3 * tiny.observations()[0]


def step_of(model, **options):
    """The change of the 13 weights in one step of fit."""
    before = tiny.weights(model)
    model.fit(options.pop("y", Y), batch_size=len(Y), verbose=0, **options)
    return tiny.weights(model) - before


def dense_half_inverse(weights, power, truncation, unit):
    jacobian, residual = tiny.jacobian(weights, Y) / unit, tiny.residual(weights, Y) / unit
    left, sizes, right = np.linalg.svd(jacobian, full_matrices=False)
    kept = sizes > truncation * sizes[0]
    return -right[kept].T @ (sizes[kept] ** -power * (left[:, kept].T @ residual))


@pytest.mark.parametrize(("power", "truncation"), [(0.5, 1e-6), (0.5, 0.05), (1.0, 0.05), (-1.0, 1e-6)])
def test_half_inverse_is_that_of_the_singular_values(power, truncation):
    model = tiny.model(keras_sip.HalfInverse(0.3, power, truncation))
    unit = np.linalg.norm(tiny.residual(tiny.weights(model), Y))
    for _ in range(2):
        expected = 0.3 * dense_half_inverse(tiny.weights(model), power, truncation, unit)
        # The Jacobian by central differences is good to 1e-9, over singular values down to 1e-3 of the largest.
        np.testing.assert_allclose(step_of(model), expected, rtol=0, atol=1e-5 * np.max(np.abs(expected)))


def test_lanczos_takes_the_step_of_the_decomposition():
    dense = tiny.model(keras_sip.HalfInverse(0.3, truncation=1e-4))
    # The residuals of 13 weights span at most 13 dimensions.
    lanczos = tiny.model(keras_sip.HalfInverse(0.3, truncation=1e-4, lanczos_steps=14))
    expected = step_of(dense)
    np.testing.assert_allclose(step_of(lanczos), expected, rtol=0, atol=1e-6 * np.max(np.abs(expected)))


def test_natural_gradient_solves_the_damped_problem_with_the_step_before():
    damping, momentum = 1e-2, 0.8
    model = tiny.model(keras_sip.NaturalGradient(0.5, damping, momentum))
    last = np.zeros(13)
    for _ in range(3):
        jacobian, residual = tiny.jacobian(tiny.weights(model), Y), tiny.residual(tiny.weights(model), Y)
        absolute = damping * np.sum(jacobian**2) / 13
        matrix = jacobian.T @ jacobian + absolute * np.eye(13)
        last = np.linalg.solve(matrix, absolute * momentum * last - jacobian.T @ residual)
        np.testing.assert_allclose(step_of(model), 0.5 * last, rtol=0, atol=1e-5 * np.max(np.abs(last)))


@pytest.mark.parametrize("name", ["HalfInverse", "NaturalGradient"])
def test_steps_know_neither_the_unit_of_the_loss_nor_the_size_of_the_batch(name):
    optimizer = getattr(keras_sip, name)
    expected = step_of(tiny.model(optimizer(0.3), run_eagerly=True))
    lighter = tiny.model(optimizer(0.3), run_eagerly=True)
    np.testing.assert_allclose(
        step_of(lighter, sample_weight=np.full(len(Y), 1e-12)), expected, rtol=0, atol=1e-5 * np.max(np.abs(expected))
    )
    twice = tiny.model(optimizer(0.3), run_eagerly=True)
    before = tiny.weights(twice)
    twice.fit(np.concatenate([Y, Y]), batch_size=2 * len(Y), verbose=0)
    change = tiny.weights(twice) - before
    np.testing.assert_allclose(change, expected, rtol=0, atol=1e-6 * np.max(np.abs(expected)))


def test_a_mean_square_of_sip_updates_is_followed_too():
    """With method "sip" the residual is z - (z0 + U), whose Jacobian is that of the network alone."""
    model = tiny.model(keras_sip.HalfInverse(0.3, power=-1.0), "sip", keras_sip.AnalyticInverse())
    plain = tiny.model(keras.optimizers.SGD(1.0), "sip", keras_sip.AnalyticInverse())
    gradient, expected = step_of(plain), step_of(model)
    np.testing.assert_allclose(
        expected / np.linalg.norm(expected), gradient / np.linalg.norm(gradient), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("name", ["HalfInverse", "NaturalGradient"])
def test_weights_stay_where_every_example_has_failed(name):
    model = tiny.model(getattr(keras_sip, name)(0.3), run_eagerly=True)
    before = tiny.weights(model)
    model.fit(Y, batch_size=len(Y), sample_weight=np.zeros(len(Y)), verbose=0)
    np.testing.assert_array_equal(tiny.weights(model), before)


def test_what_does_not_fit_is_refused_with_the_number():
    simulator = keras_sip.Poisson((8, 8))
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 1)])
    model = keras_sip.SIPModel(network, simulator, method="adjoint")
    model.compile(keras_sip.HalfInverse())
    y, _ = keras_sip.evaluation_set(simulator, 20, seed=0)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="1280"):
        model.fit(y, batch_size=20, steps_per_epoch=1, verbose=0)
    model.compile(keras_sip.HalfInverse(lanczos_steps=4))
    assert np.isfinite(model.fit(y, batch_size=20, verbose=0).history["loss"][0])


def test_batch_norm_is_refused():
    model = keras_sip.SIPModel(keras_sip.UNet((16, 16, 1), 1), keras_sip.Poisson((16, 16)), method="adjoint")
    with pytest.raises(ValueError, match="batch norm"):
        model.compile(keras_sip.HalfInverse())


@pytest.mark.parametrize("name", ["HalfInverse", "NaturalGradient", "SOAP"])
def test_options_survive_serialization(name):
    optimizer = getattr(keras_sip, name)(0.2)
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert restored.get_config() == optimizer.get_config()


def test_jacobian_of_the_weight_problem_is_that_of_finite_differences():
    from keras_sip.training.weight_problem import WeightProblem

    model = tiny.model("sgd")
    y = tf.constant(Y)
    batch = keras_sip.Batch(y, y, None, None, tf.fill([len(Y)], tf.constant(1 / len(Y), tf.float64)))
    residual, jacobian = WeightProblem(model.physics, model.scaled_network, model.method, batch).jacobian()
    np.testing.assert_allclose(residual, tiny.residual(tiny.weights(model), Y), rtol=1e-12)
    np.testing.assert_allclose(jacobian, tiny.jacobian(tiny.weights(model), Y), atol=1e-7)


def test_decompositions_stay_out_of_xla_where_the_simulator_prefers_it():
    simulator = keras_sip.RotatedSine()
    assert simulator.prefers_xla
    for optimizer, compiled in ((keras_sip.HalfInverse(), False), (keras.optimizers.Adam(), True)):
        model = keras_sip.SIPModel(keras_sip.MLP(2, 2, (4,)), simulator, method="adjoint")
        model.compile(optimizer)
        assert model.jit_compile is compiled
