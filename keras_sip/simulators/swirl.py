"""The family of flows that the fluid experiment draws from: a swirl in a uniform velocity, and what reveals it."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip.ops import moments

# A fraction of the domain's length: 20 of 128 in the paper.
WIDTH = 20 / 128
# Of the largest sensitivity, T * width^2: markers whose centre lies on the swirl's tell nothing of its strength.
SMALLEST_SENSITIVITY = 0.0125


class SwirlFamily:
    """v(p) = uniform + w exp(-|d|^2 / (2 s^2)) (-d_2, d_1),   d = p - middle of the domain,

    at cell centres, with the width s = 20/128 of the domain. The uniform part is known: it takes the first marker's
    centre of mass to the middle of the domain in the time T. The strength w `[B, 1]` is the one parameter.

    Args:
        resolution, spacing: Of the grid.
        duration: T.
        dtype: "float32" or "float64".

    Source: the fluid experiment of Holl, Koltun and Thuerey, Scale-invariant Learning by Physics Inversion (2022).
    """

    def __init__(self, resolution: tuple[int, ...], spacing: float, duration: float, dtype: str):
        self.spacing, self.duration, self.dtype = spacing, duration, dtype
        self.middle = (0.5 * spacing * np.array(resolution)).astype(dtype)
        self.width = WIDTH * spacing * resolution[0]
        offset = moments.cell_centres(resolution, spacing) - self.middle
        squares = np.sum(np.square(offset), axis=-1)
        falloff = np.exp(-0.5 * squares / self.width**2)
        self._offset = offset.astype(dtype)
        self._unit = (falloff[..., None] * np.stack([-offset[..., 1], offset[..., 0]], axis=-1)).astype(dtype)
        # 120.5 on the paper's grid.
        self._unit_moment = np.mean(falloff * squares).astype(dtype)

    def velocity(self, strength: tf.Tensor, context: dict[str, Any]) -> tf.Tensor:
        """The member of the family of this strength `[B, 1]`: `[B, H, W, 2]`."""
        return self.uniform(context)[:, None, None, :] + strength[:, None, None, :] * self._unit

    def uniform(self, context: dict[str, Any]) -> tf.Tensor:
        """The velocity that takes the first marker's centre of mass to the middle of the domain, `[B, 2]`."""
        return (self.middle - moments.centre_of_mass(context["marker"], self.spacing)) / self.duration

    def strength(self, velocity: tf.Tensor) -> tf.Tensor:
        """w `[B, 1]`, read off a velocity: the mean of d x v over that of a unit swirl."""
        return tf.reduce_mean(moments.cross(self._offset, velocity), axis=[1, 2])[:, None] / self._unit_moment

    def split(self, velocity: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(uniform `[B, 2]`, strength `[B, 1]`, what is left `[B, H, W, 2]`) of any velocity."""
        uniform, strength = tf.reduce_mean(velocity, axis=[1, 2]), self.strength(velocity)
        rest = velocity - uniform[:, None, None, :] - strength[:, None, None, :] * self._unit
        return uniform, strength, rest

    def mismatch(
        self, forward: list[tf.Tensor], backward: list[tf.Tensor], times: list[float], context: dict[str, Any]
    ) -> tf.Tensor:
        """How much too little the flow of the forward run turns the marker, `[B, 1]`, a length squared.

        Mean over the times of (c_forward - c_backward) x (c_backward - c_swirl), c the centres of mass of the two runs'
        markers, c_swirl the swirl's centre, carried along by the uniform velocity.

        Args:
            forward, backward: Centres of mass at the times, lists of `[B, 2]`.
            times: Floats.
            context: With the first marker.
        """
        uniform = self.uniform(context)
        terms = [
            moments.cross(ahead - behind, behind - (self.middle + time * uniform))
            for ahead, behind, time in zip(forward, backward, times, strict=True)
        ]
        return tf.add_n(terms)[:, None] / len(terms)

    def gain(self, context: dict[str, Any]) -> tf.Tensor:
        """The change of strength that a mismatch of 1 asks for, `[B, 1]`.

        A swirl too weak by dw moves the marker's centre by dw T u too little, u the mean of the unit swirl over the
        marker: the mismatch is dw T d x u, d the marker's distance from the swirl. Damped where that is small.
        """
        marker = context["marker"]
        mass = tf.reduce_sum(marker, axis=[1, 2])
        mean = tf.reduce_sum(marker * self._unit, axis=[1, 2]) / tf.where(mass > 0, mass, tf.ones_like(mass))
        distance = moments.centre_of_mass(marker, self.spacing) - self.middle
        sensitivity = self.duration * moments.cross(distance, mean)[:, None]
        damping = SMALLEST_SENSITIVITY * self.duration * self.width**2
        return sensitivity / (tf.square(sensitivity) + damping**2)
