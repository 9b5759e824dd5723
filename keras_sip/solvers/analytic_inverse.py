"""The inverse that the simulator knows."""

import dataclasses

import keras
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, Status
from keras_sip.solvers.problem import InverseProblem


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AnalyticInverse(InverseSolver):
    """U = P^-1(y* | x0) - x0, with the exact or local inverse `simulator.inverse(y_target, x_near)`.

    Direct: one step, no simulation. Here the solution itself is known and the difference is the definition of U, good
    to the rounding of x. Where P is linear and exactly inverted, x_tilde = x0 + U is x* and SIP training is
    supervised regression.

    Scale law: any map of x and any unit of y, for an exact inverse.

    Source: the paper, Section 2.1, "inverse simulators".
    """

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

    def check(self, simulator):
        super().check(simulator)
        if not simulator.has("inverse"):
            raise TypeError(
                three_part(
                    "a simulator that defines `inverse(self, y_target, x_near, context=None)`",
                    f"{simulator!r}, which does not",
                    "Add the method, or use a solver that needs none: GaussNewton() or LevenbergMarquardt().",
                )
            )

    def refining(self, max_steps):
        return self.with_options(on_failure="keep_best")

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        update = simulator.inverse(y_target, x0, context) - x0
        finite = batched.all_finite(update)
        status = tf.where(finite, int(Status.CONVERGED), int(Status.NON_FINITE))
        problem = InverseProblem(simulator, y_target, context)
        if self.on_failure == "keep_best":
            problem = problem.scaled_at(x0, y0)
            better = problem.objective(x0 + update) < problem.objective(x0)
            update = batched.where_example(better, update, tf.zeros_like(update))
        return self.finish(problem, x0, update, status, tf.cast(finite, tf.int32), evaluate_result)
