"""Small eigenproblems and singular value decompositions, one for each example, by Jacobi rotations.

XLA's own routines stop at a fixed tolerance that leaves about 1e-7 (`svd`) and 1e-9 (`eigh`) of the largest value in
float64 (measured); these go on to rounding, eagerly, in graphs and under XLA alike.
"""

import numpy as np
import tensorflow as tf

from keras_sip.ops import batched

# A sweep takes n^3 operations in n - 1 rounds; above this size the library's eigenproblem is much faster.
LARGEST_JACOBI = 32
# Convergence is quadratic: well-behaved matrices take 4 to 8 sweeps.
MAX_SWEEPS = 20


def symmetric_eigen(matrix):
    """(eigenvalues `[B, n]` in ascending order, eigenvectors `[B, n, n]` as columns) of symmetric matrices `[B, n, n]`.

    Up to 2 x 2 in closed form, which keeps a small eigenvalue of a graded matrix to its own rounding; up to 32 x 32 by
    Jacobi rotations, to the rounding of the largest; above by `tf.linalg.eigh`. An example with a non-finite entry gets
    NaN and leaves the others alone.
    """
    size = matrix.shape[-1]
    identity = tf.zeros_like(matrix) + tf.eye(size, dtype=matrix.dtype)
    # Iterations that meet a NaN need not end.
    finite = batched.all_finite(matrix)
    safe = batched.where_example(finite, matrix, identity)
    if size == 1:
        values, vectors = safe[:, 0], identity
    elif size == 2:
        values, vectors = _two_by_two(safe)
    else:
        values, vectors = _shifted_jacobi(safe, identity) if size <= LARGEST_JACOBI else tf.linalg.eigh(safe)
    nan = tf.constant(np.nan, matrix.dtype)
    return tuple(batched.where_example(finite, entry, nan * tf.ones_like(entry)) for entry in (values, vectors))


def orthogonal_columns(matrix):
    """(A V `[B, m, n]`, V `[B, n, n]`) of matrices A `[B, m, n]`, with V orthogonal and the columns of A V too.

    That is the singular value decomposition: the norms of the columns of A V = U diag(sigma) are the singular values,
    in no particular order. A small one is good to the rounding of its column, not of the largest, where A is badly
    conditioned by the scaling of its columns alone. Where n > m, n - m columns vanish to rounding. Entries should be
    near 1 at most, for their squares are taken. A non-finite example gets NaN and leaves the others alone.

    Source: Hestenes, Inversion of matrices by biorthogonalization (1958); Demmel and Veselić, Jacobi's method is more
    accurate than QR (1992), Algorithm 4.1; Brent and Luk (1985) for the order of the rotations.
    """
    rows, size = matrix.shape[1:]
    finite = batched.all_finite(matrix)
    safe = batched.where_example(finite, matrix, tf.zeros_like(matrix))
    columns = tf.linalg.matrix_transpose(safe)
    basis = tf.zeros_like(columns[:, :, :1]) + tf.eye(size, dtype=matrix.dtype)
    both = tf.concat([columns, basis], axis=2)
    if size % 2:  # a zero column is orthogonal to all others and stays where it is
        both = tf.pad(both, [[0, 0], [0, 1], [0, 0]])
    half = both.shape[1] // 2
    pairs = (both[:, :half], both[:, half:])
    if size == 2:
        # The second rotation mends what the first one lost to rounding in a badly conditioned pair.
        pairs = _rotate(*_rotate(*pairs, rows)[:2], rows)[:2]
    elif size > 2:
        pairs = _sweeps(pairs, rows)
    both = tf.linalg.matrix_transpose(tf.concat(pairs, axis=1)[:, :size])
    nan = tf.constant(np.nan, matrix.dtype)
    both = batched.where_example(finite, both, nan * tf.ones_like(both))
    return both[:, :rows], both[:, rows:]


