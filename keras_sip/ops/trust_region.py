"""The damping that gives a least-squares step the length of its trust region."""

import tensorflow as tf

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
