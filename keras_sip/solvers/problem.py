"""The inverse problem that a solver sees: one batch, with residuals measured in units of their own size."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.ops import batched, derivatives


class QuadraticModel(NamedTuple):
    """The second-order Taylor expansion of L / m^2, x flattened; in float64 but for the objective.

    Attributes:
        objective: `[B]`, in the simulator's precision.
        gradient: `[B, n]`.
        hessian: `[B, n, n]`.
        gradient_rounding: What rounding makes of a component of the gradient, relative to the largest, a number.
        hessian_rounding: What rounding makes of an eigenvalue of the Hessian, `[B]`.
    """

    objective: tf.Tensor
    gradient: tf.Tensor
    hessian: tf.Tensor
    gradient_rounding: float
    hessian_rounding: tf.Tensor


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
        if self.simulator.is_least_squares:
            return half_square(self.residual(x))
        y = self.simulator.forward(x, self.context)
        return self.simulator.objective(y, self.y_target, self.context) / tf.square(self.scale)

    def linearize(self, x):
        """(r / m, jvp, vjp) at x: the residual and products with its Jacobian J / m and with the transpose."""
        residual, jvp, vjp = derivatives.linearize(self.residual, x)
        # Derivatives of FFTs forget sizes that loops must know.
        return (
            residual,
            lambda v: tf.ensure_shape(jvp(v), residual.shape),
            lambda w: tf.ensure_shape(vjp(w), x.shape),
        )

    def gradient(self, x):
        """(L / m^2, its gradient) at x."""
        objective, gradient = derivatives.gradient(self.objective, x)
        # Derivatives of FFTs forget sizes that loops must know.
        return objective, tf.ensure_shape(gradient, x.shape)

    def quadratic_model(self, x):
        """The `QuadraticModel` of the objective at x, dense: for x of few components.

        For L = 1/2 sum r^2 the Hessian is J^T J + S, S = sum_k r_k d^2 r_k / dx^2. In float32 the sum keeps nothing of
        an eigenvalue 1e7 times below the largest. J and S by themselves are good to the rounding of their entries, and
        float64 holds products of float32 numbers exactly: so the sums are taken there.
        """
        rounding = np.finfo(x.dtype.as_numpy_dtype).eps * x.shape[1:].num_elements()
        if not self.simulator.is_least_squares:
            objective, gradient = self.gradient(x)
            hessian = tf.cast(derivatives.hessian(self.objective, x), tf.float64)
            return QuadraticModel(objective, _flat(gradient), hessian, rounding, rounding * batched.max_abs(hessian))
        residual = self.residual(x)
        jacobian = tf.cast(derivatives.jacobian(self.residual, x), tf.float64)
        bending = derivatives.hessian(lambda x: batched.dot(tf.stop_gradient(residual), self.residual(x)), x)
        bending = tf.cast(bending, tf.float64)
        square = tf.linalg.matmul(jacobian, jacobian, transpose_a=True)
        of_square = rounding**2 + np.finfo("float64").eps * x.shape[1:].num_elements()
        return QuadraticModel(
            objective=half_square(residual),
            gradient=tf.linalg.matvec(jacobian, _flat(residual), transpose_a=True),
            hessian=square + bending,
            gradient_rounding=rounding,
            hessian_rounding=of_square * batched.max_abs(square) + rounding * batched.max_abs(bending),
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


def half_square(residual):
    """1/2 sum r^2 per example `[B]`."""
    return 0.5 * tf.reduce_sum(tf.square(residual), axis=list(range(1, residual.shape.rank)))


def _flat(tensor):
    """`[B, n]` in float64."""
    return tf.cast(tf.reshape(tensor, [-1, tensor.shape[1:].num_elements()]), tf.float64)
