"""Low-pass filters of fields without periodic or zero boundaries, as measuring instruments are."""

import tensorflow as tf

# exp(-1 / (2 s^2)) is 0 in every precision from here on: a blur that is none.
NO_BLUR = 1e-2


def gaussian_blur(field, width):
    """A Gaussian average along each spatial axis of `[B, *resolution, C]`.

        y_i = sum_j w_ij x_j,    w_ij = exp(-(i - j)^2 / (2 s^2)) / sum_j exp(-(i - j)^2 / (2 s^2))

    The weights of every cell add up to 1 also next to the boundary, so that a constant stays as it is. One dense matrix
    for each axis and example, which takes less time than a transform for up to some hundred cells.

    Args:
        field: `[B, *resolution, C]`.
        width: s in cells, `[B]` or a number; 0 leaves an example as it is.
    """
    width = tf.maximum(tf.cast(width, field.dtype), tf.constant(NO_BLUR, field.dtype))
    width = tf.broadcast_to(width, tf.shape(field)[:1])
    for axis in range(1, field.shape.rank - 1):
        field = _along(field, axis, _weights(field.shape[axis], width))
    return field


def _weights(cells, width):
    """w `[B, cells, cells]`."""
    position = tf.range(cells, dtype=width.dtype)
    distance = position[:, None] - position
    weights = tf.exp(-0.5 * tf.square(distance / width[:, None, None]))
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def _along(field, axis, matrix):
    """`matrix` `[B, n, n]` times one axis of every example."""
    axes = list(range(field.shape.rank))
    axes.remove(axis)
    order = [axes[0], axis, *axes[1:]]
    moved = tf.transpose(field, order)
    shape = tf.shape(moved)
    product = tf.matmul(matrix, tf.reshape(moved, [shape[0], shape[1], -1]))
    back = [order.index(number) for number in range(len(order))]
    return tf.ensure_shape(tf.transpose(tf.reshape(product, shape), back), field.shape)
