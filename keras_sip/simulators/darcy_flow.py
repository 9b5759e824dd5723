"""Darcy flow: the pressure in a porous medium whose permeability is to be found."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int
from keras_sip.ops import random_fields
from keras_sip.ops.diffusion import solve_diffusion
from keras_sip.simulators.base import Context, Simulator, check_resolution

MEDIA = ("smooth", "two_phase")
# The permeabilities of the two phases of the benchmark.
PHASES = (3.0, 12.0)
# Of the random fields, on the unit square: modes k of the cosine basis have the variance (pi^2 |k|^2 + TAU^2)^-ALPHA.
TAU, ALPHA = 3.0, 2.0


@keras.saving.register_keras_serializable(package="keras_sip")
class DarcyFlow(Simulator):
    """y is the pressure u that the source f drives through a medium of permeability a = exp(x):

        -div(a grad u) = f   on a rectangle,    u = 0 on its boundary

    x, y: `[B, H, W, 1]`, values at cell centres, x axis first. Harmonic means of a between cells, solved directly in
    float64 (`ops.diffusion.solve_diffusion`): exact to the rounding of `dtype`, of second order in the spacing. No
    inverse is known. An example with a contrast of a above e^30 has y = NaN.

    With `observed` only a fixed fraction of the cells has a sensor, the same ones in all examples: y is 0 elsewhere.
    For sensors that differ from example to example wrap it: `Degraded(DarcyFlow(...), missing_sensors=0.9)`.

    `sample` draws a Gaussian field g (`ops.random_fields.gaussian_field`), whose modes k in the cosine basis have the
    variance (pi^2 |k|^2 + 9)^-2; medium "smooth": x = deviation * g, so that a is log-normal; "two_phase": a = 12 where
    g > 0, else 3.

    Source: Z. Li et al., Fourier Neural Operator for Parametric Partial Differential Equations (ICLR 2021), Section 5.2
    and Appendix A.3.2, whose medium is "two_phase".

    Args:
        resolution: Cells along the two axes.
        spacing: Width of a cell; None makes the longer side 1.
        dtype: "float32" or "float64".
        observed: None, or the fraction of the cells that have a sensor, above 0 and at most 1.
        sensor_seed: Seed of the choice of these cells.
        source: f, the same everywhere.
        medium: "smooth" or "two_phase", what `sample` draws.
        deviation: Standard deviation of x in the medium "smooth".
    """

    def __init__(
        self,
        resolution: tuple[int, int],
        *,
        spacing: float | None = None,
        dtype: str = "float32",
        observed: float | None = None,
        sensor_seed: int = 0,
        source: float = 1.0,
        medium: str = "smooth",
        deviation: float = 1.0,
    ):
        self.resolution = check_resolution(resolution, dimensions=(2,))
        self.spacing = 1 / max(self.resolution) if spacing is None else check_number("spacing", spacing, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.observed = None if observed is None else check_number("observed", observed, exclusive=True, maximum=1.0)
        self.sensor_seed = check_positive_int("sensor_seed", sensor_seed, minimum=0)
        self.source = check_number("source", source, minimum=-np.inf)
        self.medium = check_choice("medium", medium, MEDIA)
        self.deviation = check_number("deviation", deviation, exclusive=True)
        self.x_shape = self.y_shape = (*self.resolution, 1)
        self.sensors = None if self.observed is None else self._chosen_cells()

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        u = solve_diffusion(x[..., 0], tf.constant(self.source, x.dtype), spacing=self.spacing)[..., None]
        return u if self.sensors is None else u * tf.constant(self.sensors, u.dtype)

    @property
    def context_shape(self) -> dict[str, Any]:
        return {}

    def sample(self, batch_size: int, seed: Any) -> dict[str, tf.Tensor]:
        check_positive_int("batch_size", batch_size)
        longest = max(self.resolution) * self.spacing
        field = random_fields.gaussian_field(
            (batch_size, *self.x_shape),
            seed,
            spacing=self.spacing,
            length=longest / TAU,
            smoothness=ALPHA,
            dtype=self.dtype,
        )
        if self.medium == "smooth":
            x = self.deviation * field
        else:
            low, high = (tf.constant(np.log(phase), field.dtype) for phase in PHASES)
            x = tf.where(field > 0, high, low)
        return {"x": x, "y": self.forward(x)}

    def _chosen_cells(self):
        cells = int(np.prod(self.resolution))
        count = max(1, round(self.observed * cells))
        chosen = np.random.default_rng(self.sensor_seed).permutation(cells)[:count]
        return np.isin(np.arange(cells), chosen).reshape(self.y_shape).astype("float64")
