"""Acoustic waves in one dimension: what receivers record of a medium whose speed of sound is to be found."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import random_fields
from keras_sip.ops.time_integration import integrate
from keras_sip.simulators.base import Context, Simulator, check_resolution

# Of the random media: they vary over this fraction of the domain.
CORRELATION = 0.05


@keras.saving.register_keras_serializable(package="keras_sip")
class AcousticWave(Simulator):
    """y are the pressures that receivers record while a pulse travels through a medium of speed c = background * e^x:

        d^2 u / dt^2 = c^2 d^2 u / dr^2 + 2 background g'(t) delta(r - r_source),    u = 0 before,

    with walls that absorb. In the undisturbed medium (x = 0) a receiver at the distance d from the source records the
    Ricker wavelet g(t - d / background),

        g = (1 - 2 q) e^-q,    q = (pi frequency (t - delay))^2,    delay = 1.2 / frequency.

    x `[B, N, 1]`, at cell centres; y `[B, times, receivers]`. Leapfrog steps of second order in space and time;
    first-order absorbing walls (Mur), which in one dimension are exact but for the dispersion of the grid. Stable where
    c dt <= dx, that is x <= -log(courant): beyond it an example grows without bound.

    `sample` draws x as a Gaussian field (`ops.random_fields.gaussian_field`) of the standard deviation `deviation`,
    with features of 5 % of the domain's length.

    Source: J. Virieux, S. Operto, An overview of full-waveform inversion in exploration geophysics, Geophysics 74
    (2009); G. Mur, Absorbing boundary conditions, IEEE Trans. EMC 23 (1981), Eq. 15.

    Args:
        resolution: Cells, an int.
        spacing: dx, the width of a cell; None makes the domain 1 long.
        dtype: "float32" or "float64".
        num_steps: Time steps; dt = courant * dx / background.
        courant: c dt / dx in the undisturbed medium, at most 1.
        steps_between: Steps from one recorded sample to the next; times = num_steps // steps_between.
        background: The speed of sound where x = 0.
        frequency: Of the wavelet's peak; None is that of a wave of twelve cells.
        source_at: The place of the source, as a fraction of the domain.
        receivers: Number of receivers, equally spaced over the domain.
        deviation: Standard deviation of x in `sample`.
    """

    def __init__(
        self,
        resolution: int,
        *,
        spacing: float | None = None,
        dtype: str = "float32",
        num_steps: int = 200,
        courant: float = 0.5,
        steps_between: int = 2,
        background: float = 1.0,
        frequency: float | None = None,
        source_at: float = 0.1,
        receivers: int = 8,
        deviation: float = 0.1,
    ):
        self.resolution = check_resolution(resolution, dimensions=(1,))
        cells = self.resolution[0]
        self.spacing = 1 / cells if spacing is None else check_number("spacing", spacing, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.num_steps = check_positive_int("num_steps", num_steps)
        self.courant = check_number("courant", courant, exclusive=True, maximum=1.0)
        self.steps_between = check_positive_int("steps_between", steps_between)
        self.background = check_number("background", background, exclusive=True)
        default = self.background / (12 * self.spacing)
        self.frequency = default if frequency is None else check_number("frequency", frequency, exclusive=True)
        # Not at a wall, which gives its cell the value that leaves.
        self.source_cell = int(np.clip(int(check_number("source_at", source_at, maximum=1.0) * cells), 1, cells - 2))
        count = check_positive_int("receivers", receivers)
        self.deviation = check_number("deviation", deviation)
        if count > cells or cells < 3 or self.steps_between > self.num_steps:
            raise ValueError(
                three_part(
                    "three cells or more, no more receivers than cells, and no more steps_between than steps",
                    f"{cells} cells, {count} receivers, {self.num_steps} steps, steps_between={self.steps_between}",
                    "Take more cells or steps, or fewer receivers.",
                )
            )
        # The cells with a receiver.
        self.receiver_cells = ((np.arange(count) + 0.5) * cells / count).astype(int)
        self.dt = self.courant * self.spacing / self.background
        self.x_shape = (cells, 1)
        self.y_shape = (self.num_steps // self.steps_between, count)

    @property
    def times(self) -> np.ndarray:
        """When the receivers record, `[times]`."""
        return self.dt * self.steps_between * np.arange(1, self.y_shape[0] + 1)

    @property
    def context_shape(self) -> dict[str, Any]:
        return {}

    def wavelet(self, time: np.ndarray) -> np.ndarray:
        """g."""
        q = np.square(np.pi * self.frequency * (time - 1.2 / self.frequency))
        return (1 - 2 * q) * np.exp(-q)

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.observe(self.waves(x))

    def waves(self, x: tf.Tensor) -> tf.Tensor:
        """u at the times of the records, `[times, B, N]`."""
        still = tf.zeros_like(x[..., 0])
        save_at = list(range(self.steps_between, self.num_steps + 1, self.steps_between))
        _, (u, _) = integrate(self._step(x[..., 0]), (still, still), self._source_terms(), save_at=save_at)
        return u

    def observe(self, waves: tf.Tensor) -> tf.Tensor:
        """The records `[B, times, receivers]` of waves `[times, B, N]`."""
        chosen = np.eye(self.resolution[0])[:, self.receiver_cells]
        return tf.transpose(tf.matmul(waves, tf.constant(chosen, waves.dtype)), [1, 0, 2])

    def sample(self, batch_size: int, seed: Any) -> dict[str, tf.Tensor]:
        check_positive_int("batch_size", batch_size)
        length = CORRELATION * self.resolution[0] * self.spacing
        shape = (batch_size, *self.x_shape)
        field = random_fields.gaussian_field(shape, seed, spacing=self.spacing, length=length, dtype=self.dtype)
        x = self.deviation * field
        return {"x": x, "y": self.forward(x)}

    def _source_terms(self):
        """dt^2 times the source in step n -> n + 1, `[num_steps]`: the slope of g at the time of n."""
        peak = np.pi * self.frequency
        time = self.dt * np.arange(self.num_steps) - 1.2 / self.frequency
        q = np.square(peak * time)
        slope = -2 * peak**2 * time * (3 - 2 * q) * np.exp(-q)
        return tf.constant(self.dt**2 * 2 * self.background * slope / self.spacing, self.dtype)

    def _step(self, x):
        courant = self.courant * tf.exp(x)
        squared, absorbed = tf.square(courant), (courant - 1) / (courant + 1)
        unit = np.eye(self.resolution[0])
        first, last, source = (tf.constant(unit[cell], x.dtype) for cell in (0, -1, self.source_cell))
        interior = 1 - first - last

        def step(state, source_term, _):
            # Neighbours by rolling, whose gradient is rolling: XLA lacks the gradients of the gradients of slices.
            u, before = state
            left, right = tf.roll(u, 1, axis=1), tf.roll(u, -1, axis=1)
            following = 2 * u - before + squared * (left - 2 * u + right) + source_term * source
            # u moves out unchanged, with the speed of sound at the wall.
            at_first = right + absorbed * (tf.roll(following, -1, axis=1) - u)
            at_last = left + absorbed * (tf.roll(following, 1, axis=1) - u)
            return interior * following + first * at_first + last * at_last, u

        return step
