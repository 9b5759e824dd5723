"""Gradient descent in x: the solver that turns SIP training back into ordinary back-propagation."""

import dataclasses

import keras
import tensorflow as tf

from keras_sip.errors import check_number
from keras_sip.solvers.base import InverseSolver, Step


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientDescent(InverseSolver):
    """dx = -step_size * dL/dx.

    One step of size 1 is the adjoint vector of back-propagation (Eq. 8), so training with it equals training end to
    end: a reference for tests and comparisons.

    Scale law: none. x = A x' gives U' = A^T U instead of A^-1 U, and y -> c y multiplies U by c^2.

    Source: the paper, Section 2 (Eq. 2 with H the identity).

    Args:
        step_size: eta; it has the units of x^2 / y^2.
    """

    step_size: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_number("step_size", self.step_size, exclusive=True)

    def step(self, problem, x, state):
        objective, scaled_gradient = problem.physical_gradient(x, self.step_size)
        zeros = tf.zeros_like(objective, tf.int32)
        return Step(-scaled_gradient, objective, converged=zeros > 0, failure=zeros, state=state)
