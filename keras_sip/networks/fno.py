"""Fourier neural operator for fields on a line or a rectangular grid."""

from collections.abc import Sequence

import keras

from keras_sip.errors import check_input_shape, check_positive_int
from keras_sip.networks.initializers import FanInUniform
from keras_sip.networks.spectral_layers import AppendCoordinates, SpectralConvolution, check_modes

PROJECTION = 128


def FNO(
    input_shape: Sequence[int],
    output_channels: int,
    *,
    modes: int = 12,
    width: int = 32,
    layers: int = 4,
    padding: int = 9,
    seed: int | None = None,
    name: str = "fno",
) -> keras.Model:
    """Fourier neural operator: layers that multiply low Fourier modes by learned matrices, beside a local linear map.

        v_0 = P (x, coordinates), then `padding` zeros after the last cell of each axis
        v_(i+1) = gelu(F^-1 R_i F v_i + W_i v_i + b_i),   without gelu in the last layer
        output = Q_2 gelu(Q_1 v),   128 channels between

    Input `[B, H, W, C]` or `[B, N, C]`, output of the same resolution with `output_channels`. The padding lets the
    periodic transform represent fields that are not; 0 suits periodic systems, where the layers (though not the
    coordinates) commute with shifts.

    `FNO((64, 64, 1), 1)` has the paper's 1,188,353 weights where a complex number counts as one weight, as it does in
    the published count; Keras counts the 2,368,001 real numbers.

    It computes in Keras' dtype policy at the time when it is built; Keras casts an input of another dtype, float64
    included. The head computes in the policy's variable dtype: float32 under mixed_float16.

    Source: Li et al., Fourier Neural Operator for Parametric Partial Differential Equations (2021), Section 4, with the
    settings of the paper; dense layers start uniform in +-1/sqrt(fan_in), kernel and bias alike.

    Args:
        input_shape: (H, W, C) or (N, C).
        output_channels: Channels of the output.
        modes: Modes kept along each axis, of each sign.
        width: Channels of every layer.
        layers: Number of Fourier layers.
        padding: Cells appended to each axis.
        seed: Integer that determines the initial weights; None takes Keras' own random state.
        name: Name of the model.

    Returns:
        A functional `keras.Model`.
    """
    input_shape = check_input_shape(input_shape, dimensions=(2, 1))
    output_channels = check_positive_int("output_channels", output_channels)
    width = check_positive_int("width", width)
    layers = check_positive_int("layers", layers)
    padding = check_positive_int("padding", padding, minimum=0)
    modes = check_positive_int("modes", modes)
    check_modes(modes, [cells + padding for cells in input_shape[:-1]])
    initializers = FanInUniform(seed)
    full_precision = keras.config.dtype_policy().variable_dtype

    def dense(units, x, name, **options):
        return keras.layers.Dense(units, name=name, **options, **initializers(fan_in=x.shape[-1]))(x)

    inputs = keras.Input(input_shape, dtype=full_precision, name="input")
    x = dense(width, AppendCoordinates(name="coordinates")(inputs), "lift")
    # Keras takes a pair for a line, and a pair for each axis of a plane.
    cells = ((0, padding), (0, padding)) if len(input_shape) == 3 else (0, padding)
    if padding:
        pad = keras.layers.ZeroPadding2D if len(input_shape) == 3 else keras.layers.ZeroPadding1D
        x = pad(cells, name="pad")(x)
    for i in range(1, layers + 1):
        convolution = SpectralConvolution(width, modes, seed=initializers.next_seed(), name=f"layer_{i}_spectral")
        x = keras.layers.Add(name=f"layer_{i}_add")([convolution(x), dense(width, x, f"layer_{i}_local")])
        if i < layers:
            x = keras.layers.Activation("gelu", name=f"layer_{i}_gelu")(x)
    if padding:
        crop = keras.layers.Cropping2D if len(input_shape) == 3 else keras.layers.Cropping1D
        x = crop(cells, name="crop")(x)
    x = dense(PROJECTION, x, "project", activation="gelu")
    return keras.Model(inputs, dense(output_channels, x, "head", dtype=full_precision), name=name)
