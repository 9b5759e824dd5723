"""A network for a simulator that comes without one, chosen by its shapes."""

import math
from collections.abc import Callable
from typing import Any

import keras

from keras_sip.networks import FNO, MLP, UNet
from keras_sip.simulators.base import Simulator, join_observation

MOST_LEVELS = 4


def input_shape(simulator: Simulator) -> tuple[int, ...]:
    """The shape of what the network is given, without the batch, measured on a sample."""
    sample = simulator.sample(1, (0, 0))
    return tuple(simulator.network_input(join_observation(sample["y"], sample.get("context"))).shape[1:])


def default_network(simulator: Simulator) -> Callable[[int], keras.Model]:
    """`seed -> keras.Model` from the simulator's network input to x.

    - fields `[H, W, C]` to fields of the same resolution: a `UNet`, with as many of four levels as H and W allow;
    - profiles `[N, C]` to profiles of the same length: an `FNO`;
    - all else: an `MLP` on the flattened input, whose output is brought into the shape of x.
    """
    shape, x_shape = input_shape(simulator), tuple(simulator.x_shape)
    same_grid = len(shape) == len(x_shape) > 1 and shape[:-1] == x_shape[:-1]
    if same_grid and len(shape) == 3:
        common = math.gcd(*shape[:-1])
        levels = next(levels for levels in range(MOST_LEVELS, 0, -1) if common % 2 ** (levels - 1) == 0)
        return lambda seed: UNet(shape, x_shape[-1], levels=levels, seed=seed)
    if same_grid and len(shape) == 2:
        modes = max(1, min(12, shape[0] // 2))
        return lambda seed: FNO(shape, x_shape[-1], modes=modes, seed=seed)
    if len(shape) == len(x_shape) == 1:
        return lambda seed: MLP(shape[0], x_shape[0], seed=seed)
    return lambda seed: flat_mlp(shape, x_shape, seed=seed)


def flat_mlp(shape: tuple[int, ...], x_shape: tuple[int, ...], **options: Any) -> keras.Model:
    """An `MLP` of the given options on the flattened input, whose output is brought into the shape of x."""
    inputs = keras.Input(shape)
    flat = keras.layers.Flatten()(inputs) if len(shape) > 1 else inputs
    x = MLP(math.prod(shape), math.prod(x_shape), **options)(flat)
    return keras.Model(inputs, keras.layers.Reshape(x_shape)(x), name="mlp")
