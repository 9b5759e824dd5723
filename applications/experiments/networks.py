"""Networks of the applications that the package's own are made into."""

import keras


def starting_at(network: keras.Model, offset: float = 1.0) -> keras.Model:
    """The network plus a constant, in units of x_scale: where training starts, for x that is never near 0."""
    shifted = keras.layers.Rescaling(1.0, offset=offset)(network.output)
    return keras.Model(network.input, shifted, name=network.name)
