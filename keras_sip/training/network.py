"""ScaledNetwork: a network as training methods meet it, between numbers near 1."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops import batched
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.base import SCALE_SAMPLES, Simulator, join_observation, root_mean_square
from keras_sip.training.physics import ScaledPhysics


class ScaledNetwork:
    """z = network(network_input(observation) / input_scale), moved to what is known of x; and a step of its weights.

    A network of several inputs takes a dict of them from `network_input`; only floating-point ones are divided.

    Args:
        network: A built Keras model.
        physics: What tells the network's input, and projects its output.
        input_scale: Size of the network's inputs by channel, for several inputs a dict of such; None measures it on the
            simulator's samples, where it has them, and is 1 elsewhere.

    Attributes:
        optimizer: What `apply_update` steps with; set when the model is compiled.
    """

    def __init__(self, network: keras.Model, physics: ScaledPhysics, input_scale: Any = None):
        self.network, self.physics = network, physics
        scale = _measured_input_scale(physics.simulator) if input_scale is None else input_scale
        self.input_scale = _by_input(np.asarray, scale)
        self.optimizer: Any = None

    def with_network(self, network: keras.Model) -> "ScaledNetwork":
        """The same around another network."""
        return ScaledNetwork(network, self.physics, self.input_scale)

    @property
    def trainable_variables(self) -> list:
        return self.network.trainable_variables

    def __call__(self, observation: Any, *, training: bool) -> tuple[tf.Tensor, list]:
        """(z, penalties): the network's x in units of x_scale `[B, *x_shape]`, and its weight penalties."""
        simulator, scaled = self.physics.simulator, self.physics.scaled
        inputs = self._scaled(simulator.network_input(observation))
        z = tf.cast(self.network(inputs, training=training), simulator.dtype)
        penalties = list(self.network.losses)
        if simulator.has(Ability.PROJECT):
            z = scaled.project(z, observation)
        return z, penalties

    def _scaled(self, inputs):
        if isinstance(inputs, dict):
            scales = self.input_scale if isinstance(self.input_scale, dict) else dict.fromkeys(inputs, self.input_scale)
            return {name: _divided(entry, scales.get(name, 1.0)) for name, entry in inputs.items()}
        return _divided(inputs, self.input_scale)

    def apply_update(
        self, tape: tf.GradientTape, z: tf.Tensor, penalties: list, update: tf.Tensor, weight: tf.Tensor
    ) -> None:
        """One optimizer step on sum_i weight_i 1/2 |z_i - (z_i + U_i)|^2, plus the network's penalties.

        `update` enters as the cotangent of z: formed as a loss, a small U would be lost in z + U.
        """
        variables = self.trainable_variables
        if not variables:
            raise ValueError(
                three_part(
                    "a network with trainable weights",
                    f"{self.network.name!r}, all of whose weights are frozen",
                    "Set `trainable = True` for some of its layers and compile the model again; a model that is only "
                    "to predict or refine needs no fit.",
                )
            )
        scale = self.optimizer.scale_loss(tf.ones([]))
        cotangent = -update * batched.expand(weight * tf.cast(scale, z.dtype), update)
        gradients = tape.gradient(
            [z, *penalties],
            variables,
            output_gradients=[cotangent, *(tf.cast(scale, penalty.dtype) for penalty in penalties)],
        )
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))


def updates_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The variable that counts the gradients given to an optimizer.

    `optimizer.iterations` counts changes of the weights, fewer with gradient accumulation, and stays 0 for the
    optimizer that Keras wraps around one for float16.
    """
    return getattr(optimizer, "inner_optimizer", optimizer).variables[0]


def _measured_input_scale(simulator: Simulator) -> Any:
    """Root mean square of the network's inputs by channel, on samples; 1 where there are none."""
    if not simulator.has(Ability.SAMPLE):
        return 1.0
    sample = simulator.sample(SCALE_SAMPLES, (0, 0))
    inputs = simulator.network_input(join_observation(sample["y"], sample.get("context")))
    return _by_input(lambda entry: root_mean_square(entry) if entry.dtype.is_floating else 1.0, inputs)


def _by_input(function, inputs):
    """`function` of the network's input, or of each of several."""
    return {name: function(entry) for name, entry in inputs.items()} if isinstance(inputs, dict) else function(inputs)


def _divided(entry, scale):
    return entry / tf.cast(scale, entry.dtype) if entry.dtype.is_floating else entry
