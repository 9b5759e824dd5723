"""The residual of each example to first order, r + J dx, and its damped minimum: dense or without matrices."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import batched
from keras_sip.ops.conjugate_gradient import cgls
from keras_sip.ops.eigen import orthogonal_columns
from keras_sip.ops.trust_region import solve_positive
from keras_sip.solvers.problem import PROBES, ROUNDINGS, half_square, projected_column_norms, slopes

LINEAR_SOLVERS = ("auto", "dense", "conjugate_gradient")
# A dense step takes one product with J for each component of x or y, whichever has fewer, then about 10 n^2 m
# operations; CG takes two products and ends after n steps in theory. Above this size CG is the quicker one
# (benchmarks/solvers.py).
LARGEST_DENSE = 16
# A step without matrices that promises no more than this part of L may be the last.
LITTLE = 1e-4


class Singular(NamedTuple):
    """J D^-1 by its singular values, k = min(m, n), in float64.

    Attributes:
        squares: sigma^2 `[B, k]`.
        columns: sigma_i u_i, `[B, m, k]`.
        basis: v_i as columns, `[B, n, k]`.
        slopes: sigma_i u_i . r, `[B, k]`; 0 where a singular value is nothing but rounding.
        seen: Where a singular value is more than rounding, boolean `[B, k]`.
        unit: D `[B, n]`.
    """

    squares: tf.Tensor
    columns: tf.Tensor
    basis: tf.Tensor
    slopes: tf.Tensor
    seen: tf.Tensor
    unit: tf.Tensor

    def slopes_of(self, misfit):
        """sigma_i u_i . misfit, `[B, k]`, of a vector `[B, m]`."""
        slopes = tf.linalg.matvec(self.columns, misfit, transpose_a=True)
        return tf.where(self.seen, slopes, tf.zeros_like(slopes))

    def curvatures(self):
        """sigma^2, and 1 along directions that are not seen."""
        return tf.where(self.seen, self.squares, tf.ones_like(self.squares))

    def square_length(self, components):
        """|J dx|^2 `[B]` of a step with these components."""
        return tf.reduce_sum(self.squares * tf.square(components), axis=1)


class FirstOrder(NamedTuple):
    """What an undamped step tells of the point: see `DenseModel.first_order`."""

    is_rounding: tf.Tensor
    # Of 1/2 |r|^2, in units of the residual.
    decrease: tf.Tensor
    measures: dict


class DenseModel:
    """J `[B, m, n]` by automatic differentiation; steps by the singular values of J D^-1, D the norms of its columns.

    J^T J, whose condition is that of J squared, is never formed. Scaled like that, what a singular value tells of the
    rank does not depend on the units of x. Directions whose singular value is a rounding of the largest are left alone.
    """

    def __init__(self, problem, x):
        self._x, self._problem = x, problem
        self._y, self.residual, jacobian = problem.jacobian(x)
        # In units of the residual here: far from where the solver started its squares may not be representable.
        self.unit = tf.cast(batched.safe_scale(self.residual), tf.float64)
        self._jacobian = tf.cast(jacobian, tf.float64) / self.unit[:, None, None]
        # Column by column, for squares of what float64 holds need not be representable.
        largest = tf.reduce_max(tf.abs(self._jacobian), axis=1, keepdims=True)
        largest = tf.where(largest > 0, largest, tf.ones_like(largest))
        norms = tf.sqrt(tf.reduce_sum(tf.square(self._jacobian / largest), axis=1))
        self._norms = norms * largest[:, 0]
        self._misfit = self.misfit(self.residual)
        self._scaled = self._jacobian / _safe(self._norms)[:, None]
        self._gradient = tf.linalg.matvec(self._scaled, self._misfit, transpose_a=True)

    def column_norms(self):
        """sqrt(diag(J^T J)) in the shape of x, in the units of `InverseProblem`."""
        return self._like_x(self._norms * self.unit[:, None])

    def is_flat(self):
        """Where J vanishes, boolean `[B]`."""
        return batched.max_abs(self._norms) == 0

    def is_finite(self):
        """Whether J and r are finite, boolean `[B]`."""
        return batched.all_finite(self._gradient)

    def slopes(self):
        """(optimality, is_rounding) `[B]`: see `problem.slopes`."""
        return slopes(self._misfit, self._gradient, tf.cast(self._norms > 0, tf.float64), self.rounding())

    def rounding(self):
        """See `InverseProblem.rounding`, in units of the residual."""
        return tf.cast(self._problem.rounding(self._x, self._y, self.column_norms()), tf.float64) / self.unit

    def singular(self, scaling=None):
        """The `Singular` values of J D^-1; D in the shape of x, by default the norms of the columns of J."""
        norms = self._norms
        if scaling is not None:
            norms = tf.cast(tf.reshape(scaling, tf.shape(norms)), tf.float64) / self.unit[:, None]
        unit = _safe(norms)
        scaled = self._jacobian / unit[:, None]
        rows, size = scaled.shape[1:]
        if size <= rows:
            columns, basis = _orthogonal_tall(scaled)
            squares = tf.reduce_sum(tf.square(columns), axis=1)
        else:
            # The few rows of a wide J: those of its transpose are rotated until they are orthogonal.
            rotated, left = orthogonal_columns(tf.linalg.matrix_transpose(scaled))
            squares = tf.reduce_sum(tf.square(rotated), axis=1)
            values = tf.sqrt(squares)
            columns, basis = left * values[:, None], rotated / _safe(values)[:, None]
        # A column is good to some roundings of its own norm, which D may exceed; the decomposition to those of float64.
        precise = np.finfo(self._x.dtype.as_numpy_dtype).eps
        rounding = max(ROUNDINGS * min(rows, size) * precise, max(rows, size) * np.finfo("float64").eps)
        noise = tf.linalg.matvec(tf.square(basis), tf.square(rounding * self._norms / unit), transpose_a=True)
        seen = squares > noise
        singular = Singular(squares, columns, basis, 0.0 * squares, seen, unit)
        return singular._replace(slopes=singular.slopes_of(self._misfit))

    def normal_equations(self):
        """damping `[B]` -> (dx, decrease, slope) of the minimum of |r + J dx|^2 + damping |D dx|^2.

        By D^-1 J^T J D^-1, without a decomposition of J: the damping bounds its condition, and must be large beside the
        rounding of float64. `slope` is what the slope of 1/2 |r|^2 makes of the step, `[B]`.
        """
        usable, size = self.is_finite(), self._scaled.shape[2]
        identity = tf.eye(size, dtype=tf.float64)
        square = tf.linalg.matmul(self._scaled, self._scaled, transpose_a=True)
        square = batched.where_example(usable, square, tf.zeros_like(square) + identity)
        gradient = batched.where_example(usable, self._gradient, tf.zeros_like(self._gradient))

        def minimize(damping):
            components = -solve_positive(square + damping[:, None, None] * identity, gradient)
            slope = -tf.reduce_sum(gradient * components, axis=1)
            decrease = 0.5 * (slope + damping * tf.reduce_sum(tf.square(components), axis=1))
            return self._like_x(components / _safe(self._norms)), decrease, slope

        return minimize

    def displacement(self, singular, components):
        """dx in the shape of x of a step with these components along the basis."""
        return self._like_x(tf.linalg.matvec(singular.basis, components) / singular.unit)

    def product(self, dx):
        """J dx `[B, m]`, in float64 and units of the residual."""
        return tf.linalg.matvec(self._jacobian, tf.cast(tf.reshape(dx, tf.shape(self._norms)), tf.float64))

    def misfit(self, residual):
        """A residual as `[B, m]`, in float64 and units of the residual at the start of the step."""
        return tf.cast(tf.reshape(residual, [-1, self._jacobian.shape[1]]), tf.float64) / self.unit[:, None]

    def square_of(self, residual):
        """Half its square `[B]`, summed in float64, in the same units."""
        return 0.5 * tf.reduce_sum(tf.square(self.misfit(residual)), axis=1)

    def gauss_newton_step(self):
        """(dx, is_rounding, measures): the shortest of the steps that minimise |r + J dx|^2.

        is_rounding `[B]`: whether what it promises is all rounding. `measures` are what `Step` reports of the point.
        """
        singular = self.singular()
        components, decrease = damped(singular, tf.zeros([], tf.float64))
        dx = tf.linalg.matvec(singular.basis, components) / singular.unit
        lacking = ~tf.reduce_all(singular.seen, axis=1)
        if singular.basis.shape[1] > singular.basis.shape[2]:
            dx = _shortest(singular, components)
        else:
            anywhere = tf.reduce_any(lacking)
            shorter = tf.cond(anywhere, lambda: _shortest(singular, components), lambda: dx)
            dx = batched.where_example(lacking, shorter, dx)
        return self._like_x(dx), self.is_rounding(decrease), self._measures(decrease, singular, components)

    def first_order(self, singular):
        """The `FirstOrder` of an undamped step: whether what it promises is rounding, and how much that is."""
        components, decrease = damped(singular, tf.zeros([], tf.float64))
        return FirstOrder(self.is_rounding(decrease), decrease, self._measures(decrease, singular, components))

    def is_rounding(self, decrease):
        """Whether the decrease that an undamped step promises is all rounding, boolean `[B]`."""
        return tf.sqrt(2 * decrease) <= ROUNDINGS * self.rounding()

    def _measures(self, decrease, singular, components):
        """What `Step` reports of the point: optimality, and the decrease and the length of an undamped step."""
        objective = self.square_of(self.residual)
        # In units of the columns here, whatever they have been on the way.
        length, size = (
            batched.norm(self._norms * tf.cast(tf.reshape(each, tf.shape(self._norms)), tf.float64))
            for each in (tf.linalg.matvec(singular.basis, components) / singular.unit, self._x)
        )
        # No less than what the best column promises by itself: where columns have shrunk by far since D was measured,
        # the squares of their singular values underflow. What does not see x promises nothing: no convergence either.
        optimality = self.slopes()[0]
        relative = tf.maximum(decrease / _safe(objective), tf.square(tf.cast(optimality, decrease.dtype)))
        decrease = tf.where(self.is_flat(), tf.constant(np.nan, decrease.dtype), relative)
        return {
            "optimality": tf.cast(optimality, self._x.dtype),
            "decrease": tf.cast(decrease, self._x.dtype),
            "length": tf.cast(length / size, self._x.dtype),
        }

    def _like_x(self, values):
        return tf.reshape(tf.cast(values, self._x.dtype), tf.shape(self._x))


class MatrixFreeModel:
    """Products with J and J^T only; steps by conjugate gradients on the normal equations (CGLS)."""

    def __init__(self, problem, x, cg_steps, cg_tolerance, probes):
        self._x, self._problem, self._probes = x, problem, probes
        self._y, self.residual, self._jvp, self._vjp = problem.linearize(x)
        self._gradient = self._vjp(self.residual)
        self._cg = {"max_steps": cg_steps, "tolerance": cg_tolerance}

    def column_norms(self):
        """sqrt(diag(J^T J)) in the shape of x; an unbiased estimate of its square where y has more than `probes`."""
        return projected_column_norms(self.residual, self._vjp, self._x, self._probes)

    def is_flat(self):
        """Where J^T r vanishes, boolean `[B]`."""
        return batched.max_abs(self._gradient) == 0

    def is_finite(self):
        """Whether J^T r is finite, boolean `[B]`."""
        return batched.all_finite(self._gradient)

    def gauss_newton_step(self):
        """As that of `DenseModel`, as far as CG goes, and in plain units of x.

        What a step that CG found promises is checked column by column, which takes products, once it is little.
        """
        solution = cgls(self._jvp, self._vjp, self.residual, damping=0.0, **self._cg)
        dx = solution.solution
        decrease, objective = half_square(self._jvp(dx)), half_square(self.residual)
        worth_a_look = solution.converged & (decrease <= LITTLE * objective)
        unknown = tf.fill(tf.shape(objective), tf.constant(np.nan, objective.dtype)), tf.zeros_like(worth_a_look)
        optimality, is_rounding = tf.cond(
            tf.reduce_any(worth_a_look), lambda: self.slopes(self.column_norms()), lambda: unknown
        )
        optimality = tf.where(worth_a_look, optimality, unknown[0])
        # No less than what the best column promises by itself.
        decrease = tf.maximum(decrease / _safe(objective), tf.square(optimality))
        measures = {"optimality": optimality, "decrease": decrease, "length": batched.norm(dx) / batched.norm(self._x)}
        return dx, is_rounding & worth_a_look, measures

    def slopes(self, norms):
        """(optimality, is_rounding) `[B]`: see `problem.slopes`."""
        rounding = self._problem.rounding(self._x, self._y, norms)
        return slopes(self.residual, self._gradient, norms, rounding)

    def minimizer(self, scaling=None):
        """damping `[B]` -> (dx, decrease): dx minimises |r + J dx|^2 + damping |D dx|^2 as far as CG goes.

        The decrease is that of 1/2 |r + J dx|^2 plus the damping's share.
        """
        unit = 1.0 / tf.where(scaling > 0, scaling, tf.ones_like(scaling)) if scaling is not None else 1.0

        def minimize(damping):
            solution = cgls(
                lambda v: self._jvp(unit * v),
                lambda w: unit * self._vjp(w),
                self.residual,
                damping=damping,
                **self._cg,
            ).solution
            # |r|^2 - |r + J dx|^2 for a CG iterate; the difference itself would drown in rounding.
            return unit * solution, half_square(self._jvp(unit * solution)) + 2 * damping * half_square(solution)

        return minimize


def _orthogonal_tall(matrix):
    """`orthogonal_columns` of a matrix with many more rows than columns, by way of its triangular factor."""
    rows, size = matrix.shape[1:]
    if rows <= 2 * size:
        return orthogonal_columns(matrix)
    finite = batched.all_finite(matrix)
    frame, triangle = tf.linalg.qr(batched.where_example(finite, matrix, tf.zeros_like(matrix)))
    columns, basis = orthogonal_columns(triangle)
    nan = tf.constant(np.nan, matrix.dtype)
    return tuple(
        batched.where_example(finite, part, nan * tf.ones_like(part)) for part in (tf.matmul(frame, columns), basis)
    )


def _safe(values):
    return tf.where(values > 0, values, tf.ones_like(values))


def damped(singular, damping):
    """(components `[B, k]` along the basis, decrease `[B]`) of the minimum of |r + J dx|^2 + damping |D dx|^2.

    The decrease is that of 1/2 |r + J dx|^2 plus the damping's share, by a formula without cancellation.
    """
    curvatures = tf.where(singular.seen, singular.squares + damping, tf.ones_like(singular.squares))
    components = -singular.slopes / curvatures
    return components, 0.5 * tf.reduce_sum((singular.squares + 2 * damping) * tf.square(components), axis=1)


def _shortest(singular, components):
    """The shortest dx `[B, n]` with v_i . D dx = c_i for the directions that are seen."""
    rows = tf.where(singular.seen[:, None], singular.basis * singular.unit[:, :, None], 0.0 * singular.basis)
    size = tf.sqrt(tf.reduce_sum(tf.square(rows), axis=1, keepdims=True))
    size = tf.where(size > 0, size, tf.ones_like(size))
    orthogonal, rotation = orthogonal_columns(rows / size)
    squares = tf.reduce_sum(tf.square(orthogonal), axis=1)
    wanted = tf.linalg.matvec(rotation, components / size[:, 0], transpose_a=True)
    usable = squares > (rows.shape[1] * np.finfo("float64").eps) ** 2
    return tf.linalg.matvec(orthogonal, tf.where(usable, wanted / tf.where(usable, squares, 1.0), 0.0 * wanted))


def is_dense(x_shape, y_shape, linear_solver):
    """Whether a solver with that option forms J: "auto" does where x or y has few components."""
    few = min(math.prod(x_shape), math.prod(y_shape)) <= LARGEST_DENSE
    return linear_solver == "dense" or (linear_solver == "auto" and few)


def linear_model(problem, x, solver, probes=PROBES):
    """The dense or matrix-free model that a solver's options ask for."""
    if is_dense(problem.simulator.x_shape, problem.simulator.y_shape, solver.linear_solver):
        return DenseModel(problem, x)
    return MatrixFreeModel(problem, x, solver.cg_steps, solver.cg_tolerance, probes)


def check_linear_options(solver):
    """Check the options that choose the linear model."""
    check_choice("linear_solver", solver.linear_solver, LINEAR_SOLVERS)
    check_positive_int("cg_steps", solver.cg_steps)
    check_number("cg_tolerance", solver.cg_tolerance)


def check_least_squares(simulator, solver):
    """Refuse a simulator whose objective is no half sum of squares."""
    if not simulator.is_least_squares:
        raise TypeError(
            three_part(
                "a simulator whose objective is 1/2 sum r^2",
                f"{simulator!r}, which overrides `objective`",
                f"{type(solver).__name__} needs a residual: define `residual(self, y, y_target, context=None)` instead "
                "of `objective`, or use SaddleFreeNewton(), LBFGS() or GradientDescent().",
            )
        )
