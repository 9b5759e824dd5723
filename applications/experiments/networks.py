"""What the applications put around the package's networks."""

import keras
import numpy as np

import keras_sip

SEED, EXAMPLES = (0, 19), 512


def starting_at(network: keras.Model, offset: float = 1.0) -> keras.Model:
    """The network plus a constant, in units of x_scale: where training starts, for x that is never near 0."""
    shifted = keras.layers.Rescaling(1.0, offset=offset)(network.output)
    return keras.Model(network.input, shifted, name=network.name)


def of_standardised_input(network: keras.Model, simulator: keras_sip.Simulator) -> keras.Model:
    """The network of (y - mean) / deviation, of each datum over samples: for y that varies little around what it is."""
    y = np.asarray(simulator.sample(EXAMPLES, SEED)["y"], np.float64)
    axes = tuple(range(1, y.ndim))
    inputs = keras.Input(y.shape[1:])
    layer = keras.layers.Normalization(axes, mean=y.mean(axis=0), variance=y.var(axis=0))
    return keras.Model(inputs, network(layer(inputs)), name=network.name)
