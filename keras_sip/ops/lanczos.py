"""Functions of large symmetric matrices times a vector, by products with the matrix alone."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# A vector that is this many roundings of the matrix's size is none: the Krylov space is exhausted.
ROUNDINGS = 64


class Tridiagonal(NamedTuple):
    """K Q^T = Q^T T + rest: the matrix K on the Krylov space of its start.

    Attributes:
        basis: Q, orthonormal rows `[k, n]`; zeros where the Krylov space has fewer dimensions.
        matrix: T `[k, k]`, symmetric and tridiagonal; zeros beyond the dimension of the Krylov space.
        start_norm: |v|, a scalar; the first row of Q is v / |v|.
    """

    basis: tf.Tensor
    matrix: tf.Tensor
    start_norm: tf.Tensor


def lanczos(matvec: Callable, start: tf.Tensor, steps: int) -> Tridiagonal:
    """`steps` steps of Lanczos' iteration with full reorthogonalisation, from `start` `[n]`.

    Args:
        matvec: v `[n]` -> K v, K symmetric.
        start: v `[n]`. Where it is zero or not finite, all of the result is zero.
        steps: k, a Python int.

    Source: Golub and Van Loan, Matrix Computations, 4th ed., Algorithm 10.1.1; each vector is made
    orthogonal to all before it twice, as in Section 10.3.
    """
    norm = tf.norm(start)
    usable = tf.math.is_finite(norm) & (norm > 0)
    norm = tf.where(usable, norm, tf.zeros_like(norm))
    first = tf.where(usable, start, tf.zeros_like(start)) / tf.where(usable, norm, tf.ones_like(norm))
    basis = tf.tile(tf.zeros_like(start)[None], [steps, 1])
    rounding = ROUNDINGS * np.finfo(start.dtype.as_numpy_dtype).eps

    def step(index, basis, matrix, vector, off, size):
        basis = tf.tensor_scatter_nd_update(basis, [[index]], vector[None])
        product = matvec(vector)
        diagonal = tf.tensordot(vector, product, 1)
        for _ in range(2):
            product -= tf.linalg.matvec(basis, tf.linalg.matvec(basis, product), transpose_a=True)
        length = tf.norm(product)
        size = tf.maximum(size, tf.maximum(tf.abs(diagonal), off))
        goes_on = tf.math.is_finite(length) & (length > rounding * size)
        length = tf.where(goes_on, length, tf.zeros_like(length))
        following = tf.where(goes_on, product / tf.where(goes_on, length, tf.ones_like(length)), tf.zeros_like(product))
        finite = tf.where(tf.math.is_finite(diagonal), diagonal, tf.zeros_like(diagonal))
        entries = [[index, index], [index, index + 1], [index + 1, index]]
        matrix = tf.tensor_scatter_nd_add(matrix, entries, tf.stack([finite, length, length]))
        return index + 1, basis, matrix, following, length, size

    zero = tf.zeros_like(norm)
    # One row more than is kept, for the last coefficient off the diagonal.
    matrix = tf.zeros([steps + 1, steps + 1], start.dtype)
    _, basis, matrix, *_ = tf.while_loop(
        lambda index, *_: index < steps, step, (0, basis, matrix, first, zero, zero), maximum_iterations=steps
    )
    return Tridiagonal(basis, matrix[:steps, :steps], norm)


def apply_function(function: Callable, tridiagonal: Tridiagonal) -> tf.Tensor:
    """f(K) v `[n]`, as far as the Krylov space of v goes: |v| Q^T f(T) e_1.

    Args:
        function: Eigenvalues `[k]` in ascending order -> f of each `[k]`; finite at 0.
        tridiagonal: Of `lanczos(matvec, v, k)`.

    Source: Higham, Functions of Matrices (2008), Section 13.2.1.
    """
    values, vectors = tf.linalg.eigh(tridiagonal.matrix)
    coefficients = tf.linalg.matvec(vectors, function(values) * vectors[0])
    return tridiagonal.start_norm * tf.linalg.matvec(tridiagonal.basis, coefficients, transpose_a=True)
