"""The Laplace operator: the charges of a potential."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_positive_int
from keras_sip.ops import random_fields, stencils
from keras_sip.ops import spectral_transforms as transforms
from keras_sip.simulators.base import Context
from keras_sip.simulators.poisson import BASIS_OF_BOUNDARY, Poisson
from keras_sip.simulators.spectral import SpectralSimulator


@keras.saving.register_keras_serializable(package="keras_sip")
class Laplacian(SpectralSimulator):
    """y = laplace x  by the five-point stencil on a rectangular grid: P is the inverse of `Poisson`.

    x, y: `[B, H, W, 1]`, values at cell centres, x axis first; also `[B, N, 1]` and `[B, N, M, K, 1]`. `inverse` is the
    direct solve of Poisson's equation in the basis of the boundary, which is that of `Poisson`; with "periodic" the
    mean of x does not act, and `inverse` keeps that of `x_near`.

    A network that is to find x solves Poisson's equation, its residual taken by a stencil: the short waves of x act
    most here, the long ones least.

    `sample` draws x as smooth noise of mean 0 and standard deviation 1 (`ops.random_fields.smooth_noise`).

    Source: Schnell, Holl and Thuerey, Half-inverse gradients for physical deep learning (ICLR 2022), Section 3.4.

    Args:
        resolution: Cells along each axis, (8, 8) in the source.
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
        return transforms.laplacian_eigenvalues(self.resolution, self.spacing, self.boundary, dtype="float64")

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return stencils.laplacian(x, self.spacing, self.boundary)

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        x = self._poisson.forward(y_target)
        if self.boundary == "periodic":
            x += tf.reduce_mean(x_near, axis=range(1, x.shape.rank), keepdims=True)
        return x

    @functools.cached_property
    def _poisson(self):
        return Poisson(self.resolution, spacing=self.spacing, dtype=self.dtype, boundary=self.boundary)

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        check_positive_int("batch_size", batch_size)
        shape = (batch_size, *self.x_shape)
        x = random_fields.smooth_noise(shape, seed, spacing=self.spacing, dtype=self.dtype)
        return {"x": x, "y": self.forward(x)}
