"""Random fields of overlapping boxes with soft edges; stateless, as those of `random_fields`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip.ops.random_fields import uniform

FEWEST, MOST = 4, 10
# Fractions of the domain's length: where centres may lie, and the largest half size (10 of the paper's 64 cells).
CENTRES, LARGEST_HALF_SIZE = 0.8, 10 / 64


def soft_boxes(shape: Sequence[int], seed: Any, *, dtype: str = "float32") -> tf.Tensor:
    """Sums of 4 to 10 boxes, each `[B, *resolution, C]` field with boxes of its own in every channel.

        f(p) = sum over boxes of s clip(1/2 - d(p) / R, 0, 1),    d(p) = max over axes a of |p_a - c_a| - h_a,

    p the cell centres and R the radius of the circle around a cell (sqrt(2)/2 cells in two dimensions): an edge is a
    ramp of about one cell. The number of boxes is uniform in 4 ... 10; the strength s in [0, 1], the half size h in
    [0, 10/64] of the domain and the centre c in the domain's inner 80 %, along each axis; the centre is then moved so
    that the box lies inside.

    Args:
        shape: `[B, *resolution, C]`, ints; one to three spatial axes.
        seed: Anything that `random_fields.as_seed` takes.
        dtype: "float32" or "float64"; both give the same field to rounding.

    Source: the heat experiment of Holl, Koltun and Thuerey, Scale-invariant Learning by Physics Inversion (2022).
    """
    *outer, channels = shape
    batch, resolution = outer[0], tuple(outer[1:])
    dimensions = len(resolution)
    # For each box: how far along each axis, how large along each axis, how strong; then how many boxes there are.
    numbers = MOST * (2 * dimensions + 1) + 1
    drawn = uniform([batch, channels, numbers], seed, dtype=dtype)
    boxes = tf.reshape(drawn[..., :-1], [batch, channels, MOST, 2 * dimensions + 1])
    count = tf.floor(FEWEST + (MOST - FEWEST + 1) * drawn[..., -1:])
    strength = tf.where(tf.range(MOST, dtype=dtype) < count, boxes[..., -1], tf.zeros([], dtype))

    total = tf.zeros([], dtype)
    profiles = [_profiles(boxes, strength, axis, cells, dimensions) for axis, cells in enumerate(resolution)]
    for box in range(MOST):
        # s clip(1/2 - max_a d_a / R) is the smallest of the same along each axis alone.
        field = profiles[0][:, :, box]
        for axis in range(1, dimensions):
            field = tf.minimum(
                field[..., None], tf.reshape(profiles[axis][:, :, box], [batch, channels, *[1] * axis, -1])
            )
        total += field
    return tf.transpose(total, [0, *range(2, 2 + dimensions), 1])


def _profiles(boxes, strength, axis, cells, dimensions):
    """s clip(1/2 - d_a / R, 0, 1) of every box along one axis, `[B, C, boxes, cells]`, lengths in cells."""
    dtype = boxes.dtype
    half_size = LARGEST_HALF_SIZE * cells * boxes[..., dimensions + axis, None]
    centre = cells * (0.5 + CENTRES * (boxes[..., axis, None] - 0.5))
    centre = tf.clip_by_value(centre, half_size, cells - half_size)
    position = tf.range(cells, dtype=dtype) + 0.5
    distance = tf.abs(position - centre) - half_size
    return strength[..., None] * tf.clip_by_value(0.5 - distance / (0.5 * np.sqrt(dimensions)), 0.0, 1.0)
