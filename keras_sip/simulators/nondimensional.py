"""A simulator in the units that a network likes: x = x_scale * z with z near 1."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.simulators.base import Context, Simulator
from keras_sip.simulators.wrapper import SimulatorWrapper


@keras.saving.register_keras_serializable(package="keras_sip")
class Nondimensional(SimulatorWrapper):
    """The process P'(z) = P(x_scale * z), whose unknown z has components near 1.

    SIP training is invariant to the units of x, but two things around it are not: the outputs of a network and the norm
    |x - x_tilde|^2 of its proxy loss. Posed in z, both are measured in `x_scale`, and the solver, the layer and their
    laws need no change. Everything but x is handed through to the wrapped simulator.

    Args:
        simulator: The simulator in physical units.
        x_scale: Broadcast against `[B, *x_shape]`; None takes `simulator.x_scale`.
    """

    adds_abilities = False
    x_scale = 1.0

    def __init__(self, simulator: Simulator, x_scale: Any = None):
        super().__init__(simulator)
        # NumPy, not a tensor: a graph that captures a tensor cannot be exported to ONNX.
        self.scale = _checked_scale(simulator, x_scale)

    @functools.cached_property
    def diagonal_form(self):
        """That of the wrapped simulator, where all components of x have one scale."""
        form, scale = self.physical.diagonal_form, np.unique(self.scale)
        return form._replace(transfer=form.transfer * scale) if form is not None and scale.size == 1 else None

    def to_physical(self, z: Any) -> Any:
        """x of z."""
        return self.scale * z

    def from_physical(self, x: Any) -> Any:
        """z of x."""
        return x / self.scale

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.physical.forward(self.to_physical(x), context)

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.from_physical(self.physical.inverse(y_target, self.to_physical(x_near), context))

    @property
    def reverse_form(self):
        form = self.physical.reverse_form
        return form and form._replace(
            parameters=lambda x, context: form.parameters(self.to_physical(x), context),
            from_parameters=lambda parameters, context: self.from_physical(form.from_parameters(parameters, context)),
            mismatch=lambda x, y_target, context: form.mismatch(self.to_physical(x), y_target, context),
        )

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        sample = self.physical.sample(batch_size, seed)
        return {**sample, "x": self.from_physical(sample["x"])}

    def project(self, x: tf.Tensor, observation: Any) -> tf.Tensor:
        return self.from_physical(self.physical.project(self.to_physical(x), observation))

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        return self.physical.distance(self.to_physical(x), self.to_physical(x_ref))

    def as_x(self, x: Any) -> tf.Tensor:
        z = Simulator.as_x(self, x)
        # What the wrapped simulator asks of a user's x, it asks of x, not of z.
        self.physical.as_x(self.to_physical(z))
        return z

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "x_scale": self.scale.tolist()}

    def __repr__(self) -> str:
        return f"Nondimensional({self.physical!r})"


def _checked_scale(simulator, x_scale):
    scale = np.asarray(simulator.x_scale if x_scale is None else x_scale, simulator.dtype)
    fits = scale.ndim <= len(simulator.x_shape) and all(
        given in (1, size) for given, size in zip(scale.shape[::-1], simulator.x_shape[::-1], strict=False)
    )
    if not fits or not np.all(np.isfinite(scale) & (scale > 0)):
        raise ValueError(
            three_part(
                f"`x_scale` to be positive numbers that broadcast to {tuple(simulator.x_shape)}",
                f"x_scale={x_scale!r} of shape {scale.shape}",
                "Pass one number, or one for each entry of the last axis of x.",
            )
        )
    return scale
