"""Random 0/1 markers: ragged blobs in a part of the domain; stateless, as the fields of `random_fields`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip.ops.moments import cell_centres
from keras_sip.ops.random_fields import smooth_noise, split_seed, uniform

# Fractions of the domain's length (of 128 in the paper): the box's half width, and its centre's distance from the edge.
HALF_WIDTH, MARGIN = 28 / 128, 32 / 128
SMALLEST_FILLING, LARGEST_FILLING = 0.05, 0.15


def random_markers(shape: Sequence[int], seed: Any, *, noise_scale: float, dtype: str = "float32") -> tf.Tensor:
    """Markers `[B, H, W, 1]` of zeros and ones: the highest values of smooth noise inside a box.

    The box has the half width 28/128 of the domain, its centre is uniform in the inner half along each axis. Within it
    the highest values of `smooth_noise` become 1, so many that they fill 5 to 15 % of the domain's
    cells, uniformly.

    Args:
        shape: `[B, H, W, 1]`, ints.
        seed: Anything that `random_fields.as_seed` takes.
        noise_scale: The noise's scale in cells, see `smooth_noise`.
        dtype: "float32" or "float64".

    Source: the fluid experiment of Holl, Koltun and Thuerey, Scale-invariant Learning by Physics Inversion (2022),
    where all examples of a batch have one fraction.
    """
    box_seed, noise_seed = tf.unstack(split_seed(seed, 2))
    batch, *resolution, _ = shape
    numbers = uniform([batch, 3], box_seed, dtype=dtype)
    centre = MARGIN + (1 - 2 * MARGIN) * numbers[:, None, None, :2]
    positions = tf.constant(cell_centres(resolution, 1.0) / np.array(resolution), dtype)
    inside = tf.reduce_max(tf.abs(positions - centre), axis=-1) <= HALF_WIDTH
    noise = smooth_noise(shape, noise_seed, scale=noise_scale, dtype=dtype)[..., 0]
    outside = tf.reduce_min(noise, axis=[1, 2], keepdims=True) - 1
    values = tf.where(inside, noise, outside)
    cells = int(np.prod(resolution))
    filled = tf.cast((SMALLEST_FILLING + (LARGEST_FILLING - SMALLEST_FILLING) * numbers[:, 2]) * cells, tf.int32)
    # The fraction is below that of the box, so the value looked up is one inside it.
    ranked = tf.sort(tf.reshape(values, [batch, cells]), direction="DESCENDING")
    threshold = tf.gather(ranked, tf.maximum(filled, 1) - 1, batch_dims=1)
    return tf.cast(inside & (values >= threshold[:, None, None]), dtype)[..., None]
