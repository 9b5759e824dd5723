"""Hessian-free optimization: Gauss-Newton steps in all weights of a network, found by conjugate gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int
from keras_sip.ops.truncated_cg import minimize_quadratic
from keras_sip.optimizers.second_order import LearningRate, SecondOrderOptimizer

if TYPE_CHECKING:
    from keras_sip.training.weight_problem import WeightProblem

# Levenberg's heuristic, Martens 2010, Section 4.1.
POOR, GOOD, RAISE, LOWER = 0.25, 0.75, 1.5, 2 / 3
LEAST_DAMPING, MOST_DAMPING = 1e-10, 1e10
# Share of the decrease that the slope promises which a step must bring.
SUFFICIENT_DECREASE = 1e-2


@keras.saving.register_keras_serializable(package="keras_sip")
class HessianFree(SecondOrderOptimizer):
    """Hessian-free optimization: the step p that lowers a damped quadratic model of the loss.

        q(p) = g . p + 1/2 p . (G + damping I) p,    G = J^T J,  L = 1/2 |r(w)|^2,  J = dr/dw
        w <- w + learning_rate * a * p,    a the first of 1, 1/2, 1/4 ... with  L(w + a p) <= L + 0.01 a g . p

    - p by conjugate gradients with the stopping rule of `minimize_quadratic`, from `momentum` times the p before.
    - G is the generalized Gauss-Newton matrix: r passes through network and simulator with method "adjoint". Products
      with it cost one forward and one backward sweep.
    - Damping by Levenberg's heuristic on rho = (L(w + p) - L) / q(p): times 3/2 where rho < 1/4, times 2/3 where
      rho > 3/4.

    Deviations from the source: (1) L is measured in units of its value at the start of each step, so that steps do not
    depend on the unit of y and one damping suits all experiments; (2) no preconditioner, which would need the gradient
    of each example, undefined under batch norm; (3) all of a step uses one batch.

    Where no a lowers the loss, or p is not finite, the weights stay and the damping rises.

    Source: Martens, Deep learning via Hessian-free optimization (2010), Algorithm 2.

    Args:
        learning_rate: Factor on the step, 1 in the source.
        damping: At the first step.
        cg_steps: Conjugate-gradient steps at most.
        cg_tolerance: Relative progress per step below which they end.
        momentum: Share of the last p from which they start.
        line_search_steps: Values of a tried.
        **kwargs: Of every Keras optimizer, except clipping and gradient accumulation.
    """

    needs_least_squares = True

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        damping: float = 1e-2,
        cg_steps: int = 50,
        cg_tolerance: float = 5e-4,
        momentum: float = 0.95,
        line_search_steps: int = 8,
        *,
        name: str = "hessian_free",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.initial_damping = check_number("damping", damping, exclusive=True)
        self.cg_steps = check_positive_int("cg_steps", cg_steps)
        self.cg_tolerance = check_number("cg_tolerance", cg_tolerance)
        self.momentum = check_number("momentum", momentum, maximum=1.0)
        self.line_search_steps = check_positive_int("line_search_steps", line_search_steps)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.damping = self.add_variable((), keras.initializers.Constant(self.initial_damping), name="damping")
        self._last_steps = [self.add_variable_from_reference(variable, "last_step") for variable in variables]

    def take_step(self, problem: "WeightProblem") -> None:
        model = problem.gauss_newton()
        damping = tf.cast(self.damping, problem.weights.dtype)
        minimizer = minimize_quadratic(
            lambda v: model.product(v) + damping * v,
            model.gradient,
            self.momentum * problem.join(self._last_steps),
            max_steps=self.cg_steps,
            tolerance=self.cg_tolerance,
        )
        direction = minimizer.point
        slope = tf.tensordot(model.gradient, direction, 1)
        # (L(w + p) - L) / q(p); both are negative where the model is right.
        change = model.loss_change(direction)
        agreement = tf.where(minimizer.value < 0, change / minimizer.value, -1.0)
        length, accepted = self._search(model, direction, slope, change)
        self._adapt(damping, tf.where(accepted, agreement, -1.0))
        for last, step in zip(self._last_steps, problem.split(direction), strict=True):
            last.assign(tf.where(accepted, step, tf.zeros_like(step)))
        step = tf.where(accepted, length * direction, tf.zeros_like(direction))
        self.change(problem.split(-step), problem.variables)

    def _search(self, model, direction, slope, change):
        """(a, whether it lowers the loss enough): halved from 1 on, whose change of the loss is known."""

        def enough(length, change):
            # NaN compares false.
            return (slope < 0) & (change <= SUFFICIENT_DECREASE * length * slope)

        def halve(length, change, tries):
            return length / 2, model.loss_change(length / 2 * direction), tries + 1

        length, change, _ = tf.while_loop(
            lambda length, change, tries: (slope < 0) & ~enough(length, change),
            halve,
            (tf.ones_like(change), change, tf.constant(1)),
            maximum_iterations=self.line_search_steps - 1,
        )
        return length, enough(length, change)

    def _adapt(self, damping, agreement):
        # NaN, of a loss that overflowed, counts as no agreement.
        poor = ~(agreement >= POOR)
        factor = tf.where(poor, RAISE, tf.where(agreement > GOOD, LOWER, 1.0))
        self.damping.assign(tf.clip_by_value(damping * tf.cast(factor, damping.dtype), LEAST_DAMPING, MOST_DAMPING))

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        self.assign_sub(variable, tf.cast(learning_rate, variable.dtype) * gradient)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "damping": self.initial_damping,
            "cg_steps": self.cg_steps,
            "cg_tolerance": self.cg_tolerance,
            "momentum": self.momentum,
            "line_search_steps": self.line_search_steps,
        }
