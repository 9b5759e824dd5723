"""Stateless random numbers and fields: the same seed gives the same data eagerly, in a graph and under XLA.

An example depends on the seed and on its place in the batch, not on the size of the batch.
"""

import numpy as np
import tensorflow as tf

from keras_sip.ops import spectral_transforms as transforms

# Modes of smaller |kappa|^2 are dropped: waves longer than about three times `scale`.
SMALLEST_SQUARED_WAVENUMBER = 0.1


def smooth_noise(shape, seed, *, spacing=1.0, scale=10.0, smoothness=1.0, dtype="float32"):
    """Smooth periodic random fields with mean 0 and standard deviation 1.

    F_n = g_n |kappa_n|^(-2 p) where |kappa_n|^2 > 0.1, else 0;   kappa_n = s n / (N dx);   f = Re IFFT(F),

    with g_n complex white Gaussian noise, n the integer wave vector, N the cells along an axis. Then f is divided by
    its standard deviation and its mean subtracted, for each example over space and channels together.

    float32 and float64 give the same field to rounding.

    Args:
        shape: `[B, *resolution, C]`, ints; one to three spatial axes.
        seed: Anything that `as_seed` takes.
        spacing: dx, the width of a cell.
        scale: s, a length. Waves longer than about 3 s do not occur; on a 64 x 64 grid with dx = 1 and s = 10 the
            longest wave, of 28.6 cells, holds 40 % of the power.
        smoothness: p. Amplitudes fall as |n|^(-2p).
        dtype: "float32" or "float64".

    Source: the noise of Holl, Koltun and Thuerey's experiments (Scale-invariant Learning by Physics Inversion, 2022).
    """
    resolution = tuple(shape[1:-1])
    squared_wavenumbers = scale**2 * transforms.squared_frequencies(resolution, spacing)
    kept = squared_wavenumbers > SMALLEST_SQUARED_WAVENUMBER
    if not kept.any():
        raise ValueError(
            "Expected `scale` to be so large that the grid holds some of the waves.\n"
            f"Received scale={scale}, spacing={spacing}, resolution={resolution}.\n"
            "Pass a larger `scale`: a few times the width of a cell."
        )
    amplitudes = np.where(kept, np.where(kept, squared_wavenumbers, 1.0) ** -smoothness, 0.0)
    # The modes of the real part of IFFT(F) are (F_n + conj F_{-n}) / 2. For white noise g these are independent
    # Gaussians of one variance E|.|^2, complex for each pair n, -n and real where n = -n. So are, exactly and up to a
    # factor that the division removes, the modes of real white noise: two real FFTs and half the random numbers do.
    field = transforms.periodic_filter(normal(shape, seed, dtype=dtype), amplitudes / amplitudes.max())
    axes = list(range(1, len(shape)))
    field /= tf.math.reduce_std(field, axis=axes, keepdims=True)
    return field - tf.reduce_mean(field, axis=axes, keepdims=True)


def as_seed(seed):
    """A seed for TensorFlow's stateless random functions: an int64 tensor `[2]`.

    Args:
        seed: An int of up to 128 bits, a pair of ints, a scalar integer tensor or an integer tensor `[2]`. n and the
            pair (0, n) are the same seed.
    """
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        if not -(2**127) <= seed < 2**128:
            raise ValueError(f"Expected an int seed of at most 128 bits.\nReceived {seed}.\nPass seed % 2**128.")
        return tf.constant([_signed_word(int(seed) >> 64), _signed_word(int(seed))], tf.int64)
    words = [_word(word) for word in seed] if isinstance(seed, (tuple, list)) else _word(seed)
    words = tf.convert_to_tensor(words)
    if words.shape.rank == 0:
        words = tf.stack([tf.minimum(tf.sign(words), 0), words])
    if words.shape != (2,):
        raise ValueError(
            f"Expected a seed to be an int, a pair of ints or an integer tensor of shape [2].\n"
            f"Received {seed!r}.\nPass for example seed=0 or seed=(0, step)."
        )
    return words


def uniform(shape, seed, *, dtype="float32"):
    """Independent numbers uniform in (0, 1), from 32 bits each.

    TensorFlow's own uniform and normal floats differ between its kernels and XLA; the Philox bits do not. Taking 32 of
    them for either precision makes the float64 numbers the float32 ones to rounding.
    """
    bits = tf.random.stateless_uniform(shape, as_seed(seed), None, None, dtype=tf.uint32, alg="philox")
    # Half a unit away from 0, whose logarithm is infinite.
    return (tf.cast(bits, dtype) + 0.5) * 2.0**-32


def split_seed(seed, n):
    """n independent seeds from one, int64 `[n, 2]`."""
    return tf.random.split(as_seed(seed), n, alg="philox")


def normal(shape, seed, *, dtype="float32"):
    """Independent standard normal numbers by the Box-Muller transform."""
    entries = int(np.prod(shape[1:]))
    pairs = -(-entries // 2)
    numbers = uniform([shape[0], 2 * pairs], seed, dtype=dtype)
    radius = tf.sqrt(-2.0 * tf.math.log(numbers[:, :pairs]))
    angle = 2.0 * np.pi * numbers[:, pairs:]
    normal = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)
    return tf.reshape(normal[:, :entries], shape)


def _word(value):
    """One or several integers as int64."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return tf.constant(_signed_word(int(value)), tf.int64)
    value = tf.convert_to_tensor(value)
    if not value.dtype.is_integer:
        raise TypeError(f"Expected a seed of integers.\nReceived {value!r}.\nPass an int or a pair of ints.")
    return tf.cast(value, tf.int64)


def _signed_word(value):
    """The lowest 64 bits of a Python int, read as a signed number."""
    return (value + 2**63) % 2**64 - 2**63