def _two_by_two(matrix):
    first, off, last = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 1]
    cosine, sine = _rotation(first, off, last)
    tangent = sine / cosine
    values = tf.stack([first - tangent * off, last + tangent * off], axis=-1)
    vectors = tf.stack([tf.stack([cosine, sine], axis=-1), tf.stack([-sine, cosine], axis=-1)], axis=-2)
    swapped = last < first
    return (
        batched.where_example(swapped, values[:, ::-1], values),
        batched.where_example(swapped, vectors[:, :, ::-1], vectors),
    )


def _shifted_jacobi(matrix, identity):
    """Eigenvectors of A are the singular vectors of A + s I once that is positive definite."""
    shift = 2 * batched.norm(matrix)[:, None, None]
    shift = tf.where(shift > 0, shift, tf.ones_like(shift))
    _, vectors = orthogonal_columns((matrix + shift * identity) / shift)
    values = tf.reduce_sum(vectors * tf.linalg.matmul(matrix, vectors), axis=1)
    order = tf.argsort(values, axis=1)
    return tf.gather(values, order, batch_dims=1), tf.gather(vectors, order, axis=2, batch_dims=1)


def _rotation(first, off, last):
    """(cosine, sine) of the smaller angle whose rotation [[c, s], [-s, c]] makes [[first, off], [off, last]] diagonal.

    Source: Golub and Van Loan, Matrix Computations, 4th ed., Algorithm 8.5.1.
    """
    half_gap = 0.5 * last - 0.5 * first
    # Squares over- and underflow before the numbers do.
    unit = tf.maximum(tf.abs(half_gap), tf.abs(off))
    unit = tf.where(unit > 0, unit, tf.ones_like(unit))
    half_gap, off = half_gap / unit, off / unit
    size = tf.abs(half_gap) + tf.sqrt(tf.square(half_gap) + tf.square(off))
    tangent = tf.where(half_gap < 0, -off, off) / tf.where(size > 0, size, tf.ones_like(size))
    # Not rsqrt, which on a CPU is good to a few roundings only: vectors would grow or shrink.
    cosine = 1 / tf.sqrt(1 + tf.square(tangent))
    return cosine, tangent * cosine


def _rotate(top, bottom, rows):
    """Make the first `rows` entries of each pair of vectors orthogonal. Also whether any pair was not, `[B]`."""
    p, q = top[..., :rows], bottom[..., :rows]
    first, off, last = (tf.reduce_sum(product, axis=2) for product in (p * p, p * q, q * q))
    rounding = rows * np.finfo(top.dtype.as_numpy_dtype).eps
    # Columns that are rounding errors of the others never become orthogonal to each other.
    noise = rounding**2 * tf.reduce_max(first + last, axis=1, keepdims=True)
    unfinished = tf.abs(off) > tf.maximum(rounding * tf.sqrt(first) * tf.sqrt(last), noise)
    cosine, sine = (factor[..., None] for factor in _rotation(first, tf.where(unfinished, off, 0 * off), last))
    return cosine * top - sine * bottom, sine * top + cosine * bottom, tf.reduce_any(unfinished, axis=1)


def _sweeps(pairs, rows):
    """Sweeps over all pairs of columns, each example until all of its pairs are orthogonal, bit for bit its own."""
    half = pairs[0].shape[1]

    def round_robin(index, top, bottom, unfinished):
        top, bottom, found = _rotate(top, bottom, rows)
        # The first one stays, the others move on by one: after a sweep all are back.
        next_top = tf.concat([top[:, :1], bottom[:, :1], top[:, 1:-1]], axis=1)
        next_bottom = tf.concat([bottom[:, 1:], top[:, -1:]], axis=1)
        return index + 1, next_top, next_bottom, unfinished | found

    def sweep(pairs, active):
        start = (0, *pairs, tf.zeros_like(active))
        rounds = 2 * half - 1
        _, top, bottom, unfinished = tf.while_loop(
            lambda index, *_: index < rounds, round_robin, start, maximum_iterations=rounds
        )
        return batched.where_example(active, (top, bottom), pairs), active & unfinished

    active = tf.ones_like(pairs[0][:, 0, 0], tf.bool)
    return tf.while_loop(
        lambda pairs, active: tf.reduce_any(active), sweep, (pairs, active), maximum_iterations=MAX_SWEEPS
    )[0]
