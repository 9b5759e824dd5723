"""Stateless random numbers and fields: the same seed gives the same data eagerly, in a graph and under XLA.

An example depends on the seed and on its place in the batch, not on the size of the batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops import spectral_transforms as transforms

# Modes of smaller |kappa|^2 are dropped: waves longer than about three times `scale`.
SMALLEST_SQUARED_WAVENUMBER = 0.1


def smooth_noise(
    shape: Sequence[int],
    seed: Any,
    *,
    spacing: float = 1.0,
    scale: float = 10.0,
    smoothness: float = 1.0,
    dtype: str = "float32",
) -> tf.Tensor:
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
            three_part(
                "`scale` to be so large that the grid holds some of the waves",
                f"scale={scale}, spacing={spacing}, resolution={resolution}",
                "Pass a larger `scale`: a few times the width of a cell.",
            )
        )
    amplitudes = np.where(kept, np.where(kept, squared_wavenumbers, 1.0) ** -smoothness, 0.0)
    # The modes of the real part of IFFT(F) are (F_n + conj F_{-n}) / 2. For white noise g these are independent
    # Gaussians of one variance E|.|^2, complex for each pair n, -n and real where n = -n. So are, exactly and up to a
    # factor that the division removes, the modes of real white noise: two real FFTs and half the random numbers do.
    field = transforms.periodic_filter(normal(shape, seed, dtype=dtype), amplitudes / amplitudes.max())
    axes = list(range(1, len(shape)))
    field /= tf.math.reduce_std(field, axis=axes, keepdims=True)
    return field - tf.reduce_mean(field, axis=axes, keepdims=True)


def gaussian_field(
    shape: Sequence[int],
    seed: Any,
    *,
    spacing: float = 1.0,
    length: float = 10.0,
    smoothness: float = 2.0,
    dtype: str = "float32",
) -> tf.Tensor:
    """Gaussian random fields of mean 0 and variance 1, on average over the cells, that are not periodic.

    Independent modes in the cosine basis (no slope at the walls) with the standard deviations

        (|kappa|^2 + 1 / length^2)^(-smoothness / 2),    kappa = pi k / (N dx),

    the constant mode left out: the covariance (-laplace + 1 / length^2)^-smoothness, scaled.

    Args:
        shape: `[B, *resolution, C]`, ints; one to three spatial axes; channels are independent.
        seed: Anything that `as_seed` takes.
        spacing: dx, the width of a cell.
        length: Waves longer than 2 pi times this are about equally strong.
        smoothness: Amplitudes of short waves fall as |kappa|^-smoothness.
        dtype: "float32" or "float64"; both give the same field to rounding.

    Source: F. Lindgren, H. Rue, J. Lindstrom, An explicit link between Gaussian fields and Gaussian Markov random
    fields (2011), Section 2.
    """
    frequencies = transforms.mode_frequencies(tuple(shape[1:-1]), spacing, "cosine")
    squares = (2 * np.pi) ** 2 * sum(q**2 for q in frequencies)
    deviation = (squares + length**-2) ** (-smoothness / 2)
    deviation.flat[0] = 0.0
    deviation /= np.sqrt(np.mean(deviation**2))
    modes = normal(shape, seed, dtype=dtype) * tf.constant(deviation[..., None], dtype)
    return transforms.inverse_cosine_transform(modes, range(1, len(shape) - 1))


def as_seed(seed: Any) -> tf.Tensor:
    """A seed for TensorFlow's stateless random functions: an int64 tensor `[2]`.

    Args:
        seed: An int of up to 128 bits, a pair of ints, a scalar integer tensor or an integer tensor `[2]`. n and the
            pair (0, n) are the same seed.
    """
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        if not -(2**127) <= seed < 2**128:
            raise ValueError(three_part("an int seed of at most 128 bits", f"{seed}", "Pass seed % 2**128."))
        return tf.constant([_signed_word(int(seed) >> 64), _signed_word(int(seed))], tf.int64)
    words = [_word(word) for word in seed] if isinstance(seed, (tuple, list)) else _word(seed)
    words = tf.convert_to_tensor(words)
    if words.shape.rank == 0:
        words = tf.stack([tf.minimum(tf.sign(words), 0), words])
    if words.shape != (2,):
        raise ValueError(
            three_part(
                "a seed to be an int, a pair of ints or an integer tensor of shape [2]",
                f"{seed!r}",
                "Pass for example seed=0 or seed=(0, step).",
            )
        )
    return words


def uniform(shape: Any, seed: Any, *, dtype: str = "float32") -> tf.Tensor:
    """Independent numbers uniform in (0, 1), from 32 bits each.

    TensorFlow's own uniform and normal floats differ between its kernels and XLA; the Philox bits do not. Taking 32 of
    them for either precision makes the float64 numbers the float32 ones to rounding.
    """
    bits = tf.random.stateless_uniform(shape, as_seed(seed), None, None, dtype=tf.uint32, alg="philox")
    # Half a unit away from 0, whose logarithm is infinite.
    return (tf.cast(bits, dtype) + 0.5) * 2.0**-32


def normal(shape: Any, seed: Any, *, dtype: str = "float32") -> tf.Tensor:
    """Independent standard normal numbers `[B, ...]`, by the Box-Muller transform of `uniform`.

    float32 numbers are rounded from float64 ones. Logarithms and cosines differ in the last bit between TensorFlow's
    kernels and XLA: in float64 so do a few of the numbers, by 1e-15, in float32 next to none.
    """
    shape = tf.convert_to_tensor(shape)
    known = tf.get_static_value(shape)
    entries = tf.reduce_prod(shape[1:]) if known is None else int(np.prod(known[1:]))
    pairs = -(-entries // 2)
    numbers = uniform([shape[0] if known is None else known[0], 2 * pairs], seed, dtype="float64")
    radius = tf.sqrt(-2.0 * tf.math.log(numbers[:, :pairs]))
    angle = 2.0 * np.pi * numbers[:, pairs:]
    both = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)
    return tf.reshape(tf.cast(both[:, :entries], dtype), shape if known is None else known)


def split_seed(seed: Any, n: int) -> tf.Tensor:
    """n independent seeds from one, int64 `[n, 2]`."""
    return tf.random.split(as_seed(seed), n, alg="philox")


def fold_in(seed: Any, stream: int) -> tf.Tensor:
    """The seed of one of many independent streams, int64 `[2]`: another number gives another stream."""
    return tf.random.fold_in(as_seed(seed), stream, alg="philox")


def _word(value):
    """One or several integers as int64."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return tf.constant(_signed_word(int(value)), tf.int64)
    value = tf.convert_to_tensor(value)
    if not value.dtype.is_integer:
        raise TypeError(three_part("a seed of integers", f"{value!r}", "Pass an int or a pair of ints."))
    return tf.cast(value, tf.int64)


def _signed_word(value):
    """The lowest 64 bits of a Python int, read as a signed number."""
    return (value + 2**63) % 2**64 - 2**63
