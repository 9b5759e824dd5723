"""The network as it answers: fewer layers, and the same numbers to rounding."""

import keras
import numpy as np
import pytest

import keras_sip
from keras_sip.serving.inference_network import inference_network


def trained(network):
    """The network with statistics and weights of batch norm unlike those of the start."""
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights[: 2 * layer.center + 2 * layer.scale or 2]:
                weight.assign(generator.uniform(0.5, 2.0, weight.shape))
    return network


def functional(dtype, *layers, shape=(6, 3)):
    inputs = keras.Input(shape, dtype=dtype)
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def assert_same_answers(network, *, tolerance):
    copy = inference_network(network)
    x = np.random.default_rng(1).normal(size=(4, *network.input_shape[1:])).astype(network.inputs[0].dtype)
    expected = network(x, training=False).numpy()
    received = copy(x, training=False).numpy()
    assert np.max(np.abs(received - expected)) <= tolerance * np.max(np.abs(expected))
    return copy


def norms_in(network):
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in network.layers)


@pytest.mark.parametrize("padding", ["zero", "periodic"])
def test_a_u_net_has_no_batch_norm_left(padding):
    network = trained(keras_sip.UNet((8, 8, 1), 1, levels=2, filters=3, padding=padding, seed=0))
    # Eight layers, each with some roundings of float32.
    copy = assert_same_answers(network, tolerance=1e-5)
    assert norms_in(network) == 6 and norms_in(copy) == 0


def test_dense_and_convolutions_without_bias_take_it_over():
    layers = [
        keras.layers.Conv1D(4, 3, use_bias=False, dtype="float64"),
        keras.layers.BatchNormalization(scale=False, dtype="float64"),
        keras.layers.Dense(5, dtype="float64"),
        keras.layers.BatchNormalization(center=False, dtype="float64"),
    ]
    copy = assert_same_answers(trained(functional("float64", *layers)), tolerance=1e-13)
    assert norms_in(copy) == 0


def test_what_another_layer_reads_or_an_activation_bends_stays():
    inputs = keras.Input((6, 3), dtype="float64")
    read_twice = keras.layers.Dense(4, dtype="float64")(inputs)
    norm = keras.layers.BatchNormalization(dtype="float64")(read_twice)
    bent = keras.layers.Dense(4, activation="tanh", dtype="float64")(
        keras.layers.Add(dtype="float64")([read_twice, norm])
    )
    outputs = keras.layers.BatchNormalization(dtype="float64")(bent)
    network = trained(keras.Model(inputs, outputs))
    assert inference_network(network) is network


def test_a_network_with_layers_that_cannot_be_copied_is_used_itself():
    class Secret(keras.layers.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, inputs):
            return self.factor * inputs

        def get_config(self):
            return {}

    network = functional("float32", keras.layers.Dense(3), keras.layers.BatchNormalization(), Secret(2.0))
    assert inference_network(network) is network
