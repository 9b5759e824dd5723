"""Fully connected network."""

from collections.abc import Callable, Sequence

import keras

from keras_sip.errors import check_positive_int, three_part
from keras_sip.networks.initializers import FanInUniform


def MLP(
    input_size: int,
    output_size: int,
    hidden: Sequence[int] = (32, 64, 32),
    *,
    activation: str | Callable = "relu",
    seed: int | None = None,
    name: str = "mlp",
) -> keras.Model:
    """Multilayer perceptron: dense layers with bias, the activation after each hidden one, none on the output.

        h_0 = input;    h_i = activation(W_i h_(i-1) + b_i);    output = W h_last + b

    Input `[B, input_size]`, output `[B, output_size]`.

    Weights and biases start uniform in +-1/sqrt(fan_in). The paper's networks: `MLP(2, 2)` with 4,354 weights for the
    rotated sine, `MLP(1, 1, (16, 64, 16), activation="sigmoid")` with 2,177 for the exponential.

    It computes in Keras' dtype policy at the time when it is built; Keras casts an input of another dtype, float64
    included. The output layer computes in the policy's variable dtype: float32 under mixed_float16.

    Args:
        input_size: Components of the input.
        output_size: Components of the output.
        hidden: Units of each hidden layer; `()` gives a linear map.
        activation: Name of a Keras activation, or a function of one tensor.
        seed: Integer that determines the initial weights; None takes Keras' own random state.
        name: Name of the model.

    Returns:
        A functional `keras.Model`.
    """
    input_size = check_positive_int("input_size", input_size)
    output_size = check_positive_int("output_size", output_size)
    hidden = _check_hidden(hidden)
    activation = _check_activation(activation)
    initializers = FanInUniform(seed)
    full_precision = keras.config.dtype_policy().variable_dtype

    inputs = keras.Input((input_size,), dtype=full_precision, name="input")
    x = inputs
    for i, units in enumerate(hidden, start=1):
        x = keras.layers.Dense(units, activation, name=f"hidden_{i}", **initializers(fan_in=x.shape[-1]))(x)
    head = keras.layers.Dense(output_size, dtype=full_precision, name="head", **initializers(fan_in=x.shape[-1]))
    return keras.Model(inputs, head(x), name=name)


def _check_hidden(hidden):
    if not isinstance(hidden, (tuple, list)):
        raise ValueError(
            three_part(
                "`hidden` to be a tuple with the number of units of each hidden layer",
                f"hidden={hidden!r} ({type(hidden).__name__})",
                "Give for example hidden=(32, 64, 32), or hidden=(32,) for one hidden layer.",
            )
        )
    return tuple(check_positive_int(f"hidden[{i}]", units) for i, units in enumerate(hidden))


def _check_activation(activation):
    try:
        return keras.activations.get(activation)
    except (TypeError, ValueError):
        raise ValueError(
            three_part(
                "`activation` to be the name of a Keras activation, or a function of one tensor",
                f"activation={activation!r} ({type(activation).__name__})",
                'Choose for example "relu", "sigmoid" or "tanh"; the names are those of `keras.activations`.',
            )
        ) from None
