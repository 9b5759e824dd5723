"""The paper's inverse solver of the fluid: parameters of x corrected along a run backward in time."""

import dataclasses

import keras
import tensorflow as tf

from keras_sip.errors import check_number, three_part
from keras_sip.simulators.abilities import Ability
from keras_sip.solvers.base import InverseSolver, Step


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReverseSimulation(InverseSolver):
    """x_tilde = the member of a known family of x whose parameters a reverse run has corrected: p + gain * e(x).

    p are the parameters read off x; e is what the run forward from x and the run backward from the observation miss
    each other by (`simulator.reverse_form`). What x holds beyond the family is dropped; a solver after it in a `Chain`
    can find it. A step costs two simulations.

    For `NavierStokes` the family is a swirl in a known uniform velocity, e a mismatch of centres of mass; only the
    strength of the swirl is corrected.

    Scale law: any map of x and any unit of y, as far as the family and e know of neither.

    Source: the paper, Section 4 "Navier-Stokes".

    Args:
        gain: The paper's is 1e-3, the same for all examples. None takes the simulator's own, for each example from
            how much its observation tells of the parameters.
    """

    gain: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.gain is not None:
            check_number("gain", self.gain, exclusive=True)

    def check(self, simulator):
        super().check(simulator)
        if not simulator.has(Ability.REVERSE_FORM):
            raise TypeError(
                three_part(
                    "a simulator with a `reverse_form`: a process that can be run backward in time",
                    f"{simulator!r}, which has none",
                    "Add the property, a ReverseForm, or use a solver that needs none: LevenbergMarquardt().",
                )
            )

    def step(self, problem, x, state):
        simulator, context = problem.simulator, problem.context
        form = simulator.reverse_form
        mismatch, y = form.mismatch(x, problem.y_target, context)
        gain = form.gain(context) if self.gain is None else self.gain
        corrected = form.from_parameters(form.parameters(x, context) + gain * mismatch, context)
        objective = simulator.objective(y, problem.y_target, context) / tf.square(problem.scale)
        zeros = tf.zeros_like(objective, tf.int32)
        # The difference is the definition of U: x_tilde itself is known, as with an exact inverse.
        return Step(corrected - x, objective, converged=zeros > 0, failure=zeros, state=state, x=corrected)
