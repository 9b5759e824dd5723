"""DirectInverse: what solvers have in common that get to the solution in one step."""

import dataclasses

import tensorflow as tf

from keras_sip.errors import must_define, three_part
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, Status
from keras_sip.solvers.problem import InverseProblem


@dataclasses.dataclass(frozen=True, kw_only=True)
class DirectInverse(InverseSolver):
    """A solver with a formula for U: one step, no iterations.

    **Must override** `direct_update(problem, x0, y0)`; or `direct_solution`, where x is known better than as x0 + U.
    """

    # The status of an example that was solved.
    solved = Status.CONVERGED

    def __post_init__(self):
        super().__post_init__()
        if self.max_steps != 1:
            raise ValueError(
                three_part(
                    "max_steps=1: a direct inverse takes one step",
                    f"max_steps={self.max_steps}",
                    "Leave max_steps out, or use an iterative solver such as GaussNewton(max_steps=...).",
                )
            )

    def direct_update(self, problem, x0, y0):
        """U `[B, *x_shape]` for an `InverseProblem` in physical units; y0 is P(x0), or None where it is not known."""
        raise must_define(
            self,
            "direct_update(self, problem, x0, y0)",
            "a direct inverse without it",
            "Return the change of x0 that solves the problem.",
        )

    def direct_solution(self, problem, x0, y0):
        """(x, U), each as well as it is known; by default x = x0 + U."""
        update = self.direct_update(problem, x0, y0)
        return x0 + update, update

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        problem = InverseProblem(simulator, y_target, context)
        x, update = self.direct_solution(problem, x0, y0)
        finite = batched.all_finite(update)
        status = tf.where(finite, int(self.solved), int(Status.NON_FINITE))
        return self.finish(problem, x0, update, status, tf.cast(finite, tf.int32), evaluate_result, x=x)
