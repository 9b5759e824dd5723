"""The fixed layers of the U-Net, each against an independent computation."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sip.networks.blocks import BilinearUpsampling2D, FusedBatchNormalization, PeriodicPadding2D


def _random(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("resolution", [(1, 1), (2, 3), (8, 8), (5, 32)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_upsampling_equals_the_half_pixel_bilinear_resize_of_tensorflow(resolution, dtype):
    fields = _random(3, *resolution, 2, dtype=dtype)
    upsampled = BilinearUpsampling2D(dtype=dtype)(fields)
    assert upsampled.dtype == dtype
    # tf.image.resize answers in float32; values are of order 1 and the weights exact, so only roundings differ.
    resized = tf.image.resize(fields, [2 * cells for cells in resolution])
    np.testing.assert_allclose(upsampled, resized, atol=1e-6)


@pytest.mark.parametrize("resolution", [(1, 1), (2, 3), (8, 6)])
def test_periodic_upsampling_is_the_middle_of_an_upsampled_tiling(resolution):
    height, width = resolution
    fields = _random(3, height, width, 2)
    tiled = tf.image.resize(np.tile(fields, (1, 3, 3, 1)), (6 * height, 6 * width))
    expected = tiled[:, 2 * height : 4 * height, 2 * width : 4 * width]
    np.testing.assert_allclose(BilinearUpsampling2D(periodic=True)(fields), expected, atol=1e-6)


@pytest.mark.parametrize("resolution", [(1, 1), (1, 4), (2, 3), (8, 8)])
def test_periodic_padding_equals_numpy_wrap_and_its_gradient_folds_the_ring_back(resolution):
    fields = tf.constant(_random(2, *resolution, 3))
    with tf.GradientTape() as tape:
        tape.watch(fields)
        padded = PeriodicPadding2D()(fields)
    assert np.array_equal(padded, np.pad(fields, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap"))
    # Every cell is counted once for each of its copies, which is what padding a grid of ones and adding up gives.
    copies = np.zeros(resolution)
    np.add.at(copies, tuple(np.pad(index, 1, mode="wrap") for index in np.indices(resolution)), 1)
    assert np.array_equal(tape.gradient(padded, fields)[0, ..., 0], copies)


@pytest.mark.parametrize("layer_class", [BilinearUpsampling2D, PeriodicPadding2D, FusedBatchNormalization])
def test_announced_shape_and_dtype_are_the_ones_computed(layer_class):
    inputs = tf.constant(_random(2, 4, 6, 3))
    for dtype in ("float32", "mixed_float16", "float64"):
        layer = layer_class(dtype=dtype)
        announced = layer.compute_output_spec(keras.KerasTensor((2, 4, 6, 3)))
        outputs = layer(inputs)
        assert layer.compute_output_shape((None, 4, 6, 3)) == (None, *announced.shape[1:])
        assert announced.shape == outputs.shape
        assert announced.dtype == outputs.dtype == layer.compute_dtype


@pytest.mark.parametrize(
    "layer",
    [BilinearUpsampling2D(periodic=True), PeriodicPadding2D(name="ring"), FusedBatchNormalization(momentum=0.8)],
)
def test_configurations_survive_json(layer):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    restored = keras.saving.deserialize_keras_object(config)
    assert type(restored) is type(layer)
    assert restored.get_config() == layer.get_config()


class TestFusedBatchNormalization:
    """Against Keras' batch norm and against the formula in float64."""

    inputs = _random(6, 5, 4, 3, seed=1) * (1, 5, 0.1) + (0, 3, -2)
    cotangent = _random(6, 5, 4, 3, seed=2)

    def layer(self, layer_class=FusedBatchNormalization, **kwargs):
        layer = layer_class(momentum=0.9, epsilon=1e-5, **kwargs)
        layer.build((None, 5, 4, 3))
        layer.gamma.assign((0.5, -1.0, 2.0))
        layer.beta.assign((0.1, 0.0, -3.0))
        return layer

    def output_and_gradients(self, layer, **kwargs):
        inputs = tf.constant(self.inputs, layer.compute_dtype)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, **kwargs)
        sources = [inputs, layer.gamma.value, layer.beta.value]
        return [outputs, *tape.gradient(outputs, sources, tf.cast(self.cotangent, outputs.dtype))]

    @pytest.mark.parametrize("training", [True, False])
    def test_output_and_gradients_equal_those_of_keras_in_float64(self, training):
        ours = self.output_and_gradients(self.layer(), training=training)
        reference = self.output_and_gradients(
            self.layer(keras.layers.BatchNormalization, dtype="float64"), training=training
        )
        for value, expected in zip(ours, reference, strict=True):
            # Float32 rounding of 6e-8 times the largest |x| / deviation of 20.
            np.testing.assert_allclose(value, expected, atol=3e-6 * np.abs(expected).max())

    def test_a_frozen_layer_uses_and_keeps_its_moving_statistics(self):
        layer = self.layer(trainable=False)
        outputs = layer(self.inputs, training=True)
        assert np.array_equal(layer.moving_mean, np.zeros(3))
        np.testing.assert_allclose(outputs, self.inputs * layer.gamma / np.sqrt(1 + 1e-5) + layer.beta, atol=1e-5)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_moving_statistics_average_over_a_fortieth_of_the_training_and_then_as_pytorch_does(self, dtype):
        layer = self.layer(dtype=dtype)
        batches = [self.inputs * (1 + 0.1 * k) + k for k in range(430)]
        mean = variance = 0.0
        for k, batch in enumerate(batches, start=1):
            layer(batch, training=True)
            left = min(0.9, max(0.0, 1 - 40 / k))
            mean = left * mean + (1 - left) * batch.mean((0, 1, 2))
            variance = left * variance + (1 - left) * batch.var((0, 1, 2), ddof=1)
        # Roundings of float32, a few of them within the memory of ten batches.
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-5)

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_a_mean_3000_times_the_deviation_costs_no_accuracy(self, jit_compile):
        inputs = (_random(8, 16, 16, 3) + 3000).astype("float32")
        layer = FusedBatchNormalization()
        layer.build(inputs.shape)
        outputs = tf.function(lambda: layer(inputs, training=True), jit_compile=jit_compile)()
        exact = inputs.astype("float64")
        expected = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
        # The mean of the example that is taken away is itself rounded to 1e-4, which does not matter to the result.
        np.testing.assert_allclose(outputs, expected, atol=1e-4)
        np.testing.assert_allclose(layer.moving_mean, exact.mean((0, 1, 2)), rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_second_derivatives_are_exact(self, dtype):
        layer = self.layer(dtype=dtype)
        gamma, beta = layer.gamma.numpy(), layer.beta.numpy()

        def formula(inputs):
            centred = inputs - tf.reduce_mean(inputs, (0, 1, 2))
            variance = tf.reduce_mean(tf.square(centred), (0, 1, 2))
            return centred * tf.math.rsqrt(variance + 1e-5) * gamma.astype("float64") + beta

        ours = self.hessian_product(lambda inputs: layer(inputs, training=True), dtype)
        exact = self.hessian_product(formula, tf.float64)
        # Rounding is 1e-6; the term that tf.nn.moments drops is 4e-4 here, and 0.12 in a whole U-Net.
        assert np.linalg.norm(ours - exact) < 1e-5 * np.linalg.norm(exact)

    def hessian_product(self, function, dtype):
        """The Hessian of a curved objective of `function`, times a fixed direction."""
        inputs, cotangent, direction = (
            tf.constant(values, dtype) for values in (self.inputs, self.cotangent, _random(6, 5, 4, 3, seed=3))
        )
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                objective = tf.reduce_sum(tf.sin(function(inputs)) * cotangent)
            gradient = inner.gradient(objective, inputs)
        return outer.gradient(gradient, inputs, direction).numpy()
