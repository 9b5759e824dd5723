"""A rotated sine: many solutions, and directions as differently scaled as one likes."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int
from keras_sip.ops import random_fields
from keras_sip.simulators.base import Context, Simulator, split_observation

MAPS = ("paper", "released")


@keras.saving.register_keras_serializable(package="keras_sip")
class RotatedSine(Simulator):
    """y = (a sin(w1 u1), w2 u2) with u = R_phi x, x `[B, 2]`, y `[B, 2]`, R_phi the rotation by phi.

    - map "paper":     y = (sin(gamma u1) / xi, gamma xi u2), the formula printed in the paper;
    - map "released":  y = (sin(gamma u1 / xi), gamma xi u2), that of the authors' published code, with gamma = 10.

    xi sets how differently the two directions of x act on y, phi how much they are coupled in x. Every reachable y has
    infinitely many causes; `inverse` gives the one nearest to `x_near`, and for |y1| > a, which is out of reach, the
    one of the nearest y. `distance` is to the nearest cause of the same observation, Euclidean.

    `sample` draws z uniform in [-1, 1]^2. Map "paper": y = (z1 / xi, z2), all of which are reachable; map "released":
    y = z. x is the cause with w1 u1 in [-pi/2, pi/2]. The network sees z.

    `context` may hold "xi" and "phi" (degrees), each `[B]`, in place of the arguments: examples of many systems in one
    batch. `unit_square` and `examples` are the two halves of `sample`, and `distance_between` is `distance`, for these.

    Source: the paper, Section 4 "Rotated sine" and Figure 5.

    Args:
        xi: Conditioning, at least 1 in the paper.
        phi: Rotation in degrees.
        gamma: Factor on x; None is 1 for map "paper" and 10 for "released".
        map: "paper" or "released".
        dtype: "float32" or "float64".
    """

    x_shape = y_shape = (2,)
    prefers_xla = True

    def __init__(
        self,
        *,
        xi: float = 1.0,
        phi: float = 0.0,
        gamma: float | None = None,
        map: str = "paper",
        dtype: str = "float32",
    ):
        self.xi = check_number("xi", xi, exclusive=True)
        self.phi = check_number("phi", phi, minimum=-360.0, maximum=360.0)
        self.map = check_choice("map", map, MAPS)
        default = 1.0 if map == "paper" else 10.0
        self.gamma = default if gamma is None else check_number("gamma", gamma, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        amplitude, frequency, slope = self._scales(context)
        rotated = _rotate(x, self._angle(context))
        return tf.stack([amplitude * tf.sin(frequency * rotated[:, 0]), slope * rotated[:, 1]], axis=1)

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        amplitude, frequency, slope = self._scales(context)
        angle = self._angle(context)
        phase = tf.asin(tf.clip_by_value(y_target[:, 0] / amplitude, -1.0, 1.0))
        near = frequency * _rotate(x_near, angle)[:, 0]
        rotated = tf.stack([_nearest_phase(phase, near) / frequency, y_target[:, 1] / slope], axis=1)
        return _rotate(rotated, -angle)

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        return self.distance_between(x, x_ref)

    def distance_between(self, x: tf.Tensor, x_ref: tf.Tensor, context: Context = None) -> tf.Tensor:
        """`distance` of examples whose context says which system they belong to."""
        _, frequency, _ = self._scales(context)
        angle = self._angle(context)
        rotated, reference = _rotate(x, angle), _rotate(x_ref, angle)
        phase = _nearest_phase(frequency * reference[:, 0], frequency * rotated[:, 0])
        return tf.norm(tf.stack([rotated[:, 0] - phase / frequency, rotated[:, 1] - reference[:, 1]], axis=1), axis=1)

    def network_input(self, observation: Any) -> tf.Tensor:
        y, context = split_observation(observation)
        return y / self._unit(context)

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        return self.examples(self.unit_square(batch_size, seed))

    def unit_square(self, batch_size: int, seed: Any) -> tf.Tensor:
        """z uniform in [-1, 1]^2, `[B, 2]`, of which `examples` makes samples."""
        check_positive_int("batch_size", batch_size)
        return 2.0 * random_fields.uniform([batch_size, 2], seed, dtype=self.dtype) - 1.0

    def examples(self, z: tf.Tensor, context: Context = None) -> dict[str, tf.Tensor]:
        """What `sample` makes of z `[B, 2]`, for the systems of the context."""
        y = z * self._unit(context)
        return {"x": self.inverse(y, tf.zeros_like(y), context), "y": y}

    def _scales(self, context):
        """(a, w1, w2), each broadcast against `[B]`."""
        xi = self._parameter("xi", self.xi, context)
        if self.map == "paper":
            return 1.0 / xi, tf.constant(self.gamma, self.dtype), self.gamma * xi
        return tf.constant(1.0, self.dtype), self.gamma / xi, self.gamma * xi

    def _unit(self, context):
        """Sizes of the components of y in the samples, `[..., 2]`."""
        amplitude, _, _ = self._scales(context)
        return tf.stack([amplitude, tf.ones_like(amplitude)], axis=-1)

    def _angle(self, context):
        return self._parameter("phi", self.phi, context) * (np.pi / 180)

    def _parameter(self, name, default, context):
        given = (context or {}).get(name)
        return tf.constant(default, self.dtype) if given is None else given


def _rotate(vector, angle):
    """R_angle v `[B, 2]`; the angle `[]` or `[B]`."""
    cosine, sine = tf.cos(angle), tf.sin(angle)
    first, second = vector[:, 0], vector[:, 1]
    return tf.stack([cosine * first - sine * second, sine * first + cosine * second], axis=1)


def _nearest_phase(phase, near):
    """Of all angles with the sine of `phase`, the one nearest to `near`, `[B]`."""
    candidates = [branch + 2 * np.pi * tf.round((near - branch) / (2 * np.pi)) for branch in (phase, np.pi - phase)]
    first_is_nearer = tf.abs(near - candidates[0]) <= tf.abs(near - candidates[1])
    return tf.where(first_is_nearer, *candidates)
