"""U-Net for fields on a rectangular grid."""

from collections.abc import Sequence

import keras

from keras_sip.errors import check_choice, check_input_shape, check_positive_int, three_part
from keras_sip.networks.blocks import BilinearUpsampling2D, FusedBatchNormalization, PeriodicPadding2D
from keras_sip.networks.initializers import FanInUniform

PADDINGS = ("zero", "periodic")


def UNet(
    input_shape: Sequence[int],
    output_channels: int,
    *,
    levels: int = 4,
    filters: int = 16,
    padding: str = "zero",
    seed: int | None = None,
    name: str = "unet",
) -> keras.Model:
    """U-Net: an encoder of halving resolutions, and a decoder that gets each of them back through a skip connection.

        stem   D(x)                                       at full resolution
        down   D(max pooling by 2 (x))                    levels - 1 times
        up     D(concatenate(skip, up-sampled x))         levels - 1 times
        head   convolution 1x1, no activation

        D(x): twice a 3x3 convolution with bias, batch norm, ReLU; resolution kept, `filters` channels

    Input `[B, H, W, C]`, output `[B, H, W, output_channels]`. H and W are fixed when the network is built; each must be
    divisible by 2^(levels - 1). `filters` is the same on every level. Up-sampling is bilinear.

    - padding "zero": zeros around each 3x3 convolution, the edge repeated in up-sampling.
    - padding "periodic": both wrap around, and the network commutes with shifts by multiples of 2^(levels - 1) cells.

    It computes in Keras' dtype policy at the time when it is built; Keras casts an input of another dtype, float64
    included. The head computes in the policy's variable dtype: float32 under mixed_float16.

    Source: Ronneberger et al. 2015, in the form and with the settings of the paper: 37,697 weights for
    `UNet((64, 64, 1), 1)` (Poisson, heat), 49,570 for `UNet((64, 64, 2), 2, levels=5)` (Navier-Stokes); batch norm with
    momentum 0.9 and epsilon 1e-5; convolutions start uniform in +-1/sqrt(fan_in), kernel and bias alike.

    Args:
        input_shape: (H, W, C).
        output_channels: Channels of the output.
        levels: Number of resolutions, the full one included; 1 gives the stem and the head.
        filters: Channels of every convolution except the head.
        padding: "zero" or "periodic".
        seed: Integer that determines the initial weights; None takes Keras' own random state.
        name: Name of the model.

    Returns:
        A functional `keras.Model`.
    """
    levels = check_positive_int("levels", levels)
    filters = check_positive_int("filters", filters)
    output_channels = check_positive_int("output_channels", output_channels)
    input_shape = _check_resolution(input_shape, levels)
    periodic = check_choice("padding", padding, PADDINGS) == "periodic"
    initializers = FanInUniform(seed)
    full_precision = keras.config.dtype_policy().variable_dtype

    def double_block(x, name):
        for i in (1, 2):
            fan_in = 9 * x.shape[-1]
            if periodic:
                x = PeriodicPadding2D(name=f"{name}_pad_{i}")(x)
            x = keras.layers.Conv2D(
                filters, 3, padding="valid" if periodic else "same", name=f"{name}_conv_{i}", **initializers(fan_in)
            )(x)
            x = FusedBatchNormalization(name=f"{name}_norm_{i}")(x)
            x = keras.layers.ReLU(name=f"{name}_relu_{i}")(x)
        return x

    inputs = keras.Input(input_shape, dtype=full_precision, name="input")
    x = double_block(inputs, "stem")
    skips = []
    for level in range(1, levels):
        skips.append(x)
        x = keras.layers.MaxPooling2D(name=f"down_{level}_pool")(x)
        x = double_block(x, f"down_{level}")
    for level in reversed(range(1, levels)):
        x = BilinearUpsampling2D(periodic=periodic, name=f"up_{level}_upsample")(x)
        x = keras.layers.Concatenate(name=f"up_{level}_concatenate")([skips.pop(), x])
        x = double_block(x, f"up_{level}")
    head = keras.layers.Conv2D(output_channels, 1, dtype=full_precision, name="head", **initializers(fan_in=filters))
    return keras.Model(inputs, head(x), name=name)


def _check_resolution(input_shape, levels):
    factor = 2 ** (levels - 1)
    input_shape = check_input_shape(input_shape, dimensions=(2,))
    if any(size % factor for size in input_shape[:2]):
        raise ValueError(
            three_part(
                f"a resolution divisible by 2^(levels - 1) = {factor} for levels={levels}",
                f"input_shape={input_shape}",
                "Use a resolution that is divisible, or fewer levels.",
            )
        )
    return input_shape
