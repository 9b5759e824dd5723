"""Damped least-squares steps: the damping that gives one the length of its trust region, and one of given damping."""

import numpy as np
import tensorflow as tf

from keras_sip.ops.linear_systems import cholesky_solve

# Above this size the operations of an elimination are too many to write them all down.
LARGEST_UNROLLED = 16
# Each iteration squares the error, so that as much costs one more than a thousandth would.
ENOUGH = 1e-9
# The first iterations find the order of magnitude.
MAX_ITERATIONS = 20


def damping_for_radius(squares, slopes, radius):
    """The least lambda `[B]` >= 0 with |p(lambda)| <= radius, p_i = -slopes_i / (squares_i + lambda).

    Newton's method on 1 / |p|, which is nearly linear in lambda and concave: from 0 it climbs to the solution and never
    leaps over it. An example that is there stays as it is, bit for bit.

    Args:
        squares: sigma_i^2 `[B, k]`, above 0.
        slopes: `[B, k]`.
        radius: `[B]`, above 0.

    Source: Moré, The Levenberg-Marquardt algorithm: implementation and theory (1978), Section 5; Reinsch (1971).
    """

    def improve(damping, _):
        curvatures = squares + damping[:, None]
        components = slopes / curvatures
        square = tf.reduce_sum(tf.square(components), axis=1)
        length = tf.sqrt(square)
        bend = tf.reduce_sum(tf.square(components) / curvatures, axis=1)
        longer = length > radius * (1 + ENOUGH)
        step = square / bend * (length - radius) / radius
        return tf.where(longer, damping + step, damping), longer

    start = tf.zeros_like(radius)
    return tf.while_loop(
        lambda damping, longer: tf.reduce_any(longer),
        improve,
        (start, tf.ones_like(start, tf.bool)),
        maximum_iterations=MAX_ITERATIONS,
    )[0]


def solve_positive(matrix, right):
    """x `[B, n]` of A x = b, A `[B, n, n]` symmetric and far from singular, as a damped one of unit diagonal is.

    Up to 16 x 16 by Gauss-Jordan elimination, written down step by step: faster than the library's factorisation under
    XLA (a third of the time), and no kernel that raises; above by `cholesky_solve`. No pivots: A is positive definite.
    """
    size = matrix.shape[-1]
    if size > LARGEST_UNROLLED:
        return cholesky_solve(matrix, right)
    both = tf.concat([matrix, right[:, :, None]], axis=2)
    for k, unit in enumerate(np.eye(size)):
        row = both[:, k : k + 1] / both[:, k : k + 1, k : k + 1]
        both -= (both[:, :, k : k + 1] - tf.constant(unit[:, None], both.dtype)) * row
    return both[:, :, size]
