"""The residual of each example to first order, r + J dx, and its damped minimum: dense or without matrices."""

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import batched, derivatives
from keras_sip.ops.conjugate_gradient import cgls
from keras_sip.ops.eigen import orthogonal_columns
from keras_sip.solvers.problem import half_square

LINEAR_SOLVERS = ("auto", "dense", "conjugate_gradient")
# A dense step takes one product with J for each component, then about 10 n^2 m operations; CG takes two products and
# ends after n steps in theory. Above this size CG is the quicker one (benchmarks/solvers.py).
LARGEST_DENSE = 16


class DenseModel:
    """J `[B, m, n]` by automatic differentiation; steps by its singular values, in float64.

    J^T J, whose condition is that of J squared, is never formed. Directions whose singular value is a rounding of the
    largest are left alone: the step is the shortest one where J is rank-deficient.
    """

    def __init__(self, problem, x):
        self.residual = problem.residual(x)
        self._x = x
        jacobian = tf.cast(derivatives.jacobian(problem.residual, x), tf.float64)
        self._unit = batched.safe_scale(jacobian)[:, None, None]
        self._jacobian = jacobian / self._unit
        self._misfit = tf.cast(tf.reshape(self.residual, [-1, jacobian.shape[1]]), tf.float64)[:, :, None]

    def gradient_size(self):
        """max |J^T r| `[B]`."""
        gradient = self._unit * tf.linalg.matmul(self._jacobian, self._misfit, transpose_a=True)
        return tf.cast(batched.max_abs(gradient), self._x.dtype)

    def column_norms(self):
        """sqrt(diag(J^T J)) in the shape of x."""
        norms = self._unit[:, 0] * tf.sqrt(tf.reduce_sum(tf.square(self._jacobian), axis=1))
        return tf.reshape(tf.cast(norms, self._x.dtype), tf.shape(self._x))

    def minimizer(self, x_unit=None):
        """damping `[B]` -> (dx, decrease): dx minimises |r + J dx|^2 + damping |dx / x_unit|^2.

        The decrease is that of 1/2 |r + J dx|^2 plus the damping's share, by a formula without cancellation.
        """
        jacobian, units = self._jacobian * self._unit, 1.0
        if x_unit is not None:
            units = tf.cast(tf.reshape(x_unit, [-1, 1, jacobian.shape[2]]), tf.float64)
            jacobian *= units
        scale = batched.safe_scale(jacobian)[:, None, None]
        columns, basis = orthogonal_columns(jacobian / scale)
        squares = tf.reduce_sum(tf.square(columns), axis=1)
        rounding = max(jacobian.shape[1:]) * np.finfo(self._x.dtype.as_numpy_dtype).eps
        seen = squares > rounding**2 * tf.reduce_max(squares, axis=1, keepdims=True)
        slopes = tf.reduce_sum(columns * self._misfit, axis=1)
        slopes = tf.where(seen, slopes, tf.zeros_like(slopes))

        def minimize(damping):
            damping = tf.cast(damping, tf.float64)[:, None] / tf.square(scale[:, 0])
            curvatures = tf.where(seen, squares + damping, tf.ones_like(squares))
            components = -slopes / curvatures
            decrease = 0.5 * tf.reduce_sum((squares + 2 * damping) * tf.square(components), axis=1)
            dx = tf.linalg.matmul(basis, components[:, :, None]) / scale
            dx = dx * tf.linalg.matrix_transpose(units) if x_unit is not None else dx
            return tf.reshape(tf.cast(dx, self._x.dtype), tf.shape(self._x)), tf.cast(decrease, self._x.dtype)

        return minimize


class MatrixFreeModel:
    """Products with J and J^T only; steps by conjugate gradients on the normal equations (CGLS)."""

    def __init__(self, problem, x, cg_steps, cg_tolerance, probes):
        self.residual, self._jvp, self._vjp = problem.linearize(x)
        self._x, self._probes = x, probes
        self._cg = {"max_steps": cg_steps, "tolerance": cg_tolerance}

    def gradient_size(self):
        """max |J^T r| `[B]`."""
        return batched.max_abs(self._vjp(self.residual))

    def column_norms(self):
        """sqrt(diag(J^T J)) from J^T w, w the unit vectors, or fewer vectors of random signs: an unbiased estimate."""
        residual, components = self.residual, self.residual.shape[1:].num_elements()
        if components <= self._probes:
            probes = np.eye(components).reshape(components, 1, *residual.shape[1:])
        else:
            # The same signs for every example and call: an example's result depends on nothing else.
            signs = np.random.default_rng(17).choice([-1.0, 1.0], (self._probes, 1, *residual.shape[1:]))
            probes = signs / np.sqrt(self._probes)
        count, probes = len(probes), tf.constant(probes, residual.dtype)

        def add(index, total):
            return index + 1, total + tf.square(self._vjp(tf.zeros_like(residual) + probes[index]))

        return tf.sqrt(tf.while_loop(lambda index, total: index < count, add, (0, tf.zeros_like(self._x)))[1])

    def minimizer(self, x_unit=None):
        """As that of `DenseModel`, as far as CG goes."""
        unit = tf.ones_like(self._x) if x_unit is None else x_unit

        def minimize(damping):
            solution = cgls(
                lambda v: self._jvp(unit * v),
                lambda w: unit * self._vjp(w),
                self.residual,
                damping=damping,
                **self._cg,
            ).solution
            dx = unit * solution
            # |r|^2 - |r + J dx|^2 for a CG iterate; the difference itself would drown in rounding.
            return dx, half_square(self._jvp(dx)) + 2 * damping * half_square(solution)

        return minimize


def linear_model(problem, x, solver, probes=1):
    """The dense or matrix-free model that a solver's options ask for."""
    dense = solver.linear_solver == "dense"
    if dense or (solver.linear_solver == "auto" and x.shape[1:].num_elements() <= LARGEST_DENSE):
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
