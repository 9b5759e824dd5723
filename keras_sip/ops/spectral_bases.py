"""Fields `[B, *resolution, C]` in a basis chosen by name, orthonormal: what is the same for Fourier, sine and cosine.

A spectrum holds a number for each mode and channel: "fourier" `[C, *half]`, the layout of
`spectral_transforms.fourier_modes`; "sine" and "cosine" `[*resolution, C]`. In the basis "components" every component
is a mode of its own, and fields may be vectors.
"""

import numpy as np
import tensorflow as tf

from keras_sip.ops import spectral_transforms as transforms

BASES = (*transforms.BASES, "components")


def modes(field, basis):
    """Orthonormal modes, complex in the basis "fourier" (of a conjugate pair only one, see `multiplicity`)."""
    axes = range(1, field.shape.rank - 1)
    if basis == "fourier":
        values = transforms.fourier_modes(field)
        return values / tf.cast(np.sqrt(field.shape[1:-1].num_elements()), values.dtype)
    if basis == "sine":
        return transforms.sine_transform(field, axes)
    return transforms.cosine_transform(field, axes) if basis == "cosine" else field


def field_of_modes(values, basis, shape):
    """The inverse of `modes`: a field of `shape` `(*resolution, C)`."""
    axes = range(1, len(shape))
    if basis == "fourier":
        return transforms.field_from_modes(values * tf.cast(np.sqrt(np.prod(shape[:-1])), values.dtype), shape[:-1])
    if basis == "sine":
        return transforms.sine_transform(values, axes)
    return transforms.inverse_cosine_transform(values, axes) if basis == "cosine" else values


def spectral_filter(field, factors, basis):
    """Multiply each mode by a real number; symmetric, its own transpose.

    Args:
        field: `[B, *resolution, C]`.
        factors: NumPy, a spectrum.
        basis: One of `BASES`.
    """
    if basis == "fourier":
        return transforms.periodic_filter(field, factors)
    factors, axes = tf.convert_to_tensor(factors, field.dtype), range(1, field.shape.rank - 1)
    if basis == "sine":
        return transforms.sine_transform(factors * transforms.sine_transform(field, axes), axes)
    if basis == "cosine":
        return transforms.inverse_cosine_transform(factors * transforms.cosine_transform(field, axes), axes)
    return factors * field


def multiplicity(shape, basis):
    """How many real numbers of a field of `shape` `(*resolution, C)` each mode stands for; they add up to its size."""
    if basis != "fourier":
        return np.ones(shape)
    half = np.full(shape[-2] // 2 + 1, 2.0)
    half[0] = 1.0
    if shape[-2] % 2 == 0:
        half[-1] = 1.0
    return np.broadcast_to(half, (shape[-1], *shape[:-2], len(half)))


def mean_power(fields, basis):
    """Mean square of each orthonormal mode over a batch: the spectrum of white noise of variance 1 is 1. NumPy."""
    return np.mean(np.square(np.abs(np.asarray(modes(fields, basis)))), axis=0)


def pointwise_variance(spectrum, shape, basis):
    """The variance in each component of a field of `shape` `(*resolution, C)` with independent modes of a spectrum.

    NumPy for a spectrum of NumPy; a tensor `[B, *shape]` for spectra `[B, ...]` of a tensor.
    """
    if not tf.is_tensor(spectrum):
        with tf.init_scope():
            return np.asarray(pointwise_variance(tf.constant(spectrum, tf.float64)[None], shape, basis))[0]
    if basis == "components":
        return spectrum
    if basis == "fourier":
        # Waves have the same mean square everywhere.
        weights = tf.constant(multiplicity(shape, basis), spectrum.dtype)
        total = tf.reduce_sum(weights * spectrum, axis=list(range(2, 1 + len(shape)))) / np.prod(shape[:-1])
        batch = tf.shape(spectrum)[:1]
        total = tf.reshape(total, [-1, *[1] * (len(shape) - 1), shape[-1]])
        return tf.broadcast_to(total, tf.concat([batch, shape], axis=0))
    transform = transforms.sine_transform if basis == "sine" else transforms.cosine_transform
    for axis, length in enumerate(shape[:-1]):
        # Row i of the transformed identity holds cell i in all modes.
        squares = tf.square(transform(tf.eye(length, dtype=spectrum.dtype), [1]))
        first = tf.tensordot(spectrum, squares, axes=([axis + 1], [1]))
        order = [*range(axis + 1), len(shape), *range(axis + 1, len(shape))]
        spectrum = tf.transpose(first, order)
    return spectrum
