"""Acoustic waves in the plane: full-waveform inversion of several shots, seen by a line of receivers."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import random_fields
from keras_sip.ops.time_integration import integrate
from keras_sip.simulators.base import Context, Simulator, check_resolution

# Of the random media: they vary over this fraction of the domain's width.
CORRELATION = 0.15
# A plane wave that meets the absorbing cells head on, crosses them and comes back, is left with this amplitude.
REFLECTION = 1e-3


@keras.saving.register_keras_serializable(package="keras_sip")
class AcousticSurvey(Simulator):
    """y are the pressures along a line near the top while one shot after another travels through a medium below:

        (1 / c^2) (d^2 u / dt^2 + 2 s du / dt) = laplace u + g(t) delta(r - r_source),    u = 0 before,

    c = background * e^x the speed of sound, g a Ricker wavelet of amplitude 1, and s = 0 but in `absorbing` cells that
    surround the domain on all sides, where it grows as the square of the depth; c there is that of the nearest cell.

    x `[B, W, H, 1]`, at cell centres, the first axis along the surface, the second downward; y `[B, times, receivers,
    shots]`. Leapfrog steps of second order in space and time; stable where c dt <= dx / sqrt(2), that is
    x <= -log(courant) - 0.35: beyond it an example grows without bound. Records keep no history of the waves: gradients
    recompute them from checkpoints (`ops.integrate`).

    `sample` draws layers whose speed grows with depth, bent by a Gaussian field: x = trend + deviation * field, between
    -0.35 and 0.35 where deviation is 0.1. `distance` is the mean absolute error of x.

    Source: J. Virieux, S. Operto, An overview of full-waveform inversion in exploration geophysics, Geophysics 74
    (2009); C. Cerjan et al., A nonreflecting boundary condition for discrete acoustic and elastic wave equations,
    Geophysics 50 (1985), for absorption by damped cells.

    Args:
        resolution: Cells along the surface and downward.
        spacing: dx; None makes the surface 1 long.
        dtype: "float32" or "float64".
        num_steps: Time steps; dt = courant * dx / background.
        courant: c dt / dx where x = 0, at most 0.7.
        steps_between: Steps from one recorded sample to the next; times = num_steps // steps_between.
        background: The speed of sound where x = 0.
        frequency: Of the wavelet's peak; None is that of a wave of ten cells.
        shots: Number of sources, equally spaced along the line.
        receivers: Number of receivers, equally spaced along the line.
        depth: Of the line, in cells.
        absorbing: Cells around the domain that absorb.
        deviation: Standard deviation of the bent part of x in `sample`.
    """

    def __init__(
        self,
        resolution: tuple[int, int] = (64, 64),
        *,
        spacing: float | None = None,
        dtype: str = "float32",
        num_steps: int = 400,
        courant: float = 0.4,
        steps_between: int = 4,
        background: float = 1.0,
        frequency: float | None = None,
        shots: int = 5,
        receivers: int = 60,
        depth: int = 1,
        absorbing: int = 16,
        deviation: float = 0.1,
    ):
        self.resolution = check_resolution(resolution, dimensions=(2,))
        width = self.resolution[0]
        self.spacing = 1 / width if spacing is None else check_number("spacing", spacing, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.num_steps = check_positive_int("num_steps", num_steps)
        self.courant = check_number("courant", courant, exclusive=True, maximum=0.7)
        self.steps_between = check_positive_int("steps_between", steps_between)
        self.background = check_number("background", background, exclusive=True)
        default = self.background / (10 * self.spacing)
        self.frequency = default if frequency is None else check_number("frequency", frequency, exclusive=True)
        self.shots = check_positive_int("shots", shots)
        self.receivers = check_positive_int("receivers", receivers)
        self.depth = check_positive_int("depth", depth, minimum=0)
        self.absorbing = check_positive_int("absorbing", absorbing, minimum=0)
        self.deviation = check_number("deviation", deviation)
        if max(self.receivers, self.shots) > width or depth >= self.resolution[1] or steps_between > num_steps:
            raise ValueError(
                three_part(
                    "no more receivers and shots than cells along the surface, a line inside, and no more "
                    "steps_between than steps",
                    f"{self.resolution} cells, {receivers} receivers, {shots} shots, depth={depth}, {num_steps} steps, "
                    f"steps_between={steps_between}",
                    "Take more cells or steps, or fewer receivers.",
                )
            )
        # The columns of the cells with a receiver, and with a source.
        self.receiver_cells, self.source_cells = (
            ((np.arange(count) + 0.5) * width / count).astype(int) for count in (self.receivers, self.shots)
        )
        self.dt = self.courant * self.spacing / self.background
        self.x_shape = (*self.resolution, 1)
        self.y_shape = (self.num_steps // self.steps_between, self.receivers, self.shots)

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
        speed = self._with_absorbing_cells(tf.exp(x[..., 0]))[:, None]
        squared = tf.square(self.courant * speed)
        damping = tf.constant(self._damping() * self.dt, x.dtype)
        kept, moved = (1 - damping) / (1 + damping), 1 / (1 + damping)
        sources, receivers = self._at_cells(self.source_cells, x), self._at_cells(self.receiver_cells, x)

        def step(state, kick, number):
            u, before, records = state
            for k in range(self.steps_between):
                neighbours = sum(tf.roll(u, shift, axis) for axis in (2, 3) for shift in (1, -1))
                change = squared * (neighbours - 4 * u + kick[k] * sources)
                u, before = moved * (2 * u + change) - kept * before, u
            now = tf.einsum("bsxz,rxz->brs", u, receivers)
            # Written by adding to one row: saved states would be whole waves.
            row = tf.one_hot(number, self.y_shape[0], dtype=x.dtype)
            return u, before, records + row[:, None, None] * now[:, None]

        still = tf.zeros_like(speed) * sources[None]
        records = tf.zeros_like(x[:, :1, :1]) * tf.zeros(self.y_shape, x.dtype)
        return integrate(step, (still, still, records), self._source_terms())[2]

    def sample(self, batch_size: int, seed: Any) -> dict[str, tf.Tensor]:
        check_positive_int("batch_size", batch_size)
        length = CORRELATION * self.resolution[0] * self.spacing
        field = random_fields.gaussian_field(
            (batch_size, *self.x_shape), seed, spacing=self.spacing, length=length, dtype=self.dtype
        )
        depth = (np.arange(self.resolution[1]) + 0.5) / self.resolution[1] - 0.5
        trend = tf.constant(2 * self.deviation * depth[:, None], self.dtype)
        x = trend + self.deviation * field
        # What steps are stable for, with the largest speeds that the data are to have.
        limit = tf.constant(3.5 * self.deviation, self.dtype)
        x = limit * tf.tanh(x / limit)
        return {"x": x, "y": self.forward(x)}

    def _source_terms(self):
        """dx^2 times the source of each step, `[times, steps_between]`: a cell's share of the plane is 1 / dx^2."""
        steps = self.y_shape[0] * self.steps_between
        values = self.wavelet(self.dt * np.arange(steps)).reshape(self.y_shape[0], self.steps_between)
        return tf.constant(values, self.dtype)

    def _with_absorbing_cells(self, field):
        """`[B, W, H]` with its edge repeated outside."""
        rows, columns = (np.clip(np.arange(-self.absorbing, n + self.absorbing), 0, n - 1) for n in self.resolution)
        # By matrices of zeros and ones, whose gradients of any order XLA has.
        along, down = (np.eye(n)[index] for n, index in zip(self.resolution, (rows, columns), strict=True))
        return tf.einsum("iw,bwh,jh->bij", tf.constant(along, field.dtype), field, tf.constant(down, field.dtype))

    def _damping(self):
        """s `[W + 2 absorbing, H + 2 absorbing]`."""
        if not self.absorbing:
            return np.zeros(self.resolution)
        depths = []
        for n in self.resolution:
            cells = np.arange(-self.absorbing, n + self.absorbing)
            depths.append(np.maximum(np.maximum(-cells, cells + 1 - n), 0))
        depth = np.maximum(depths[0][:, None], depths[1][None, :]) / self.absorbing
        # exp(-2 integral s dr / c) = REFLECTION, s = largest * depth^2.
        largest = -1.5 * self.background * np.log(REFLECTION) / (self.absorbing * self.spacing)
        return largest * np.square(depth)

    def _at_cells(self, columns, like):
        """1 in the cell of each shot or receiver on the line, `[count, W + 2 absorbing, H + 2 absorbing]`."""
        marks = np.zeros((len(columns), *(n + 2 * self.absorbing for n in self.resolution)))
        marks[np.arange(len(columns)), columns + self.absorbing, self.depth + self.absorbing] = 1.0
        return tf.constant(marks, like.dtype)
