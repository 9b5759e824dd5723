"""Singular values of each example's Jacobian from products with it and its transpose, no matrix formed."""

import numpy as np
import tensorflow as tf

from keras_sip.ops import batched

# A direction so small against the largest is a rounding of the products: the space that can be seen is used up.
ROUNDINGS = 16


def golub_kahan(jvp, vjp, start, steps):
    """Bidiagonalise J: U^T J V = B, upper bidiagonal, for the Krylov space of J^T J and `start`.

    J v_j = alpha_j u_j + beta_{j-1} u_{j-1},   J^T u_j = alpha_j v_j + beta_j v_{j+1}

    Singular values of B lie between the smallest and the largest of J. The largest are found first; the smallest of B
    is an upper bound on that of J. Repeated singular values appear once. U and V are kept orthogonal to rounding by
    full reorthogonalisation, in float64. Unrolled: two products a step.

    Args:
        jvp: v `[B, *x]` -> J v `[B, *y]`, linear.
        vjp: w `[B, *y]` -> J^T w `[B, *x]`, linear.
        start: `[B, *x]`, random.
        steps: At most as many as x and y have components.

    Returns:
        (alpha `[B, k]`, beta `[B, k - 1]`, count `[B]`), float64, k = steps. An example has used up the space that
        `start` reaches with the first `count` entries; the rest are zeros.

    Source: Golub and Kahan 1965; Björck, Numerical Methods for Least Squares Problems (1996), Section 7.6.1.
    """
    dtype, x_shape, y_shape = start.dtype, tf.shape(start), tf.shape(jvp(tf.zeros_like(start)))
    smallest = ROUNDINGS * np.finfo(dtype.as_numpy_dtype).eps

    def times(v):
        return _flat(jvp(tf.reshape(tf.cast(v, dtype), x_shape)))

    def transposed_times(u):
        return _flat(vjp(tf.reshape(tf.cast(u, dtype), y_shape)))

    v, _ = _normalized(_flat(start))
    u, alpha = _normalized(times(v))
    us, vs, alphas, betas = [u], [v], [alpha], []
    largest, alive, count = alpha, alpha > 0, tf.ones_like(alpha, tf.int32)
    for _ in range(steps - 1):
        v, beta = _normalized(_orthogonal(transposed_times(u), vs))
        alive &= beta > smallest * largest
        count += tf.cast(alive, tf.int32)
        v, beta = batched.where_example(alive, (v, beta), (tf.zeros_like(v), tf.zeros_like(beta)))
        u, alpha = _normalized(_orthogonal(times(v), us))
        largest = tf.maximum(largest, tf.maximum(alpha, beta))
        us, vs, alphas, betas = [*us, u], [*vs, v], [*alphas, alpha], [*betas, beta]
    return tf.stack(alphas, 1), tf.stack([tf.zeros_like(alpha), *betas], 1)[:, 1:], count


def _flat(tensor):
    return tf.reshape(tf.cast(tensor, tf.float64), [tf.shape(tensor)[0], -1])


def _orthogonal(vector, basis):
    """The part of each example's vector `[B, n]` that is orthogonal to its basis."""
    basis = tf.stack(basis, axis=1)
    # Twice is enough (Kahan and Parlett).
    for _ in range(2):
        vector -= tf.linalg.matvec(basis, tf.linalg.matvec(basis, vector), transpose_a=True)
    return vector


def _normalized(vector):
    norm = batched.norm(vector)
    return vector / tf.where(norm > 0, norm, tf.ones_like(norm))[:, None], norm
