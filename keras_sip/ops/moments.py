"""Moments of fields about points of a rectangular domain in two dimensions; periodicity plays no part."""

import numpy as np
import tensorflow as tf


def cell_centres(resolution, spacing):
    """Positions of the cell centres (i + 1/2) dx: NumPy float64 `[H, W, 2]`."""
    axes = [spacing * (np.arange(cells) + 0.5) for cells in resolution]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def centre_of_mass(density, spacing):
    """Mean position weighted by density `[B, H, W, 1]`: `[B, 2]`; that of the domain where the density is 0."""
    positions = tf.constant(cell_centres(density.shape[1:3], spacing), density.dtype)
    middle = tf.reduce_mean(positions, axis=[0, 1])
    mass = tf.reduce_sum(density, axis=[1, 2])
    # From the middle: the moment is then free of cancellation, and 0 where there is nothing.
    moment = tf.reduce_sum(density * (positions - middle), axis=[1, 2])
    return middle + moment / tf.where(mass == 0, tf.ones_like(mass), mass)


def cross(a, b):
    """a_0 b_1 - a_1 b_0 of vectors in the last axis, `[..., 2]` to `[...]`."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
