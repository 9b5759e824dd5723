"""Gauss-Newton: for any differentiable simulator, no knowledge of its inverse."""

import dataclasses

import keras
import tensorflow as tf

from keras_sip.solvers.base import InverseSolver, Status, Step
from keras_sip.solvers.linear_model import check_least_squares, check_linear_options, linear_model
from keras_sip.solvers.problem import seen_half_square


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussNewton(InverseSolver):
    """dx = argmin 1/2 |r + J dx|^2, the shortest such step where there are several.

    Dense where x has few components: by the singular values of J, so that the condition of J is not squared. Without
    matrices above: by conjugate gradients on J^T J dx = -J^T r with products of J and J^T only, about three simulations
    each. CG meets the best-determined directions first and stops before the worst, which regularises; more `cg_steps`
    go further.

    Scale law: any invertible map of x, for full-rank J and where CG converges (cg_steps at least the number of
    components, a small cg_tolerance); stopped early, only rotations and a common factor. Any unit of y.

    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., Section 10.3; CGLS as in Björck 1996, Algorithm 7.4.1.

    Args:
        linear_solver: "dense", "conjugate_gradient", or "auto": dense up to 16 components of x.
        cg_steps: CG steps at most in each Gauss-Newton step.
        cg_tolerance: CG stops where |J^T (r + J dx)| has fallen to this fraction of |J^T r|.
    """

    linear_solver: str = "auto"
    cg_steps: int = 20
    cg_tolerance: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        check_linear_options(self)

    def check(self, simulator):
        super().check(simulator)
        check_least_squares(simulator, self)

    def step(self, problem, x, state):
        model = linear_model(problem, x, self)
        objective = seen_half_square(model.residual)
        update, is_rounding, measures = model.gauss_newton_step()
        stuck = (model.is_flat() | ~model.is_finite()) & (objective > 0)
        reason = tf.where(model.is_finite(), int(Status.BREAKDOWN), int(Status.NON_FINITE))
        return Step(
            update=update,
            objective=objective,
            converged=is_rounding & ~stuck,
            failure=tf.where(stuck, reason, 0),
            state=state,
            **measures,
        )
