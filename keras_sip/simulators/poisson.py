"""Poisson's equation: the field of a charge distribution."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_positive_int
from keras_sip.ops import random_fields, stencils
from keras_sip.ops import spectral_transforms as transforms
from keras_sip.simulators.base import Context
from keras_sip.simulators.spectral import SpectralSimulator

BASIS_OF_BOUNDARY = {"dirichlet": "sine", "periodic": "fourier"}


@keras.saving.register_keras_serializable(package="keras_sip")
class Poisson(SpectralSimulator):
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
        dtype: "float32" or "float64".
        boundary: "dirichlet" or "periodic".
    """

    x_scale = 1.0
    prefers_xla = False

    def __init__(
        self,
        resolution: int | tuple[int, ...],
        *,
        spacing: float = 1.0,
        dtype: str = "float32",
        boundary: str = "dirichlet",
    ):
        self.boundary = check_choice("boundary", boundary, tuple(BASIS_OF_BOUNDARY))
        super().__init__(resolution, basis=BASIS_OF_BOUNDARY[boundary], spacing=spacing, dtype=dtype)

    def transfer_function(self, frequencies: list[np.ndarray]) -> np.ndarray:
        # Those of the five-point Laplacian, not -(2 pi q)^2: `inverse` is that Laplacian.
        eigenvalues = transforms.laplacian_eigenvalues(self.resolution, self.spacing, self.boundary, dtype="float64")
        null = eigenvalues == 0
        return np.where(null, 0.0, 1.0 / np.where(null, 1.0, eigenvalues))

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        x = stencils.laplacian(y_target, self.spacing, self.boundary)
        if self.boundary == "periodic":
            x += tf.reduce_mean(x_near, axis=range(1, x.shape.rank), keepdims=True)
        return x

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        check_positive_int("batch_size", batch_size)
        shape = (batch_size, *self.x_shape)
        x = random_fields.smooth_noise(shape, seed, spacing=self.spacing, dtype=self.dtype)
        return {"x": x, "y": self.forward(x)}
