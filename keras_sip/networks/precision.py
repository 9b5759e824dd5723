"""The precision in which a network computes: float32, or bfloat16 where that is the faster one."""

import functools
import logging
import time

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, three_part

LOG = logging.getLogger("keras_sip")
PRECISIONS = ("float32", "mixed_bfloat16", "auto")
# By how much bfloat16 must be faster to be worth its rounding.
GAIN = 1.2
BATCH, REPEATS = 8, 5


def with_precision(network: keras.Model, precision: str = "auto") -> keras.Model:
    """The network with the same weights, computing in another precision.

        network = keras_sip.with_precision(keras_sip.UNet((64, 64, 1), 1), "auto")

    Under "mixed_bfloat16" its layers compute with 8 bits of mantissa, and keep their weights, which the optimizer
    changes, in float32. The layers that give the outputs compute in float32, and what a simulator and a solver do keeps
    the simulator's precision. bfloat16 has the range of float32: no scaling of losses is needed.

    "auto" times a training step of the network both ways, once for each network of a process, and takes bfloat16 where
    it is at least 1.2 times as fast, as it is on processors with AMX and on recent GPUs. The log "keras_sip" says what
    was measured:

        logging.getLogger("keras_sip").setLevel("INFO")

    Args:
        network: A functional or sequential Keras model.
        precision: "float32", "mixed_bfloat16" or "auto".

    Returns:
        A copy, or the network itself where it computes in that precision already.

    Raises:
        ValueError: Another precision, or a network that Keras cannot copy layer by layer, or with float64 weights.
    """
    check_choice("precision", precision, PRECISIONS)
    if not getattr(network, "outputs", None) or any(weight.dtype == "float64" for weight in network.weights):
        raise ValueError(
            three_part(
                "a functional or sequential network of float32 weights, whose layers can be copied",
                f"{type(network).__name__} {network.name!r}",
                "Build it under keras.mixed_precision.set_dtype_policy('mixed_bfloat16') instead.",
            )
        )
    if precision == "auto":
        precision = _faster(network)
    if precision in _compute_precisions(network):
        return network
    return _copied(network, precision)


def computes_below_float32(network: keras.Model) -> bool:
    """Whether some layer computes in bfloat16 or float16."""
    return any(layer.compute_dtype in ("bfloat16", "float16") for layer in network._flatten_layers(include_self=False))


def _compute_precisions(network):
    """The precision, by its name, that the layers with weights have in common, outputs' layers apart; or nothing."""
    heads = _heads(network)
    dtypes = {layer.compute_dtype for layer in _leaves(network) if layer.weights and layer.name not in heads}
    names = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
    return {names.get(dtype) for dtype in dtypes} if len(dtypes) == 1 else set()


def _leaves(network):
    return [layer for layer in network._flatten_layers(include_self=False) if not isinstance(layer, keras.Model)]


def _heads(network):
    """Names of the layers whose outputs are the network's."""
    return {tensor._keras_history.operation.name for tensor in tf.nest.flatten(network.outputs)}


def _copied(network, precision):
    heads = _heads(network)

    def copied(layer):
        if isinstance(layer, keras.Model):
            return _copied(layer, precision)
        policy = "float32" if layer.name in heads or isinstance(layer, keras.layers.InputLayer) else precision
        return type(layer).from_config({**layer.get_config(), "dtype": policy})

    copy = keras.models.clone_model(network, clone_function=copied)
    copy.set_weights(network.get_weights())
    return copy


def _faster(network):
    key = tuple((weight.path, *weight.shape) for weight in network.weights), str(network.input_shape)
    if key not in _found:
        seconds = {precision: _step(_copied(network, precision)) for precision in ("float32", "mixed_bfloat16")}
        # Taking turns: what slows the machine for a while slows both.
        turns = [{name: step() for name, step in seconds.items()} for _ in range(REPEATS)]
        single, half = (min(turn[name] for turn in turns) for name in seconds)
        _found[key] = "mixed_bfloat16" if GAIN * half <= single else "float32"
        LOG.info(
            "a training step of %r with batch %d: %.3g ms in float32, %.3g ms in bfloat16; %s is used.",
            network.name,
            BATCH,
            1e3 * single,
            1e3 * half,
            _found[key],
        )
    return _found[key]


# Of the networks measured in this process.
_found: dict = {}


def _step(network):
    """A function that returns the seconds of one forward and backward pass; compiled and run once."""
    inputs = tf.nest.map_structure(
        lambda entry: tf.constant(np.random.default_rng(0).standard_normal((BATCH, *entry.shape[1:])), entry.dtype),
        network.input,
    )

    @tf.function(autograph=False)
    def step(inputs):
        with tf.GradientTape() as tape:
            outputs = network(inputs, training=True)
            loss = functools.reduce(tf.add, [tf.reduce_sum(tf.square(entry)) for entry in tf.nest.flatten(outputs)])
        return tape.gradient(loss, network.trainable_variables)

    def seconds():
        began = time.perf_counter()
        _ = [gradient.numpy() for gradient in step(inputs) if gradient is not None]
        return time.perf_counter() - began

    seconds()
    return seconds
