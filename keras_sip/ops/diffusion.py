"""Steady diffusion through a medium that varies from cell to cell, solved directly for each example."""

import functools

import numpy as np
import tensorflow as tf

# Logarithm of the largest over the smallest coefficient of an example, up to which float64 factorises safely.
LARGEST_LOG_CONTRAST = 30.0


def solve_diffusion(log_coefficient: tf.Tensor, source: tf.Tensor, *, spacing: float = 1.0) -> tf.Tensor:
    """u with  -div(a grad u) = f  on a rectangle, u = 0 on its boundary;  a = exp(log_coefficient).

    Finite volumes: the flux between two cells is T (u_i - u_j), T the harmonic mean 2 a_i a_j / (a_i + a_j); to the
    boundary, half a cell away, T = 2 a_i. The sum of the fluxes out of a cell is f dx^2. Second order in dx for smooth
    a; fluxes are right where a jumps between cells.

    The equations are factorised once, by block elimination along the longer axis, and the factors serve all derivatives
    of the solution: the operator is its own transpose, so that a gradient is one more solution. All is computed in
    float64, and diagonals as sums of positive terms instead of differences, so that no digits are lost at any contrast
    up to e^30. An example that is not finite or has more contrast than that becomes NaN; the others do not see it.

    Args:
        log_coefficient: log a at the cell centres, `[B, H, W]`.
        source: f, `[B, H, W]`, or what broadcasts to it.
        spacing: dx, the width of a cell.

    Source: R. Eymard, T. Gallouet, R. Herbin, Finite Volume Methods (2000), Section 3.1; the sums of positive terms:
    J. M. Pena, LDU decompositions with L and U well conditioned, ETNA 18 (2004).
    """
    dtype = log_coefficient.dtype
    log_a, sources = tf.cast(log_coefficient, tf.float64), tf.cast(source, tf.float64)
    contrast = tf.reduce_max(log_a, axis=[1, 2]) - tf.reduce_min(log_a, axis=[1, 2])
    # Negated: a comparison with NaN is false. XLA's maximum passes over a NaN.
    finite = tf.reduce_all(tf.math.is_finite(log_a) & tf.math.is_finite(sources + tf.zeros_like(log_a)), axis=[1, 2])
    usable = (finite & (contrast <= LARGEST_LOG_CONTRAST))[:, None, None]
    log_a = tf.where(usable, log_a, tf.zeros_like(log_a))
    # Scaled by the mean: exp(log a) itself may leave the range of float64.
    level = tf.reduce_mean(log_a, axis=[1, 2], keepdims=True)
    sources = tf.where(usable, sources + tf.zeros_like(log_a), tf.zeros_like(log_a))
    across_rows, across_columns = _transmissibilities(tf.exp(log_a - level))
    solution = _solve(across_rows, across_columns, sources * spacing**2)
    solution = tf.where(usable, tf.exp(-level) * solution, tf.constant(np.nan, tf.float64))
    return tf.cast(solution, dtype)


def _transmissibilities(a):
    """T of the faces across the first axis `[B, H + 1, W]` and across the second `[B, H, W + 1]`."""
    turned = tf.linalg.matrix_transpose(a)
    return _across_first_axis(a), tf.linalg.matrix_transpose(_across_first_axis(turned))


def _across_first_axis(a):
    lower, upper = (tf.constant(cells, a.dtype) @ a for cells in _cells_of_faces(a.shape[1]))
    # At the boundary both are the one cell, whose centre is half as far away.
    factor = np.full([a.shape[1] + 1, 1], 2.0)
    factor[[0, -1]] = 4.0
    return factor * lower * upper / (lower + upper)


def _solve(across_rows, across_columns, right_side):
    """A^-1 b for the faces' T, differentiable to any order; the factors are computed once for all of them."""
    if across_rows.shape[1] - 1 < across_rows.shape[2]:
        # The blocks are as large as a row is long: the shorter the better.
        turned = [tf.linalg.matrix_transpose(part) for part in (across_columns, across_rows, right_side)]
        return tf.linalg.matrix_transpose(_solve(*turned))
    factors = tf.stop_gradient(across_rows), tf.stop_gradient(across_columns)
    factors = _factorise(*factors), factors[0]

    def solve(across_rows, across_columns, right_side):
        known = []

        @tf.custom_gradient
        def solution_of(across_rows, across_columns, right_side):
            u = _substitute(*factors, tf.stop_gradient(right_side))
            # Zero, with the derivative of u: forward accumulation, which in graphs passes by custom gradients, sees it.
            remainder = right_side - _apply(across_rows, across_columns, u)
            u += _substitute(*factors, remainder - tf.stop_gradient(remainder))

            def gradient(w):
                # The solution as the outside knows it, whose own derivatives second ones need; forward accumulation
                # asks before there is an outside.
                outside = known[0] if known else u
                adjoint = solve(across_rows, across_columns, w)
                return (
                    -_differences(adjoint) * _differences(outside),
                    -_transposed_differences(adjoint) * _transposed_differences(outside),
                    adjoint,
                )

            return u, gradient

        known.append(solution_of(across_rows, across_columns, right_side))
        return known[0]

    return solve(across_rows, across_columns, right_side)


