"""ScaledNetwork: a network as training methods meet it, between numbers near 1."""

from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops import batched
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.base import SCALE_SAMPLES, Simulator, join_observation, root_mean_square
from keras_sip.training.physics import ScaledPhysics


class ScaledNetwork:
    """z = network(network_input(observation) / input_scale), moved to what is known of x; and a step of its weights.

    Args:
        network: A built Keras model.
        physics: What tells the network's input, and projects its output.
        input_scale: Size of the network's inputs by channel; None measures it on the simulator's samples, where it has
            them, and is 1 elsewhere.

    Attributes:
        optimizer: What `apply_update` steps with; set when the model is compiled.
    """

    def __init__(self, network: keras.Model, physics: ScaledPhysics, input_scale: Any = None):
        self.network, self.physics = network, physics
        self.input_scale = _measured_input_scale(physics.simulator) if input_scale is None else input_scale
        self.optimizer = None

    @property
    def trainable_variables(self) -> list:
        return self.network.trainable_variables

    def __call__(self, observation: Any, *, training: bool) -> tuple[tf.Tensor, list]:
        """(z, penalties): the network's x in units of x_scale `[B, *x_shape]`, and its weight penalties."""
        simulator, scaled = self.physics.simulator, self.physics.scaled
        inputs = simulator.network_input(observation)
        inputs = inputs / tf.cast(self.input_scale, inputs.dtype)
        z = tf.cast(self.network(inputs, training=training), simulator.dtype)
        penalties = list(self.network.losses)
        if simulator.has(Ability.PROJECT):
            z = scaled.project(z, observation)
        return z, penalties

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


def _measured_input_scale(simulator: Simulator) -> Any:
    """Root mean square of the network's inputs by channel, on samples; 1 where there are none."""
    if not simulator.has(Ability.SAMPLE):
        return 1.0
    sample = simulator.sample(SCALE_SAMPLES, (0, 0))
    return root_mean_square(simulator.network_input(join_observation(sample["y"], sample.get("context"))))
