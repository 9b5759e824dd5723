"""Newton's method by the magnitudes of the eigenvalues: always downhill, and never towards a saddle."""

import dataclasses

import keras
import tensorflow as tf

from keras_sip.errors import check_number
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver
from keras_sip.solvers.curvature import check_few_components, curvature, curvature_step, newton_components


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SaddleFreeNewton(InverseSolver):
    """dx_j = -step_size * g_j / (|lambda_j| + damping) along each eigenvector j of the Hessian of L.

    Directions of small curvature, whose lambda_j is at most the geometric mean of all |lambda|, ask for long steps on
    which the quadratic model need not hold. Along them two limits bound |g_j dx_j|, the change of L that the slope
    predicts: `max_loss_change` by a fixed amount, the paper's 0.2, which stops acting as losses shrink, and
    `max_relative_loss_change` by a multiple of the example's own L: 2 gives |dx_j| <= 2 L / |g_j|, what a Newton step
    to L = 0 takes. Where a direction has slope but no curvature, and no limit is set, the status says BREAKDOWN.

    In float32 too, a small eigenvalue is good to about the rounding of J: J^T J and the rest of the Hessian are
    differentiated apart and summed in float64 (see `InverseProblem.quadratic_model`).

    Dense: for x of at most 256 components; in closed form up to 2. The simulator must have second derivatives.

    Scale law, without damping and limits: where the Hessian is positive definite any invertible map of x, else
    rotations and a common factor. Any unit of y, also with `max_relative_loss_change`.

    Source: Dauphin et al., Identifying and attacking the saddle point problem in high-dimensional non-convex
    optimization (2014), Algorithm 1; the limit: the paper, Section 4 (rotated sine).

    Args:
        step_size: Factor on the step.
        damping: Added to every |lambda_j|, in units of L / x^2.
        max_loss_change: Limit of |g_j dx_j| in units of L, or None.
        max_relative_loss_change: Limit of |g_j dx_j| / L, or None.
        curvature_power: p. Component j of the step is multiplied by |lambda_j|^p, lambda_j in units of L / x^2, which
            weights the network's errors by what they cost in y: 0 is the solver's step in x, 1 is downhill in L. Used
            in training, with one step; `refine` leaves it out.
    """

    step_size: float = 1.0
    damping: float = 0.0
    max_loss_change: float | None = None
    max_relative_loss_change: float | None = None
    curvature_power: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_number("step_size", self.step_size, exclusive=True)
        check_number("damping", self.damping)
        check_number("curvature_power", self.curvature_power)
        for name in ("max_loss_change", "max_relative_loss_change"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), exclusive=True)

    def check(self, simulator):
        super().check(simulator)
        check_few_components(simulator, self)

    def refiner(self):
        return self.with_options(curvature_power=0.0)

    def step(self, problem, x, state):
        model = problem.quadratic_model(x)
        damping = self.damping / problem.scale_square() if self.damping > 0 else None
        along = curvature(model, problem.simulator.dtype, scaled=False)
        magnitudes = tf.abs(along.eigenvalues)
        lengths = tf.abs(along.slopes) / (magnitudes if damping is None else magnitudes + damping)
        limits = self._limits(problem, model, along, magnitudes)
        undefined = along.is_flat & ~along.is_level & (self.damping == 0)
        if limits is not None:
            lengths = tf.minimum(lengths, limits)
            undefined &= ~tf.math.is_finite(limits)
        ignored = along.is_flat & along.is_level
        lengths = tf.where(ignored, tf.zeros_like(lengths), self.step_size * lengths)
        if self.curvature_power > 0:
            lengths *= tf.pow(magnitudes * problem.scale_square(), self.curvature_power)
        displacement = along.displacement(-tf.sign(along.slopes) * lengths)
        undefined = tf.reduce_any(undefined, axis=1)

        scaled = curvature(model, problem.simulator.dtype, damping=damping)
        if limits is None and self.curvature_power == 0:
            # Where L is convex the step is Newton's, and there the units of x need not be alike.
            components, singular = newton_components(scaled)
            newton = self.step_size * scaled.displacement(components)
            displacement = batched.where_example(scaled.is_convex, newton, displacement)
            undefined = tf.where(scaled.is_convex, singular, undefined)
        return curvature_step(x, model, scaled, displacement, undefined)

    def _limits(self, problem, model, along, magnitudes):
        """Longest step along each eigenvector `[B, n]`, infinite where curvature is large; None without limits."""
        changes = []
        if self.max_loss_change is not None:
            changes.append(self.max_loss_change / problem.scale_square())
        if self.max_relative_loss_change is not None:
            objective = tf.abs(tf.cast(model.objective, tf.float64))[:, None]
            changes.append(self.max_relative_loss_change * objective)
        if not changes:
            return None
        mean = tf.exp(tf.reduce_mean(tf.math.log(magnitudes), axis=1, keepdims=True))
        # In one dimension the logarithm and its inverse may round the mean to below the eigenvalue itself.
        small = along.eigenvalues <= mean * (1 + 1e-12)
        infinity = tf.constant(float("inf"), tf.float64)
        return tf.where(small, tf.minimum(changes[0], changes[-1]) / tf.abs(along.slopes), infinity)
