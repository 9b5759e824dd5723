"""The inverse that the simulator knows."""

import dataclasses

import keras

from keras_sip.errors import three_part
from keras_sip.simulators.abilities import Ability
from keras_sip.solvers.direct_inverse import DirectInverse


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AnalyticInverse(DirectInverse):
    """U = P^-1(y* | x0) - x0, with the exact or local inverse `simulator.inverse(y_target, x_near)`.

    Direct: one step, no simulation. Here the solution itself is known and the difference is the definition of U, good
    to the rounding of x. Where P is linear and exactly inverted, x_tilde = x0 + U is x* and SIP training is
    supervised regression.

    Scale law: any map of x and any unit of y, for an exact inverse.

    Source: the paper, Section 2.1, "inverse simulators".
    """

    def check(self, simulator):
        super().check(simulator)
        if not simulator.has(Ability.INVERSE):
            raise TypeError(
                three_part(
                    "a simulator that defines `inverse(self, y_target, x_near, context=None)`",
                    f"{simulator!r}, which does not",
                    "Add the method, or use a solver that needs none: GaussNewton() or LevenbergMarquardt().",
                )
            )

    def direct_solution(self, problem, x0, y0):
        x = problem.simulator.inverse(problem.y_target, x0, problem.context)
        return x, x - x0
