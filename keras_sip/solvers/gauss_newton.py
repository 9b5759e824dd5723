"""Gauss-Newton without matrices: for any differentiable simulator, no knowledge of its inverse."""

import dataclasses

import keras
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.ops.conjugate_gradient import cgls
from keras_sip.solvers.base import InverseSolver, Status, Step
from keras_sip.solvers.problem import half_square


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussNewton(InverseSolver):
    """dx = argmin 1/2 |r + J dx|^2, by conjugate gradients on J^T J dx = -J^T r with products of J and J^T only.

    One CG step costs about three simulations. CG meets the best-determined directions first and stops before the
    worst, which regularises; more `cg_steps` go further.

    Scale law: any invertible map of x where CG converges (cg_steps at least the number of components, a small
    cg_tolerance); stopped early, only rotations and a common factor. Any unit of y.

    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., Section 10.3; CGLS as in Björck 1996, Algorithm 7.4.1.

    Args:
        cg_steps: CG steps at most in each Gauss-Newton step.
        cg_tolerance: CG stops where |J^T (r + J dx)| has fallen to this fraction of |J^T r|.
    """

    cg_steps: int = 20
    cg_tolerance: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        check_positive_int("cg_steps", self.cg_steps)
        check_number("cg_tolerance", self.cg_tolerance)

    def check(self, simulator):
        super().check(simulator)
        check_least_squares(simulator, self)

    def step(self, problem, x, state):
        residual, jvp, vjp = problem.linearize(x)
        solution = cgls(jvp, vjp, residual, damping=0.0, max_steps=self.cg_steps, tolerance=self.cg_tolerance)
        objective = half_square(residual)
        # |r|^2 - |r + J dx|^2 = |J dx|^2 for every CG iterate; the difference itself would drown in rounding.
        decrease = half_square(jvp(solution.solution)) if self.tolerance > 0 else objective
        # CG takes no step where J^T r is 0, and none where it is not finite.
        stuck = (solution.num_steps == 0) & (objective > 0)
        reason = tf.where(tf.math.is_finite(solution.residual_norm), int(Status.BREAKDOWN), int(Status.NON_FINITE))
        return Step(
            update=solution.solution,
            objective=objective,
            converged=(decrease <= self.tolerance**2 * objective) & ~stuck,
            failure=tf.where(stuck, reason, 0),
            state=state,
        )


def check_least_squares(simulator, solver):
    """Refuse a simulator whose objective is no half sum of squares."""
    if not simulator.is_least_squares:
        raise TypeError(
            three_part(
                "a simulator whose objective is 1/2 sum r^2",
                f"{simulator!r}, which overrides `objective`",
                f"{type(solver).__name__} needs a residual: define `residual(self, y, y_target, context=None)` instead "
                "of `objective`, or use GradientDescent().",
            )
        )
