"""Linear systems A x = b of each example, which never raise: a singular example is NaN, the others are as they were.

On a CPU TensorFlow's own kernels (`tf.linalg.solve`, `lu`, `triangular_solve`) end the whole batch with an
error where one matrix is singular or holds a NaN. These give that example NaN, which solvers and training leave out,
eagerly, in graphs and under XLA. Derivatives of any order, forward and reverse, reuse the factors: with A^T w = dL/dx,

    dL/db = w,    dL/dA = -w x^T.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.errors import three_part


def solve(matrix: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    """x of  A x = b, dense: NaN in the examples whose A is singular to rounding or not finite.

    By Householder QR of A with its rows scaled to 1. Singular to rounding means that a column lies within n roundings
    of its length of the span of those before it.

    Args:
        matrix: A `[..., n, n]`, real.
        rhs: b `[..., n]`, or `[..., n, k]` for k right-hand sides, with the leading axes of `matrix`. (One A for a
            whole batch: b as `[n, batch]`.)

    Returns:
        x, of the shape of `rhs`.
    """
    (matrix,), columns, is_vector = _checked("matrix", (matrix,), rhs, matrix_axes=2)
    return _without_axis(_solve(_Dense(matrix), columns), is_vector)


def cholesky_solve(matrix: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    """x of  A x = b, A symmetric positive definite: NaN in the examples whose A is not so, to rounding, or not finite.

    By Cholesky factors of A scaled to a unit diagonal, an eighth of the work of `solve`. Only the lower triangle of A
    is read, and A's gradient is symmetric: that of a function of symmetric matrices.

    Args:
        matrix: A `[..., n, n]`, real.
        rhs: b `[..., n]` or `[..., n, k]`, with the leading axes of `matrix`.

    Returns:
        x, of the shape of `rhs`.

    Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Algorithm 10.2 and Section 10.1.1.
    """
    (matrix,), columns, is_vector = _checked("matrix", (matrix,), rhs, matrix_axes=2)
    lower = tf.linalg.band_part(matrix, -1, 0)
    strictly_lower = lower - tf.linalg.diag(tf.linalg.diag_part(lower))
    symmetric = lower + tf.linalg.matrix_transpose(strictly_lower)
    return _without_axis(_solve(_PositiveDefinite(symmetric), columns), is_vector)


def solve_block_tridiagonal(lower: tf.Tensor, diagonal: tf.Tensor, upper: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    """x of  L_{i-1} x_{i-1} + D_i x_i + U_i x_{i+1} = b_i: an implicit step or a steady state on a grid, row by row.

    By block elimination without exchange of blocks: for matrices whose diagonal blocks dominate, or symmetric positive
    definite ones, such as diffusion's. An example that breaks down is NaN. For a grid of m rows of n cells: m times n^3
    operations and memory for 3 m n^2 numbers, where a dense matrix would hold m^2 n^2.

    Args:
        lower: L `[..., m - 1, n, n]`: L_i is what row i + 1 takes of x_i.
        diagonal: D `[..., m, n, n]`.
        upper: U `[..., m - 1, n, n]`: U_i is what row i takes of x_{i+1}.
        rhs: b `[..., m, n]` or `[..., m, n, k]`.

    Returns:
        x, of the shape of `rhs`.

    Source: G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed., Section 4.5.1.
    """
    blocks, columns, is_vector = _checked("diagonal", (diagonal, lower, upper), rhs, matrix_axes=3)
    return _without_axis(_solve(_BlockTridiagonal(*blocks), columns), is_vector)


def _solve(system, rhs, *, transposed=False):
    """A^-1 rhs or A^-T rhs, with derivatives that use the factors of `system` again."""

    @tf.custom_gradient
    def run(*_):
        def gradient(dx):
            # x anew, not the tensor from below, whose own derivative would be lost.
            x = _solve(system, rhs, transposed=transposed)
            w = _solve(system, dx, transposed=not transposed)
            in_matrices = system.outer(x, w) if transposed else system.outer(w, x)
            return [*(-entry for entry in in_matrices), w]

        return system.apply(tf.stop_gradient(rhs), transposed=transposed), gradient

    return run(*system.matrices, rhs)


class _Dense:
    def __init__(self, matrix):
        self.matrices = (matrix,)
        self._factors = _qr(tf.stop_gradient(matrix))

    def apply(self, rhs, *, transposed):
        q, r, scale, sound = self._factors
        if transposed:
            inner = tf.linalg.triangular_solve(r, _usable(rhs, sound), lower=False, adjoint=True)
            x = tf.linalg.matmul(q, inner) / scale
        else:
            inner = tf.linalg.matmul(q, _usable(rhs, sound) / scale, transpose_a=True)
            x = tf.linalg.triangular_solve(r, inner, lower=False)
        return _flagged(x, sound)

    def outer(self, u, v):
        """The gradient of u . A v in A."""
        return (tf.linalg.matmul(u, v, transpose_b=True),)


class _PositiveDefinite:
    def __init__(self, matrix):
        self.matrices = (matrix,)
        self._factors = _cholesky(tf.stop_gradient(matrix))

    def apply(self, rhs, *, transposed):
        del transposed  # A^T = A
        factor, unit, sound = self._factors
        inner = tf.linalg.triangular_solve(factor, _usable(rhs, sound) / unit)
        return _flagged(tf.linalg.triangular_solve(factor, inner, adjoint=True) / unit, sound)

    def outer(self, u, v):
        """The gradient of u . A v in A, among symmetric matrices."""
        product = tf.linalg.matmul(u, v, transpose_b=True)
        return (0.5 * (product + tf.linalg.matrix_transpose(product)),)


class _BlockTridiagonal:
    """A = (I + L D^-1) D (I + D^-1 U) with the blocks of D eliminated one after the other: D_i' = D_i - L D'^-1 U."""

    def __init__(self, diagonal, lower, upper):
        self.matrices = (diagonal, lower, upper)
        self._size = diagonal.shape[-3]
        self._lower, self._upper = (_rows_first(tf.stop_gradient(entry)) for entry in (lower, upper))
        self._inverses, self._sound = self._eliminate(_rows_first(tf.stop_gradient(diagonal)))

    def _eliminate(self, diagonal):
        # The explicit inverses make the rest products of matrices: one factorisation, then no solve in a loop.
        first, sound = _inverse(diagonal[0])

        def eliminate(i, last, sound, inverses):
            coupling = tf.linalg.matmul(self._lower[i - 1], tf.linalg.matmul(last, self._upper[i - 1]))
            inverse, is_sound = _inverse(diagonal[i] - coupling)
            return i + 1, inverse, sound & is_sound, inverses.write(i, inverse)

        inverses = _array_like(diagonal).write(0, first)
        start = (tf.constant(1), first, sound, inverses)
        _, _, sound, inverses = tf.while_loop(lambda i, *_: i < self._size, eliminate, start)
        return inverses.stack(), sound

    def apply(self, rhs, *, transposed):
        inverses, below, above = self._inverses, self._lower, self._upper
        if transposed:
            inverses, below, above = (tf.linalg.matrix_transpose(entry) for entry in (inverses, above, below))
        rhs = _rows_first(rhs)

        def forward(i, last, solved):
            row = tf.linalg.matmul(inverses[i], rhs[i] - tf.linalg.matmul(below[i - 1], last))
            return i + 1, row, solved.write(i, row)

        first = tf.linalg.matmul(inverses[0], rhs[0])
        start = (tf.constant(1), first, _array_like(rhs).write(0, first))
        _, last, solved = tf.while_loop(lambda i, *_: i < self._size, forward, start)
        solved = solved.stack()

        def backward(i, following, x):
            row = solved[i] - tf.linalg.matmul(inverses[i], tf.linalg.matmul(above[i], following))
            return i - 1, row, x.write(i, row)

        start = (tf.constant(self._size - 2), last, _array_like(rhs).write(self._size - 1, last))
        _, _, x = tf.while_loop(lambda i, *_: i >= 0, backward, start)
        return _flagged(_rows_last(x.stack()), self._sound[..., None])

    def outer(self, u, v):
        """The gradients of u . A v in the diagonal, lower and upper blocks."""
        pairs = ((u, v), (u[..., 1:, :, :], v[..., :-1, :, :]), (u[..., :-1, :, :], v[..., 1:, :, :]))
        return tuple(tf.linalg.matmul(a, b, transpose_b=True) for a, b in pairs)


class _QR(NamedTuple):
    q: tf.Tensor
    r: tf.Tensor  # of A with its rows divided by `scale`; I where not sound
    scale: tf.Tensor  # [..., n, 1]
    sound: tf.Tensor  # boolean [..., 1, 1]


def _qr(matrix):
    finite = tf.reduce_all(tf.math.is_finite(matrix), axis=[-2, -1], keepdims=True)
    identity = tf.eye(matrix.shape[-1], dtype=matrix.dtype)
    matrix = tf.where(finite, matrix, identity)
    largest = tf.reduce_max(tf.abs(matrix), axis=-1, keepdims=True)
    scale = tf.where(largest >= _tiny(matrix), largest, tf.ones_like(largest))
    matrix /= scale
    q, r = tf.linalg.qr(matrix)
    heights = tf.abs(tf.linalg.diag_part(r))
    lengths = tf.sqrt(tf.reduce_sum(tf.square(matrix), axis=-2))
    apart = heights > matrix.shape[-1] * _epsilon(matrix) * lengths
    sound = finite & tf.reduce_all(apart, axis=-1)[..., None, None]
    return _QR(q, tf.where(sound, r, identity), scale, sound)


def _inverse(matrix):
    """(A^-1, whether it exists `[..., 1, 1]`); finite where it does not."""
    q, r, scale, sound = _qr(matrix)
    inverse = tf.linalg.triangular_solve(r, tf.linalg.matrix_transpose(q), lower=False)
    return inverse / tf.linalg.matrix_transpose(scale), sound


def _cholesky(matrix):
    """(L, unit, sound): A = unit L L^T unit, unit `[..., n, 1]`; I where not sound, boolean `[..., 1, 1]`.

    Column by column, with products of matrices and vectors for the whole batch at once.
    """
    size = matrix.shape[-1]
    diagonal = tf.linalg.diag_part(matrix)[..., None]
    sound = tf.reduce_all(tf.math.is_finite(matrix), axis=[-2, -1], keepdims=True)
    sound &= tf.reduce_all(diagonal >= _tiny(matrix), axis=-2, keepdims=True)
    identity = tf.eye(size, dtype=matrix.dtype)
    unit = tf.sqrt(tf.where(sound, diagonal, tf.ones_like(diagonal)))
    scaled = tf.where(sound, matrix, identity) / unit / tf.linalg.matrix_transpose(unit)
    rows = tf.range(size)[:, None]

    def eliminate(j, factor, sound):
        known = factor[..., j, :, None]
        column = scaled[..., :, j, None] - tf.linalg.matmul(factor, known)
        pivot = column[..., j, None, :]
        positive = pivot > size * _epsilon(matrix)
        column /= tf.sqrt(tf.where(positive, pivot, tf.ones_like(pivot)))
        column = tf.where(rows >= j, column, tf.zeros_like(column))
        return j + 1, factor + column * identity[j], sound & positive

    start = (tf.constant(0), tf.zeros_like(matrix), sound)
    _, factor, sound = tf.while_loop(lambda j, *_: j < size, eliminate, start)
    return tf.where(sound, factor, identity), unit, sound


def _usable(rhs, sound):
    return tf.where(sound, rhs, tf.zeros_like(rhs))


def _flagged(x, sound):
    return tf.where(sound, x, tf.constant(np.nan, x.dtype))


def _rows_first(blocks):
    """`[..., m, n, k]` as `[m, ..., n, k]`."""
    rank = blocks.shape.rank
    return tf.transpose(blocks, [rank - 3, *range(rank - 3), rank - 2, rank - 1])


def _rows_last(blocks):
    rank = blocks.shape.rank
    return tf.transpose(blocks, [*range(1, rank - 2), 0, rank - 2, rank - 1])


def _array_like(rows):
    # Unstacked zeros: XLA knows the shape of an unknown batch before the first write.
    array = tf.TensorArray(rows.dtype, rows.shape[0], element_shape=rows.shape[1:], clear_after_read=False)
    return array.unstack(tf.zeros_like(rows))


def _epsilon(tensor):
    return np.finfo(tensor.dtype.as_numpy_dtype).eps


def _tiny(tensor):
    return np.finfo(tensor.dtype.as_numpy_dtype).tiny


def _without_axis(x, is_vector):
    return x[..., 0] if is_vector else x


def _checked(name, matrices, rhs, *, matrix_axes):
    """(matrices, rhs as columns `[..., n, k]`, whether it was a vector)."""
    matrices = [tf.convert_to_tensor(entry) for entry in matrices]
    first = matrices[0]
    rhs = tf.convert_to_tensor(rhs, first.dtype if not tf.is_tensor(rhs) else None)
    axes = "m, n, n" if matrix_axes == 3 else "n, n"
    ranks_fit = first.shape.rank is not None and first.shape.rank >= matrix_axes and rhs.shape.rank is not None
    is_vector = ranks_fit and rhs.shape.rank == first.shape.rank - 1
    fits = ranks_fit and rhs.shape.rank in (first.shape.rank - 1, first.shape.rank)
    fits = fits and all(entry.dtype == first.dtype for entry in (*matrices, rhs))
    fits = fits and first.dtype in (tf.float32, tf.float64) and _shapes_fit(matrices, rhs, is_vector)
    if not fits:
        received = ", ".join(f"{entry.dtype.name} {entry.shape}" for entry in (*matrices, rhs))
        remedy = "Cast to one dtype, and give the right-hand side the leading axes of the matrix, with static sizes."
        neighbours = " with neighbours [..., m - 1, n, n]" if matrix_axes == 3 else ""
        raise ValueError(
            three_part(
                f"`{name}` [..., {axes}]{neighbours} and `rhs` [..., {axes[:-3]}] or [..., {axes[:-3]}, k], all of "
                "float32 or all of float64",
                received,
                remedy,
            )
        )
    return matrices, rhs[..., None] if is_vector else rhs, is_vector


def _shapes_fit(matrices, rhs, is_vector):
    first, *neighbours = (entry.shape for entry in matrices)
    size = first[-1]
    square = size is not None and first[-2] == size
    like = first[:-1] if is_vector else first[:-1].concatenate([rhs.shape[-1]])
    fits = square and rhs.shape.is_compatible_with(like)
    if neighbours:
        fits = fits and first[-3] is not None
        expected = first[:-3].concatenate([(first[-3] or 1) - 1, size, size])
        fits = fits and all(shape.is_compatible_with(expected) for shape in neighbours)
    return fits
