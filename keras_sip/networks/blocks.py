"""Fixed layers that the U-Net needs and Keras lacks, or has in a slower form: up-sampling, padding, batch norm."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.ops.batch_norm import batch_norm

# Batches over which the moving statistics of batch norm do not average yet: see FusedBatchNormalization.
WARM_UP = 40.0


@keras.saving.register_keras_serializable(package="keras_sip")
class BilinearUpsampling2D(keras.layers.Layer):
    """Bilinear up-sampling by 2, each cell being split in four: `[B, H, W, C]` to `[B, 2H, 2W, C]`.

    Along one axis, with cells x_i and their halves y_2i, y_2i+1 ("half-pixel" centres, corners not aligned):

        y_2i = 3/4 x_i + 1/4 x_(i-1);    y_2i+1 = 3/4 x_i + 1/4 x_(i+1)

    Outside the grid the outermost cell is repeated, as `tf.image.resize` does, or with `periodic=True` the grid goes on
    at its other end. No weights. H and W must be static.

    `keras.layers.UpSampling2D` computes the same but does not compile under XLA with mixed_float16.
    """

    def __init__(self, *, periodic: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.periodic = periodic

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return upsample_bilinear(inputs, periodic=self.periodic)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, height, width, channels = input_shape
        return (batch, 2 * height, 2 * width, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "periodic": self.periodic}


@keras.saving.register_keras_serializable(package="keras_sip")
class PeriodicPadding2D(keras.layers.Layer):
    """One ring of cells from the opposite sides: `[B, H, W, C]` to `[B, H+2, W+2, C]`, all that a 3x3 stencil needs.

    A "valid" convolution after it is a convolution on the torus. No weights. H and W must be static.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # Axis 1 last: whole rows are copied there, which is faster on the larger of the two tensors.
        return _pad_periodic(_pad_periodic(inputs, axis=2), axis=1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, height, width, channels = input_shape
        return (batch, height + 2, width + 2, channels)


@keras.saving.register_keras_serializable(package="keras_sip")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` of the last axis of `[B, H, W, C]`, by TensorFlow's fused kernel.

        y = gamma (x - mean) / sqrt(variance + epsilon) + beta,    mean and variance over B, H and W

    Same weights, result and gradient to rounding, but on a CPU a training step of the U-Net takes a third less time, an
    answer takes one pass in place of two, and second derivatives are right (Keras calls `tf.nn.moments`, which drops a
    term of them). In float64, which the kernel lacks, it is the formula itself.

    Moving statistics are PyTorch's: moving <- m * moving + (1 - m) * batch, with the unbiased variance (n / (n - 1)
    times the one in y), and its defaults; Keras' momentum of 0.99 leaves more than half of the starting values after
    60 batches. But they start at once: in the k-th batch m = min(momentum, 1 - 40 / k), so that they average over the
    last fortieth of the training until that is 1 / (1 - momentum) batches. A young network changes so fast that a
    longer mean lags behind it (measured on Poisson, one seed: error 0.32 after 60 steps with m = 0.9 from the start,
    0.23 with m = 0.3).

    Source: Ioffe & Szegedy 2015, Algorithm 1.

    Args:
        momentum: m in the long run, the share of the statistics that one batch leaves (1 - PyTorch's "momentum").
        epsilon: Added to the variance.
        **kwargs: Of every Keras layer (`name`, `dtype`, `trainable`).
    """

    def __init__(self, *, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.batches = self.add_weight((), "zeros", trainable=False, autocast=False, name="batches", dtype="float32")

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        if not (training and self.trainable):
            return self._by_moving_statistics(inputs)
        normalize = self._by_formula if inputs.dtype == tf.float64 else self._by_kernel
        outputs, mean, variance = normalize(inputs)
        self.batches.assign_add(1.0)
        momentum = tf.clip_by_value(1.0 - WARM_UP / self.batches, 0.0, self.momentum)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            share = tf.cast(momentum, batch.dtype)
            moving.assign(moving * share + tf.stop_gradient(batch) * (1 - share))
        return outputs

    def _by_moving_statistics(self, inputs):
        if inputs.dtype == tf.float64:
            return super().call(inputs, training=False)
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            is_training=False,
        ).y

    def _by_kernel(self, inputs):
        """(y, mean, unbiased variance)."""
        # XLA computes the variance as E[x^2] - E[x]^2, which cancels (to NaN) where the mean is large against the
        # deviation. The result does not depend on a shift of x, so the mean of one example is taken away before.
        example_mean = tf.reduce_mean(tf.cast(inputs[:1], tf.float32), axis=(0, 1, 2))
        shift = tf.stop_gradient(tf.cast(example_mean, inputs.dtype))
        y, mean, variance = batch_norm(inputs - shift, self.gamma, self.beta, self.epsilon)
        return y, mean + tf.cast(shift, tf.float32), variance

    def _by_formula(self, inputs):
        mean = tf.reduce_mean(inputs, axis=(0, 1, 2))
        centred = inputs - mean
        variance = tf.reduce_mean(tf.square(centred), axis=(0, 1, 2))
        cells = tf.cast(tf.size(inputs) // inputs.shape[-1], inputs.dtype)
        unbiased = variance * cells / tf.maximum(cells - 1, 1)
        return centred * tf.math.rsqrt(variance + self.epsilon) * self.gamma + self.beta, mean, unbiased

    def get_config(self) -> dict[str, Any]:
        return {**keras.layers.Layer.get_config(self), "momentum": self.momentum, "epsilon": self.epsilon}


def upsample_bilinear(x: tf.Tensor, *, periodic: bool = False) -> tf.Tensor:
    """`x` `[B, H, W, C]` up-sampled by 2 as in `BilinearUpsampling2D`: along each axis a product with a fixed matrix.

    On a CPU it takes a seventh of the time of slices and weighted sums at 32 cells, and as long as they at 256.
    """
    _, height, width, channels = x.shape
    rows = tf.constant(_upsampling_matrix(height, periodic), x.dtype)
    columns = tf.constant(_upsampling_matrix(width, periodic), x.dtype)
    x = rows @ tf.reshape(x, (-1, height, width * channels))
    x = columns @ tf.reshape(x, (-1, width, channels))
    return tf.reshape(x, (-1, 2 * height, 2 * width, channels))


def _upsampling_matrix(size, periodic):
    """The `[2 size, size]` matrix of up-sampling along one axis: two rows a cell, in each 3/4 and 1/4."""
    cells = np.arange(size)
    matrix = np.zeros((2 * size, size))
    for half, neighbours in enumerate((cells - 1, cells + 1)):
        neighbours = neighbours % size if periodic else np.clip(neighbours, 0, size - 1)
        matrix[2 * cells + half, cells] += 0.75
        matrix[2 * cells + half, neighbours] += 0.25
    return matrix


def _pad_periodic(x, axis):
    size = x.shape[axis]
    if size == 1:
        return tf.concat([x, x, x], axis)
    # Split and not sliced: the gradient of a slice is a tensor of zeros as large as x.
    first, middle, last = tf.split(x, [1, size - 2, 1], axis)
    return tf.concat([last, first, middle, last, first], axis)
