"""The inverse problem that a solver sees: one batch, with residuals measured in units of their own size."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.ops import batched, derivatives
from keras_sip.simulators.abilities import Ability

# Of x and of y: what these leave of a residual is no slope any more. A simulation has a few of its own.
ROUNDINGS = 4
# Up to so many components of x or y the columns of J are measured one by one, above by random projections.
LARGEST_EXACT = 16
PROBES = 8


class Evaluation(NamedTuple):
    """What is known of a point, per example.

    Attributes:
        y: P(x) `[B, *y_shape]`.
        objective: L in physical units `[B]`.
        optimality: See `SolverResult`, `[B]`.
        is_rounding: Whether what is left of the slope is all rounding, boolean `[B]`.
    """

    y: tf.Tensor
    objective: tf.Tensor
    optimality: tf.Tensor
    is_rounding: tf.Tensor


class QuadraticModel(NamedTuple):
    """The second-order Taylor expansion of L / m^2, x flattened; in float64 but for the objective.

    Attributes:
        objective: `[B]`, in the simulator's precision.
        gradient: `[B, n]`.
        squared: J^T J `[B, n, n]`; the whole Hessian where L is no half sum of squares.
        bending: What the Hessian has beyond it, `[B, n, n]`.
        norms: Those of the columns of J, in the shape of x; of no half sum of squares 1 / x_scale.
        rounding: Of the residual, `[B]`: see `InverseProblem.rounding`; 0 where L is no half sum of squares.
        optimality: See `SolverResult`, `[B]`.
    """

    objective: tf.Tensor
    gradient: tf.Tensor
    squared: tf.Tensor
    bending: tf.Tensor
    norms: tf.Tensor
    rounding: tf.Tensor
    optimality: tf.Tensor


class InverseProblem:
    """Find x with P(x) = y_target, for every example of a batch.

    Residual and objective are divided by m and m^2, m `[B]` the largest magnitude of the example's residual where the
    solver starts (sqrt |L| there, where L is no half sum of squares), so that nothing over- or underflows in float32
    for observations in units of 1e-25 to 1e25. Solutions, and the updates of scale-invariant solvers, do not depend
    on m.

    Args:
        simulator: The process P.
        y_target: The observation, `[B, *y_shape]`.
        context: What is known of each example, or None.
        scale: m `[B]`; None is 1. `scaled_at(x)` measures it.
    """

    def __init__(self, simulator, y_target, context=None, scale=None):
        self.simulator, self.y_target, self.context = simulator, y_target, context
        self.scale = tf.ones(tf.shape(y_target)[:1], y_target.dtype) if scale is None else scale
        # L / m^2 `[B]` below which refinement would fit noise, or None: see `discrepancy`.
        self.enough = None

    def scaled_at(self, x, y=None):
        """The same problem in units of its residual at x; y = P(x) where it is known already."""
        y = self.simulator.forward(x, self.context) if y is None else y
        if self.simulator.is_least_squares:
            scale = batched.safe_scale(self.simulator.residual(y, self.y_target, self.context))
        else:
            scale = tf.sqrt(batched.safe_scale(self.simulator.objective(y, self.y_target, self.context)))
        return InverseProblem(self.simulator, self.y_target, self.context, scale)

    def residual(self, x):
        """r / m `[B, ...]` at x."""
        return self._scaled(self._raw_residual(x))

    def objective(self, x):
        """L / m^2 `[B]` at x."""
        return self.objective_of(self.simulator.forward(x, self.context))

    def objective_of(self, y):
        """L / m^2 `[B]` where P(x) = y."""
        if self.simulator.is_least_squares:
            return seen_half_square(self._scaled(self.simulator.residual(y, self.y_target, self.context)))
        return self.simulator.objective(y, self.y_target, self.context) / tf.square(self.scale)

    def linearize(self, x):
        """(y, r / m, jvp, vjp) at x: P(x), the residual, and products with its Jacobian J / m and the transpose."""
        observed, seen = self._observed()
        residual, jvp, vjp = derivatives.linearize(observed, x)
        # Derivatives of FFTs forget sizes that loops must know.
        return (
            seen[0],
            residual,
            lambda v: tf.ensure_shape(jvp(v), residual.shape),
            lambda w: tf.ensure_shape(vjp(w), x.shape),
        )

    def jacobian(self, x):
        """(y, r / m, J / m) at x, J dense `[B, m, n]`: for few components of x or of y."""
        observed, seen = self._observed()
        jacobian = derivatives.jacobian(observed, x)
        return seen[0], seen[1], jacobian

    def _observed(self):
        """(x -> r / m, a list of the y and the r / m that it has met): derivatives evaluate it once."""
        seen = []

        def observed(x):
            y = self.simulator.forward(x, self.context)
            residual = self._scaled(self.simulator.residual(y, self.y_target, self.context))
            seen.extend((y, residual))
            return residual

        return observed, seen

    def gradient(self, x):
        """(L / m^2, its gradient) at x."""
        objective, gradient = derivatives.gradient(self.objective, x)
        # Derivatives of FFTs forget sizes that loops must know.
        return objective, tf.ensure_shape(gradient, x.shape)

    def evaluate(self, x):
        """The `Evaluation` of x: one simulation, and the products that measure the columns of J."""
        if self.simulator.is_least_squares and self._has_few_components():
            y, value, columns = self.jacobian(x)
            objective = self.simulator.objective(y, self.y_target, self.context)
            flat = tf.reshape(value, [-1, columns.shape[1]])
            gradient = tf.reshape(tf.linalg.matvec(columns, flat, transpose_a=True), tf.shape(x))
            norms = _norms_of_columns(columns, x)
            return Evaluation(y, objective, *slopes(value, gradient, norms, self.rounding(x, y, norms)))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = self.simulator.forward(x, self.context)
            if self.simulator.is_least_squares:
                value = self._scaled(self.simulator.residual(y, self.y_target, self.context))
            else:
                value = self.simulator.objective(y, self.y_target, self.context) / tf.square(self.scale)

        def vjp(w):
            gradient = tape.gradient(value, x, output_gradients=w, unconnected_gradients="zero")
            return tf.ensure_shape(gradient, x.shape)

        objective = self.simulator.objective(y, self.y_target, self.context)
        if not self.simulator.is_least_squares:
            gradient = vjp(tf.ones_like(value))
            return Evaluation(y, objective, *self.scaled_slope(value, gradient))
        gradient, norms = vjp(value), projected_column_norms(value, vjp, x, PROBES)
        return Evaluation(y, objective, *slopes(value, gradient, norms, self.rounding(x, y, norms)))

    def scaled_slope(self, objective, gradient):
        """(optimality, is_rounding) of an objective that is no half sum of squares: max_j |g_j| x_scale_j / |L|."""
        steepest = batched.max_abs(gradient * tf.constant(self.simulator.x_scale, gradient.dtype))
        size = tf.abs(objective)
        level = steepest == 0
        return tf.where(level, steepest, steepest / size), level

    def rounding(self, x, y, norms):
        """|e| / m `[B]`: what rounding of x and y makes of the residual.

        That of y counts whole: a simulation has more than the last one. That of x is at most half a unit in the last
        place of each component, and of random sign; beside an observation it counts no more than that.

        Args:
            norms: Those of the columns of J / m, in the shape of x.
        """
        if self.simulator.has(Ability.RESIDUAL):
            step = np.sqrt(np.finfo(y.dtype.as_numpy_dtype).eps)
            moved, here = (
                self._scaled(self.simulator.residual(point, self.y_target, self.context)) for point in (y + step * y, y)
            )
            of_y = batched.norm(moved - here) / step
        else:
            of_y = batched.norm(self._scaled(y))
        of_x = 0.25 * batched.norm(norms * x)
        observed = batched.norm(self._scaled(self.y_target))
        of_x = tf.where(observed > 0, tf.minimum(of_x, observed), of_x)
        return np.finfo(x.dtype.as_numpy_dtype).eps * (of_x + of_y)

    def observed_size(self):
        """|y_target| / m `[B]`; 0 where the simulator has a residual of its own, which need not be like y."""
        if self.simulator.has(Ability.RESIDUAL):
            return tf.zeros_like(self.scale)
        return batched.norm(self._scaled(self.y_target))

    def _has_few_components(self):
        """Whether a dense Jacobian costs no more than the products that would estimate its columns."""
        return min(math.prod(self.simulator.x_shape), math.prod(self.simulator.y_shape)) <= LARGEST_EXACT

    def quadratic_model(self, x):
        """The `QuadraticModel` of the objective at x, dense: for x of few components.

        For L = 1/2 sum r^2 the Hessian is J^T J + S, S = sum_k r_k d^2 r_k / dx^2. In float32 the sum keeps nothing of
        an eigenvalue 1e7 times below the largest. J and S by themselves are good to the rounding of their entries, and
        float64 holds products of float32 numbers exactly: so the sums are taken there.
        """
        if not self.simulator.is_least_squares:
            objective, gradient = self.gradient(x)
            hessian = tf.cast(derivatives.hessian(self.objective, x), tf.float64)
            norms = tf.ones_like(x) / tf.constant(self.simulator.x_scale, x.dtype)
            optimality, _ = self.scaled_slope(objective, gradient)
            return QuadraticModel(
                objective, _flat(gradient), hessian, 0.0 * hessian, norms, 0.0 * objective, optimality
            )
        y, residual, jacobian = self.jacobian(x)
        jacobian = tf.cast(jacobian, tf.float64)
        bending = derivatives.hessian(lambda x: batched.dot(tf.stop_gradient(residual), self.residual(x)), x)
        gradient = tf.linalg.matvec(jacobian, _flat(residual), transpose_a=True)
        squared = tf.linalg.matmul(jacobian, jacobian, transpose_a=True)
        norms = tf.reshape(tf.cast(tf.sqrt(tf.linalg.diag_part(squared)), x.dtype), tf.shape(x))
        rounding = self.rounding(x, y, norms)
        optimality, _ = slopes(residual, tf.reshape(tf.cast(gradient, x.dtype), tf.shape(x)), norms, rounding)
        return QuadraticModel(
            half_square(residual), gradient, squared, tf.cast(bending, tf.float64), norms, rounding, optimality
        )

    def scale_square(self):
        """m^2 `[B, 1]`, in float64, which holds it for every m of float32; times it, L / m^2 is L again."""
        return tf.square(tf.cast(self.scale, tf.float64))[:, None]

    def physical_gradient(self, x, factor):
        """(L / m^2, factor * dL/dx) at x, where L itself is in physical units.

        The factor enters before the transposed Jacobian: factor * r * J survives in float32 where r * J underflows.
        """
        if not self.simulator.is_least_squares:
            scaled, gradient = self.gradient(x)
            return scaled, batched.expand(factor * tf.square(self.scale), gradient) * gradient
        with tf.GradientTape() as tape:
            tape.watch(x)
            residual = self._raw_residual(x)
        gradient = tape.gradient(residual, x, output_gradients=factor * residual, unconnected_gradients="zero")
        return half_square(self._scaled(residual)), tf.ensure_shape(gradient, x.shape)

    def _raw_residual(self, x):
        return self.simulator.residual(self.simulator.forward(x, self.context), self.y_target, self.context)

    def _scaled(self, residual):
        # A product: XLA would make (r / m) / m, a part of J^T r / m^2, into r / (m m): 0 or inf in float32.
        return residual * batched.expand(1.0 / self.scale, residual)


def slopes(residual, gradient, norms, rounding):
    """(optimality, is_rounding) `[B]` of 1/2 sum r^2: the largest cosine between r and a column of J.

    It does not depend on the units of x and y. Where it is no larger than `ROUNDINGS` of x and y make it, all of the
    slope is rounding. Where J vanishes there is no slope to judge by: NaN, and no rounding.

    Args:
        residual: r `[B, ...]`.
        gradient: J^T r in the shape of x.
        norms: Those of the columns of J, in the shape of x.
        rounding: Of r, `[B]`: see `InverseProblem.rounding`.

    Source: Moré, The Levenberg-Marquardt algorithm: implementation and theory (1978), the test of `gtol` in MINPACK.
    """
    along = batched.max_abs(tf.abs(gradient) / tf.where(norms > 0, norms, tf.ones_like(norms)))
    size = batched.norm(residual)
    cosine = along / tf.where(size > 0, size, tf.ones_like(size))
    is_flat = (batched.max_abs(norms) == 0) & (size > 0)
    # More than 1 is rounding, or what random projections miss.
    optimality = tf.where(is_flat, tf.constant(np.nan, cosine.dtype), tf.minimum(cosine, tf.ones_like(cosine)))
    return optimality, (along <= ROUNDINGS * rounding) & ~is_flat


def _norms_of_columns(columns, x):
    """sqrt(diag(J^T J)) in the shape of x, of J `[B, m, n]`."""
    unit = batched.expand(batched.safe_scale(columns), columns)
    norms = unit[:, 0] * tf.sqrt(tf.reduce_sum(tf.square(columns / unit), axis=1))
    return tf.reshape(norms, tf.shape(x))


def projected_column_norms(residual, vjp, x, count):
    """sqrt(diag(J^T J)) from J^T w, w the unit vectors, or fewer vectors of random signs: an unbiased estimate.

    Args:
        residual: `[B, ...]`, what the columns are like.
        vjp: w -> J^T w.
        x: What the rows are like.
        count: Products at most.
    """
    components = residual.shape[1:].num_elements()
    if components <= count:
        probes = np.eye(components).reshape(components, 1, *residual.shape[1:])
    else:
        # The same signs for every example and call: an example's result depends on nothing else.
        signs = np.random.default_rng(17).choice([-1.0, 1.0], (count, 1, *residual.shape[1:]))
        probes = signs / np.sqrt(count)
    count, probes = len(probes), tf.constant(probes, residual.dtype)

    def add(index, total):
        return index + 1, total + tf.square(vjp(tf.zeros_like(residual) + probes[index]))

    return tf.sqrt(tf.while_loop(lambda index, total: index < count, add, (0, tf.zeros_like(x)))[1])


def half_square(residual):
    """1/2 sum r^2 per example `[B]`."""
    return 0.5 * tf.reduce_sum(tf.square(residual), axis=list(range(1, residual.shape.rank)))


def seen_half_square(residual):
    """1/2 sum r^2 per example `[B]`, never 0 where r is not: what underflows is no solution."""
    square = half_square(residual)
    tiny = tf.constant(np.finfo(square.dtype.as_numpy_dtype).tiny, square.dtype)
    return tf.where((square == 0) & (batched.max_abs(residual) > 0), tiny, square)


def _flat(tensor):
    """`[B, n]` in float64."""
    return tf.cast(tf.reshape(tensor, [-1, tensor.shape[1:].num_elements()]), tf.float64)
