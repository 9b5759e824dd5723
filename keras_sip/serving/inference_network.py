"""A network as it answers: what only training needs is gone, and its answer is the same to rounding."""

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional

from keras_sip.networks.blocks import BilinearUpsampling2D, FusedBatchNormalization

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
BATCH_NORMS = (keras.layers.BatchNormalization, FusedBatchNormalization)


def inference_network(network: keras.Model, *, resize: bool = True) -> keras.Model:
    """A copy of a functional network with fewer operations; the network itself where there is nothing to gain.

    Batch norm after a convolution or dense layer becomes part of its weights. With s = gamma / sqrt(variance + epsilon)

        s (W * x + b - mean) + beta = (s W) * x + s (b - mean) + beta

    Up-sampling by two products with matrices becomes one pass over the grid: the products train faster, the pass
    answers faster on a CPU.

    Args:
        network: Built and trained.
        resize: Also replace the up-sampling; XLA is better off with the products.
    """
    if not isinstance(network, Functional):
        return network
    convolution_of = _foldable(network)
    resized = {id(layer) for layer in network.layers if resize and _is_resizable(layer)}
    if not convolution_of and not resized:
        return network
    folded = {id(convolution) for convolution in convolution_of.values()}

    def twin(layer):
        if layer.name in convolution_of:
            return _Unchanged(name=layer.name, dtype=layer.dtype_policy)
        if id(layer) in resized:
            return _Resized(name=layer.name, dtype=layer.dtype_policy)
        config = layer.get_config()
        return type(layer).from_config({**config, "use_bias": True} if id(layer) in folded else config)

    try:
        copy = keras.models.clone_model(network, clone_function=twin)
    except (NotImplementedError, TypeError, ValueError):
        # A layer that does not say how it was made.
        return network
    for layer in network.layers:
        # Those without weights, an unnamed input among them, may have got other names.
        if layer.weights and layer.name not in convolution_of and id(layer) not in folded:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    for name, convolution in convolution_of.items():
        copy.get_layer(convolution.name).set_weights(_folded_weights(convolution, network.get_layer(name)))
    return copy


class _Unchanged(keras.layers.Layer):
    """In the place of a batch norm that the layer before it has taken over."""

    def call(self, inputs, mask=None):
        return inputs


class _Resized(keras.layers.Layer):
    """`BilinearUpsampling2D` that is not periodic, by TensorFlow's kernel."""

    def call(self, inputs):
        _, height, width, _ = inputs.shape
        return tf.image.resize(inputs, (2 * height, 2 * width))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, 2 * height, 2 * width, channels)


def _foldable(network):
    """{name of a batch norm: the layer before it}, where that layer feeds nothing else."""
    nodes = [node for layer in network.layers for node in layer._inbound_nodes]
    read = [id(tensor) for node in nodes for tensor in node.arguments.keras_tensors]
    read += [id(tensor) for tensor in network.outputs]
    found = {}
    for norm in network.layers:
        if type(norm) not in BATCH_NORMS or len(norm._inbound_nodes) != 1:
            continue
        [tensor] = norm._inbound_nodes[0].arguments.keras_tensors
        before = tensor._keras_history.operation
        if _takes_over(before, norm, len(tensor.shape)) and read.count(id(tensor)) == 1:
            found[norm.name] = before
    return found


def _takes_over(layer, norm, rank):
    return (
        type(layer) in CONVOLUTIONS
        and layer.activation is keras.activations.linear
        and len(layer._inbound_nodes) == 1
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and norm.axis in (-1, rank - 1)
        # In half precision the two round at other places.
        and layer.compute_dtype == norm.compute_dtype == layer.variable_dtype == norm.variable_dtype
    )


def _is_resizable(layer):
    # The kernel answers in float32 alone.
    return type(layer) is BilinearUpsampling2D and not layer.periodic and layer.compute_dtype == "float32"


def _folded_weights(layer, norm):
    mean, variance = (np.asarray(value, "float64") for value in (norm.moving_mean, norm.moving_variance))
    gain = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        gain = gain * np.asarray(norm.gamma, "float64")
    bias = np.asarray(layer.bias, "float64") if layer.use_bias else 0.0
    offset = np.asarray(norm.beta, "float64") if norm.center else 0.0
    # Of every convolution the last axis of the kernel is that of the channels that it gives.
    return [np.asarray(layer.kernel, "float64") * gain, gain * (bias - mean) + offset]