def _apply(across_rows, across_columns, u):
    """A u: the sum of the fluxes out of each cell."""
    rows, columns = _face_differences(u.shape[1]), _face_differences(u.shape[2])
    fluxes = across_rows * _differences(u), across_columns * _transposed_differences(u)
    return tf.constant(rows.T) @ fluxes[0] + fluxes[1] @ tf.constant(columns)


def _differences(u):
    """Differences across all faces of the first axis, `[B, H + 1, W]`; u = 0 beyond the first and the last."""
    # A product with a constant, as everywhere here: XLA lacks the gradients of the gradients of slices.
    return tf.constant(_face_differences(u.shape[1])) @ u


def _transposed_differences(u):
    """The same of the second axis, `[B, H, W + 1]`."""
    return u @ tf.constant(_face_differences(u.shape[2]).T)


def _face_differences(cells):
    return np.eye(cells + 1, cells) - np.eye(cells + 1, cells, k=-1)


def _cells_of_faces(cells):
    """For the faces along an axis, which cell is below and which above, as two matrices `[cells + 1, cells]`."""
    below, above = np.eye(cells + 1, cells, k=-1), np.eye(cells + 1, cells)
    below[0], above[-1] = above[0], below[-1]
    return below, above


def _factorise(across_rows, across_columns):
    """The inverses of the pivots S_i of the block elimination along the rows, `[H, B, W, W]`.

    With E_i = diag(T) between row i - 1 and row i,  S_i = A_ii - E_i S_{i-1}^-1 E_i  has entries <= 0 off the diagonal
    and row sums v_i + E_{i+1} 1, v_i = T to the sides + E_i S_{i-1}^-1 v_{i-1}: nothing is ever subtracted.
    """
    height, width = across_columns.shape[1], across_rows.shape[2]
    coupling = tf.transpose(across_rows, [1, 0, 2])
    sides = tf.transpose(across_columns, [1, 0, 2])
    ends = np.zeros([width + 1, width])
    ends[0, 0] += 1
    ends[-1, -1] += 1
    ends = tf.linalg.matmul(sides, tf.constant(ends))
    neighbours = tf.linalg.diag(sides[..., 1:width], k=1) if width > 1 else tf.zeros_like(ends)[..., None]
    neighbours += tf.linalg.matrix_transpose(neighbours)
    identity = tf.eye(width, batch_shape=[tf.shape(coupling)[1]], dtype=coupling.dtype)

    def next_pivot(before, row):
        inverse, to_boundary = before
        above, below, ends, neighbours = row
        off_diagonal = neighbours + above[:, :, None] * inverse * above[:, None, :]
        off_diagonal = tf.linalg.set_diag(off_diagonal, tf.zeros_like(above))
        sums = ends + above * to_boundary
        pivot = tf.linalg.diag(sums + below + tf.reduce_sum(off_diagonal, axis=-1)) - off_diagonal
        inverse = tf.linalg.cholesky_solve(tf.linalg.cholesky(pivot), identity)
        return inverse, tf.linalg.matvec(inverse, sums)

    start = tf.zeros_like(identity), tf.ones_like(coupling[0])
    return tf.scan(next_pivot, (coupling[:height], coupling[1:], ends, neighbours), start)[0]


# A function of its own: forward accumulation passes by custom gradients in graphs, not by those of a function call.
@functools.partial(tf.function, autograph=False)
def _substitute(inverses, across_rows, right_side):
    """u `[B, H, W]` from the pivots' inverses: linear in the right side, and its own transpose."""

    @tf.custom_gradient
    def substitute(right_side):
        coupling, rows = tf.transpose(across_rows, [1, 0, 2]), tf.transpose(right_side, [1, 0, 2])
        zero, height = tf.zeros_like(rows[0]), rows.shape[0]
        # z_i = S_i^-1 (b_i + E_i z_{i-1}), then u_i = z_i + S_i^-1 E_{i+1} u_{i+1}, and 0 beyond the last row.
        partial = tf.scan(
            lambda above, row: tf.linalg.matvec(row[0], row[2] + row[1] * above),
            (inverses, coupling[:height], rows),
            zero,
        )
        u = tf.scan(
            lambda below, row: row[2] + tf.linalg.matvec(row[0], row[1] * below),
            (inverses, coupling[1:], partial),
            zero,
            reverse=True,
        )
        return tf.transpose(u, [1, 0, 2]), lambda w: _substitute(inverses, across_rows, w)

    return substitute(right_side)
