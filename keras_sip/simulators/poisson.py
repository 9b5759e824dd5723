"""Poisson's equation: the field of a charge distribution."""

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int
from keras_sip.ops import random_fields, spectral, stencils
from keras_sip.simulators.base import Simulator, check_resolution

BOUNDARIES = ("dirichlet", "periodic")


@keras.saving.register_keras_serializable(package="keras_sip")
class Poisson(Simulator):
    """y solves  laplace y = x  on a rectangular grid: P = inverse of the five-point Laplacian.

    x, y: `[B, H, W, 1]`, values at cell centres, x axis first; also `[B, N, 1]` in one dimension and
    `[B, N, M, K, 1]` in three.

    - boundary "dirichlet": y is 0 at ghost cells whose centres lie one `spacing` beyond the last cells. Its
      eigenvectors are sines, so a type-I sine transform solves it exactly; no iteration.
    - boundary "periodic": solved by real FFTs. A constant is in the null space of the Laplacian: the mean of x does not
      act, y has mean 0, and `inverse` keeps the mean of `x_near`.

    `inverse` is one Laplacian and exact. Since P is linear and its inverse exact, SIP training on it with
    `AnalyticInverse` is supervised regression on x*.

    `sample` draws x as smooth noise of mean 0 and standard deviation 1 (`ops.random_fields.smooth_noise`).

    Source: the paper, Section 4 "Poisson's equation".

    Args:
        resolution: Cells along each axis, (64, 64) in the paper.
        spacing: Width of a cell.
        boundary: "dirichlet" or "periodic".
        dtype: "float32" or "float64".
    """

    x_scale = 1.0

    def __init__(self, resolution, *, spacing=1.0, boundary="dirichlet", dtype="float32"):
        self.resolution = check_resolution(resolution)
        self.spacing = check_number("spacing", spacing, exclusive=True)
        self.boundary = check_choice("boundary", boundary, BOUNDARIES)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.x_shape = self.y_shape = (*self.resolution, 1)
        eigenvalues = spectral.laplacian_eigenvalues(self.resolution, self.spacing, self.boundary, dtype="float64")
        eigenvalues = np.asarray(eigenvalues)
        null = eigenvalues == 0
        self._inverse_eigenvalues = np.where(null, 0.0, 1.0 / np.where(null, 1.0, eigenvalues)).astype(dtype)

    def forward(self, x, context=None):
        if self.boundary == "periodic":
            return spectral.periodic_filter(x, self._inverse_eigenvalues)
        axes = range(1, 1 + len(self.resolution))
        modes = spectral.sine_transform(x, axes)
        return spectral.sine_transform(modes * self._inverse_eigenvalues[..., None], axes)

    def inverse(self, y_target, x_near, context=None):
        x = stencils.laplacian(y_target, self.spacing, self.boundary)
        if self.boundary == "periodic":
            x += tf.reduce_mean(x_near, axis=range(1, x.shape.rank), keepdims=True)
        return x

    def sample(self, batch_size, seed):
        check_positive_int("batch_size", batch_size)
        shape = (batch_size, *self.x_shape)
        x = random_fields.smooth_noise(shape, seed, spacing=self.spacing, dtype=self.dtype)
        return {"x": x, "y": self.forward(x)}
