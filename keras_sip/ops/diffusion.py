"""Steady diffusion through a medium that varies from cell to cell, solved directly for each example."""

import numpy as np
import tensorflow as tf

# Logarithm of the largest over the smallest coefficient of an example, up to which float64 factorises safely.
LARGEST_LOG_CONTRAST = 30.0


def solve_diffusion(log_coefficient: tf.Tensor, source: tf.Tensor, *, spacing: float = 1.0) -> tf.Tensor:
    """u with  -div(a grad u) = f  on a rectangle, u = 0 on its boundary;  a = exp(log_coefficient).

    Finite volumes: the flux between two cells is T (u_i - u_j), T the harmonic mean 2 a_i a_j / (a_i + a_j); to the
    boundary, half a cell away, T = 2 a_i. The sum of the fluxes out of a cell is f dx^2. Second order in dx for smooth
    a; fluxes are right where a jumps between cells.

    The equations are factorised once, by block elimination along the first axis, and the factors serve all derivatives
    of the solution: the operator is its own transpose, so that a gradient is one more solution. All is computed in
    float64, and diagonals as sums of positive terms instead of differences, so that no digits are lost at any contrast
    up to e^30. An example that is not finite or has more contrast than that becomes NaN; the others do not see it.

    Args:
        log_coefficient: log a at the cell centres, `[B, H, W]`.
        source: f, `[B, H, W]`, or what broadcasts to it.
        spacing: dx, the width of a cell.

    Source: R. Eymard, T. Gallouet, R. Herbin, Finite Volume Methods (2000), Section 3.1; the sums of positive
    terms: J. M. Pena, LDU decompositions with L and U well conditioned, ETNA 18 (2004).
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
    per_axis = []
    for axis in (1, 2):
        first, last = (tf.gather(a, [index], axis=axis) for index in (0, a.shape[axis] - 1))
        lower, upper = (tf.gather(a, range(start, a.shape[axis] - 1 + start), axis=axis) for start in (0, 1))
        per_axis.append(tf.concat([2 * first, 2 * lower * upper / (lower + upper), 2 * last], axis=axis))
    return per_axis


def _solve(across_rows, across_columns, right_side):
    """A^-1 b for the faces' T, differentiable to any order; the factors are computed once for all of them."""
    if across_rows.shape[1] - 1 < across_rows.shape[2]:
        # The blocks are as large as a row is long: the shorter the better.
        turned = [tf.linalg.matrix_transpose(part) for part in (across_columns, across_rows, right_side)]
        return tf.linalg.matrix_transpose(_solve(*turned))
    across_rows_, across_columns_ = tf.stop_gradient(across_rows), tf.stop_gradient(across_columns)
    inverses = _factorise(across_rows_, across_columns_)

    def solve(across_rows, across_columns, right_side):
        known = []

        @tf.custom_gradient
        def solution_of(across_rows, across_columns, right_side):
            u = _substitute(inverses, across_rows_, tf.stop_gradient(right_side))
            # One step of refinement: it adds nothing but rounding, and forward accumulation, which in graphs passes by
            # custom gradients, finds in it the derivative that there is.
            remainder = right_side - _apply(across_rows, across_columns, u)
            u += _substitute(inverses, across_rows_, remainder)

            def gradient(w):
                # The solution as the outside knows it, whose own derivatives second ones need; forward accumulation
                # asks before there is an outside.
                outside = known[0] if known else u
                adjoint = solve(across_rows, across_columns, w)
                return (
                    -_differences(adjoint, 1) * _differences(outside, 1),
                    -_differences(adjoint, 2) * _differences(outside, 2),
                    adjoint,
                )

            return u, gradient

        known.append(solution_of(across_rows, across_columns, right_side))
        return known[0]

    return solve(across_rows, across_columns, right_side)


def _apply(across_rows, across_columns, u):
    """A u: the sum of the fluxes out of each cell."""
    rows, columns = across_rows * _differences(u, 1), across_columns * _differences(u, 2)
    return rows[:, :-1] - rows[:, 1:] + columns[:, :, :-1] - columns[:, :, 1:]


def _differences(u, axis):
    """Differences across all faces along an axis; u = 0 beyond the first and the last."""
    paddings = [[0, 0], [0, 0], [0, 0]]
    paddings[axis] = [1, 1]
    padded = tf.pad(u, paddings)
    return padded[:, 1:] - padded[:, :-1] if axis == 1 else padded[:, :, 1:] - padded[:, :, :-1]


def _factorise(across_rows, across_columns):
    """The inverses of the pivots S_i of the block elimination along the rows, `[H, B, W, W]`.

    With E_i = diag(T) between row i - 1 and row i,  S_i = A_ii - E_i S_{i-1}^-1 E_i  has entries <= 0 off the diagonal
    and row sums v_i + E_{i+1} 1, v_i = T to the sides + E_i S_{i-1}^-1 v_{i-1}: nothing is ever subtracted.
    """
    height, width = across_columns.shape[1], across_rows.shape[2]
    coupling = tf.transpose(across_rows, [1, 0, 2])
    sides = tf.transpose(across_columns, [1, 0, 2])
    ends = tf.concat([sides[..., :1], tf.zeros_like(sides[..., 1:width]), sides[..., width:]], axis=-1)
    ends = ends[..., :width] + ends[..., 1:]
    neighbours = tf.linalg.diag(sides[..., 1:width], k=1) if width > 1 else tf.zeros_like(sides[..., :1, None])
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


def _substitute(inverses, across_rows, right_side):
    """u `[B, H, W]` from the pivots' inverses. Unrolled: half the time of a loop, and any derivative of it is plain."""
    inverses, coupling = tf.unstack(inverses), tf.unstack(across_rows, axis=1)
    rows = tf.unstack(right_side, axis=1)
    # z_i = S_i^-1 (b_i + E_i z_{i-1}), then u_i = z_i + S_i^-1 E_{i+1} u_{i+1}.
    for i, inverse in enumerate(inverses):
        rows[i] = tf.linalg.matvec(inverse, rows[i] + coupling[i] * rows[i - 1] if i else rows[i])
    for i in reversed(range(len(rows) - 1)):
        rows[i] += tf.linalg.matvec(inverses[i], coupling[i + 1] * rows[i + 1])
    return tf.stack(rows, axis=1)
