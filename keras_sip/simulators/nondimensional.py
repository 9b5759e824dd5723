"""A simulator in the units that a network likes: x = x_scale * z with z near 1."""

import functools

import keras
import numpy as np

from keras_sip.errors import three_part
from keras_sip.simulators.base import Simulator, check_simulator_interface


@keras.saving.register_keras_serializable(package="keras_sip")
class Nondimensional(Simulator):
    """The process P'(z) = P(x_scale * z), whose unknown z has components near 1.

    SIP training is invariant to the units of x, but two things around it are not: the outputs of a network and the norm
    |x - x_tilde|^2 of its proxy loss. Posed in z, both are measured in `x_scale`, and the solver, the layer and their
    laws need no change. Everything but x is handed through to the wrapped simulator.

    Args:
        simulator: The simulator in physical units.
        x_scale: Broadcast against `[B, *x_shape]`; None takes `simulator.x_scale`.
    """

    def __init__(self, simulator, x_scale=None):
        self.physical = check_simulator_interface(simulator)
        self.x_shape, self.y_shape, self.dtype = simulator.x_shape, simulator.y_shape, simulator.dtype
        self.prefers_xla = simulator.prefers_xla
        # NumPy, not a tensor: a graph that captures a tensor cannot be exported to ONNX.
        self.scale = _checked_scale(simulator, x_scale)

    x_scale = 1.0

    @functools.cached_property
    def diagonal_form(self):
        """That of the wrapped simulator, where all components of x have one scale."""
        form, scale = self.physical.diagonal_form, np.unique(self.scale)
        return form._replace(transfer=form.transfer * scale) if form is not None and scale.size == 1 else None

    def to_physical(self, z):
        return self.scale * z

    def from_physical(self, x):
        return x / self.scale

    def forward(self, x, context=None):
        return self.physical.forward(self.to_physical(x), context)

    def residual(self, y, y_target, context=None):
        return self.physical.residual(y, y_target, context)

    def objective(self, y, y_target, context=None):
        return self.physical.objective(y, y_target, context)

    def inverse(self, y_target, x_near, context=None):
        return self.from_physical(self.physical.inverse(y_target, self.to_physical(x_near), context))

    @property
    def reverse_form(self):
        form = self.physical.reverse_form
        return form and form._replace(
            parameters=lambda x, context: form.parameters(self.to_physical(x), context),
            from_parameters=lambda parameters, context: self.from_physical(form.from_parameters(parameters, context)),
            mismatch=lambda x, y_target, context: form.mismatch(self.to_physical(x), y_target, context),
        )

    def sample(self, batch_size, seed):
        sample = self.physical.sample(batch_size, seed)
        return {**sample, "x": self.from_physical(sample["x"])}

    def network_input(self, observation):
        return self.physical.network_input(observation)

    def project(self, x, observation):
        return self.from_physical(self.physical.project(self.to_physical(x), observation))

    def distance(self, x, x_ref):
        return self.physical.distance(self.to_physical(x), self.to_physical(x_ref))

    def has(self, method):
        return self.physical.has(method)

    def get_config(self):
        return {
            "simulator": keras.saving.serialize_keras_object(self.physical),
            "x_scale": self.scale.tolist(),
        }

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["simulator"]), config["x_scale"])

    def __repr__(self):
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
