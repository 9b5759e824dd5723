"""The heat equation: what an initial temperature becomes."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int
from keras_sip.ops import random_boxes
from keras_sip.simulators.base import split_observation
from keras_sip.simulators.spectral import SpectralSimulator

BASIS_OF_BOUNDARY = {"periodic": "fourier", "insulated": "cosine"}


@keras.saving.register_keras_serializable(package="keras_sip")
class Heat(SpectralSimulator):
    """y is the temperature at time t that was x at time 0:  du/dt = nu laplace u,  solved exactly mode by mode.

        y_q = exp(-(2 pi)^2 |q|^2 nu t) x_q,    q in cycles per length, that is cycles per cell / spacing

    x, y: `[B, H, W, 1]`, values at cell centres, x axis first; also `[B, N, 1]` in one dimension and
    `[B, N, M, K, 1]` in three; odd and even sizes.

    Short waves fall below the rounding of y (to e^-158 of x at the paper's nu t = 8 and spacing 1): what is left of
    them cannot be inverted, and in float32 much less can be than in float64. Keep observations in float64.

    Heat is conserved: `project` sets the mean of x to that of y.

    `sample` draws x as 4 to 10 boxes with soft edges (`ops.random_boxes.soft_boxes`).

    Source: the paper, Section 4 "Heat equation".

    Args:
        resolution: Cells along each axis, (64, 64) in the paper.
        spacing: Width of a cell.
        dtype: "float64" or "float32".
        diffusion: nu t, a squared length; 0 leaves x as it is.
        boundary: "periodic" or "insulated", walls that no heat passes.
    """

    # Strengths of the boxes are near 1.
    x_scale = 1.0
    prefers_xla = False

    def __init__(
        self,
        resolution: int | tuple[int, ...],
        *,
        spacing: float = 1.0,
        dtype: str = "float64",
        diffusion: float = 8.0,
        boundary: str = "periodic",
    ):
        self.boundary = check_choice("boundary", boundary, tuple(BASIS_OF_BOUNDARY))
        super().__init__(resolution, basis=BASIS_OF_BOUNDARY[boundary], spacing=spacing, dtype=dtype)
        self.diffusion = check_number("diffusion", diffusion)

    def transfer_function(self, frequencies: list[np.ndarray]) -> np.ndarray:
        return np.exp(-((2 * np.pi) ** 2) * sum(q**2 for q in frequencies) * self.diffusion)

    def project(self, x: tf.Tensor, observation: Any) -> tf.Tensor:
        y, _ = split_observation(observation)
        axes = range(1, x.shape.rank - 1)
        return x + tf.reduce_mean(tf.cast(y, x.dtype) - x, axis=axes, keepdims=True)

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        check_positive_int("batch_size", batch_size)
        x = random_boxes.soft_boxes((batch_size, *self.x_shape), seed, dtype=self.dtype)
        return {"x": x, "y": self.forward(x)}
