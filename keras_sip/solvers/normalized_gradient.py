"""Gradient descent by steps of one length: the direction of the gradient, but not its size."""

import dataclasses

import keras
import tensorflow as tf

from keras_sip.errors import check_choice, check_number
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, Status, Step, unit


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NormalizedGradient(InverseSolver):
    """dx = -step_size * g / |g|, with the gradient g of L at x.

    |g| is the Euclidean norm over the components of an example ("l2"), or their root mean square ("rms"), whose steps
    do not shrink by component as a grid is refined. Where g is 0 and L is not, the status says BREAKDOWN.

    Scale law: rotations of x turn the update, a change of the unit of x keeps its length a number of the new units.
    Any unit of y.

    Source: the paper, Section 4, "Rescaled" of Figure 2; Nesterov, Introductory Lectures on Convex Optimization (2004),
    Section 3.2.3, for steps of a length of their own.

    Args:
        step_size: Length of the step, in units of x.
        norm: "l2" or "rms", the norm in which the step has that length.
    """

    step_size: float = 1.0
    norm: str = "l2"

    def __post_init__(self):
        super().__post_init__()
        check_number("step_size", self.step_size, exclusive=True)
        check_choice("norm", self.norm, ("l2", "rms"))

    def step(self, problem, x, state):
        objective, gradient = problem.gradient(x)
        length = self.step_size * (x.shape[1:].num_elements() ** 0.5 if self.norm == "rms" else 1.0)
        return directed_step(objective, gradient, -length * unit(gradient), state)


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SignStep(InverseSolver):
    """dx_j = -step_size * sign(g_j), the same step for every component.

    In one dimension the `NormalizedGradient`. A component without slope stays; where g is 0 and L is not, the status
    says BREAKDOWN.

    Scale law: changes of sign and order of the components of x. Any unit of y.

    Source: the paper, Section 4, "Rescaled" of Figure 2, in one dimension; Riedmiller and Braun, A direct adaptive
    method for faster backpropagation learning: the RPROP algorithm (1993), Eq. 3, without its adaptation.

    Args:
        step_size: Length of the step of each component, in units of x.
    """

    step_size: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_number("step_size", self.step_size, exclusive=True)

    def step(self, problem, x, state):
        objective, gradient = problem.gradient(x)
        return directed_step(objective, gradient, -self.step_size * tf.sign(gradient), state)


def directed_step(objective, gradient, update, state):
    """The `Step` by `update`, which follows the gradient's direction and is not defined where that vanishes."""
    slope = batched.max_abs(gradient)
    failure = tf.where(slope > 0, 0, tf.where(slope == 0, int(Status.BREAKDOWN), int(Status.NON_FINITE)))
    return Step(update, objective, converged=tf.zeros_like(failure) > 0, failure=failure, state=state)
