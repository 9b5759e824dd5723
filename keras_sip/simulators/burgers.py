"""Burgers' equation: a velocity that steepens and diffuses, with or without a force that is sought."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int
from keras_sip.ops import random_fields
from keras_sip.ops.time_integration import integrate, runge_kutta_4
from keras_sip.simulators.base import Context, Simulator, check_resolution

# Waves of the random states: amplitudes fall as the square of the number of waves over this fraction of the domain.
WAVES = 0.35
# Up to so many steps are written out: a loop's derivatives take longer to trace.
WRITTEN_OUT = 4


@keras.saving.register_keras_serializable(package="keras_sip")
class Burgers(Simulator):
    """y = u(duration) of the velocity u on a periodic line:

        du/dt + u du/dr = viscosity d^2 u / dr^2 + f

    x `[B, N, 1]` is u(0), and f = 0. With a `force_scale` x `[B, N, 2]` is (u(0), c), and f = force_scale c / duration
    is constant in time: alone it would change u by force_scale c. y `[B, N, 1]`; values at cell centres.

    Central differences of second order, the transport term as (d(u^2)/dr + u du/dr) / 3, which creates neither mean
    momentum nor energy; classical Runge-Kutta steps of order 4. Stable for viscosity dt / dx^2 < 0.69 and
    |u| dt / dx < 2.8; waves are resolved where |u| dx < 2 viscosity.

    `sample` draws smooth periodic u(0) and c (`ops.random_fields.smooth_noise`) of the root mean square `deviation`.

    Source: J. M. Burgers 1948; the split form as in Morinishi et al., J. Comput. Phys. 143 (1998), Section 3.

    Args:
        resolution: Cells, an int.
        spacing: dx; None makes the domain 1 long.
        dtype: "float32" or "float64".
        viscosity: Of the diffusion.
        duration: The time of y.
        num_steps: Time steps.
        force_scale: None, or the change of u that c = 1 makes.
        deviation: Root mean square of u(0) and c in `sample`.
    """

    def __init__(
        self,
        resolution: int,
        *,
        spacing: float | None = None,
        dtype: str = "float32",
        viscosity: float = 0.01,
        duration: float = 0.5,
        num_steps: int = 32,
        force_scale: float | None = None,
        deviation: float = 0.3,
    ):
        self.resolution = check_resolution(resolution, dimensions=(1,))
        cells = self.resolution[0]
        self.spacing = 1 / cells if spacing is None else check_number("spacing", spacing, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.viscosity = check_number("viscosity", viscosity)
        self.duration = check_number("duration", duration, exclusive=True)
        self.num_steps = check_positive_int("num_steps", num_steps)
        self.force_scale = None if force_scale is None else check_number("force_scale", force_scale, exclusive=True)
        self.deviation = check_number("deviation", deviation)
        self.x_shape = (cells, 1 if force_scale is None else 2)
        self.y_shape = (cells, 1)

    @property
    def context_shape(self) -> dict[str, Any]:
        return {}

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        force = 0.0 if self.force_scale is None else self.force_scale / self.duration * x[..., 1:]
        step = runge_kutta_4(lambda u, *_: self.rate(u) + force, self.duration / self.num_steps)
        u = x[..., :1]
        if self.num_steps > WRITTEN_OUT:
            return integrate(step, u, num_steps=self.num_steps)
        for k in range(self.num_steps):
            u = step(u, None, tf.constant(k))
        return u

    def rate(self, u: tf.Tensor) -> tf.Tensor:
        """du/dt without a force, `[B, N, 1]`."""
        # Neighbours by rolling, whose gradient is rolling: XLA lacks the gradients of the gradients of slices.
        left, right = tf.roll(u, 1, axis=1), tf.roll(u, -1, axis=1)
        transport = (tf.square(right) - tf.square(left) + u * (right - left)) / (6 * self.spacing)
        return self.viscosity / self.spacing**2 * (left - 2 * u + right) - transport

    def sample(self, batch_size: int, seed: Any) -> dict[str, tf.Tensor]:
        check_positive_int("batch_size", batch_size)
        length = self.resolution[0] * self.spacing
        channels = [
            random_fields.smooth_noise(
                (batch_size, *self.y_shape), each, spacing=self.spacing, scale=WAVES * length, dtype=self.dtype
            )
            for each in tf.unstack(random_fields.split_seed(seed, 2))[: self.x_shape[-1]]
        ]
        x = self.deviation * tf.concat(channels, axis=-1)
        return {"x": x, "y": self.forward(x)}

    @property
    def positions(self) -> np.ndarray:
        """Cell centres, `[N]`."""
        return (np.arange(self.resolution[0]) + 0.5) * self.spacing
