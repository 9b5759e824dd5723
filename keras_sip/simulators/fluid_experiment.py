"""The paper's experiment with a fluid: what examples are drawn from, and what a reverse run tells of them."""

from typing import Any

import tensorflow as tf

from keras_sip.ops import moments, random_fields, random_markers
from keras_sip.simulators.reverse_form import ReverseForm

STRONGEST_SWIRL, NOISE_SIZE = 2.0, 0.1
# A fraction of the domain's length, which is 128 in the paper.
NOISE_SCALE = 10 / 128


def draw(simulator: Any, batch_size: int, seed: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Random (x, context) of a `NavierStokes`: a blob, a swirl in a uniform velocity, and noise.

    The blob (`ops.random_markers`) is the first marker. The uniform velocity takes its centre of mass to the middle of
    the domain; there is the swirl, with strength uniform in [-2, 2] and Gaussian falloff (`SwirlFamily`); the noise is
    smooth and of size 0.1.

    Source: the paper, Section 4 "Navier-Stokes".
    """
    marker_seed, swirl_seed, noise_seed = tf.unstack(random_fields.split_seed(seed, 3))
    dtype = simulator.dtype
    # Lengths in units of the first axis' domain.
    noise_scale = NOISE_SCALE * simulator.resolution[0]
    marker = random_markers.random_markers(
        (batch_size, *simulator.y_shape), marker_seed, noise_scale=noise_scale, dtype=dtype
    )
    context = {"marker": marker}
    strength = STRONGEST_SWIRL * (2 * random_fields.uniform([batch_size, 1], swirl_seed, dtype=dtype) - 1)
    noise = random_fields.smooth_noise((batch_size, *simulator.x_shape), noise_seed, scale=noise_scale, dtype=dtype)
    return simulator.swirl.velocity(strength, context) + NOISE_SIZE * noise, context


def reverse_form(simulator: Any) -> ReverseForm:
    """The paper's inverse simulation: the strength of the swirl corrected by what two runs miss each other by."""
    swirl = simulator.swirl

    def mismatch(x, y_target, context):
        forward, backward, y = reverse_centres(simulator, x, y_target, context)
        times = [simulator.dt * index for index in range(simulator.num_steps + 1)]
        return swirl.mismatch(forward, backward, times, context), y

    return ReverseForm(
        parameters=lambda x, context: swirl.strength(x),
        from_parameters=swirl.velocity,
        mismatch=mismatch,
        gain=swirl.gain,
    )


def reverse_centres(
    simulator: Any, x: tf.Tensor, y_target: tf.Tensor, context: dict[str, tf.Tensor]
) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor]:
    """Centres of mass of the marker in a run from x, and in one back from the observation, and y = P(x).

    The second starts with the negated last velocity of the first.

    Returns:
        Two lists of `[B, 2]`, one entry for each time 0, dt, ..., t; and y.
    """
    forward: list[tf.Tensor] = []
    backward: list[tf.Tensor] = []

    def centres_into(centres):
        return lambda velocity, marker: centres.append(moments.centre_of_mass(marker, simulator.spacing))

    velocity, y = simulator.run(simulator.initial_velocity(x), context["marker"], centres_into(forward))
    simulator.run(-velocity, y_target, centres_into(backward))
    return forward, backward[::-1], y
