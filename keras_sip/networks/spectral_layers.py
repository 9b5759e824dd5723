"""Layers of the Fourier neural operator: a convolution in Fourier space, and the coordinates of the cells."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part


@keras.saving.register_keras_serializable(package="keras_sip")
class SpectralConvolution(keras.layers.Layer):
    """Multiplies the lowest Fourier modes by a learned matrix each and drops the others: `[B, H, W, C]` or `[B, N, C]`.

        y = F^-1 (R_k F x),   k_a = -m ... m - 1 along the first axes, k = 0 ... m - 1 along the last,

    F the real FFT; each R_k is a complex matrix C x filters. Complex numbers are pairs of real ones, in the weights and
    throughout, so that the layer saves, exports, distributes and compiles like any other.

    Source: Li et al., Fourier Neural Operator for Parametric Partial Differential Equations (2021), Section 4.

    Args:
        filters: Channels of the output.
        modes: m; 2 m cells along the first axis and 2 (m - 1) along the last at least.
        seed: Of the initial weights.
        **kwargs: Of every Keras layer.
    """

    def __init__(self, filters: int, modes: int, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = check_positive_int("filters", filters)
        self.modes = check_positive_int("modes", modes)
        self.seed = seed

    def build(self, input_shape: tuple) -> None:
        *resolution, channels = input_shape[1:]
        check_modes(self.modes, resolution)
        first = 2 * self.modes if len(resolution) == 2 else 1
        largest = 1 / (channels * self.filters)
        self.kernel = self.add_weight(
            (2, first, self.modes, channels, self.filters),
            keras.initializers.RandomUniform(0.0, largest, seed=self.seed),
            name="kernel",
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # A line is a plane of one row.
        x = inputs if inputs.shape.rank == 4 else inputs[:, None]
        rows, columns = x.shape[1:3]
        # So few modes are wanted that products with slim matrices beat an FFT, and need no complex numbers.
        along_rows, along_columns = _partial_transforms(rows, columns, self.modes)
        to_rows, to_columns = (tf.constant(matrix, x.dtype) for matrix in (along_rows, along_columns))
        modes = tf.einsum("qkw,bhwc->bhqkc", to_columns, x)
        modes = tf.einsum("plqh,bhqkc->lkbpc", to_rows, modes)
        modes = _complex_product(modes, self.kernel)
        # The transposed matrices, each mode but those that are their own conjugates counted twice.
        weights = tf.constant(_multiplicity(columns, self.modes), x.dtype)
        modes = tf.einsum("plqh,lkbpo->bhqko", to_rows, modes)
        y = tf.einsum("qkw,bhqko->bhwo", to_columns * weights[:, None], modes)
        return y if inputs.shape.rank == 4 else y[:, 0]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "modes": self.modes, "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_sip")
class AppendCoordinates(keras.layers.Layer):
    """Adds a channel for each axis with the cell's place on it, 0 for the first cell to 1 for the last. No weights."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        resolution = inputs.shape[1:-1]
        axes = np.meshgrid(*(np.linspace(0.0, 1.0, cells) for cells in resolution), indexing="ij")
        coordinates = tf.constant(np.stack(axes, axis=-1), inputs.dtype)
        shape = [tf.shape(inputs)[0], *coordinates.shape]
        return tf.concat([inputs, tf.broadcast_to(coordinates, shape)], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], input_shape[-1] + len(input_shape) - 2)


def check_modes(modes: int, resolution: Sequence[int]) -> None:
    """`ValueError` where a grid has not so many modes."""
    limits = [*(cells // 2 for cells in resolution[:-1]), resolution[-1] // 2 + 1]
    if modes > min(limits):
        raise ValueError(
            three_part(
                f"`modes` of at most {min(limits)} on a (padded) grid of {' x '.join(map(str, resolution))} cells",
                f"modes={modes}",
                "Use fewer modes, a finer grid or more padding.",
            )
        )


def _partial_transforms(rows, columns, modes):
    """Orthonormal Fourier matrices of the kept modes, in pairs of real numbers.

    - along rows `[2, modes, 2, rows]`: complex (last pair) to complex (first pair); one mode where there is one row;
    - along columns `[2, modes, columns]`: real to complex.
    """
    kept = np.r_[:modes, -modes:0] if rows > 1 else np.zeros(1, int)
    wave = np.exp(-2j * np.pi * (np.outer(kept, np.arange(rows)) % rows) / rows) / np.sqrt(rows)
    along_rows = np.stack([np.stack([wave.real, -wave.imag], 1), np.stack([wave.imag, wave.real], 1)])
    wave = np.exp(-2j * np.pi * (np.outer(np.arange(modes), np.arange(columns)) % columns) / columns) / np.sqrt(columns)
    return along_rows, np.stack([wave.real, wave.imag])


def _multiplicity(columns, modes):
    """How often a mode of the half spectrum occurs in the whole one."""
    index = np.arange(modes)
    return np.where((index == 0) | (2 * index == columns), 1.0, 2.0)


def _complex_product(modes, kernel):
    """sum_c modes `[L, K, B, 2, C]` times kernel `[2, L, K, C, O]`: one real product for each mode."""
    real, imaginary = tf.unstack(kernel)
    matrix = tf.concat(
        [tf.concat([real, imaginary], axis=-1), tf.concat([-imaginary, real], axis=-1)], axis=-2
    )  # [L, K, 2 C, 2 O]
    shape = tf.shape(modes)
    flat = tf.reshape(modes, [*modes.shape[:2], -1, 2 * modes.shape[-1]])
    return tf.reshape(flat @ matrix, [*modes.shape[:2], shape[2], 2, kernel.shape[-1]])
