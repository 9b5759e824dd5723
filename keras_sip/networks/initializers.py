"""Initial weights shared by the networks."""

import random

import keras

from keras_sip.errors import check_positive_int


class FanInUniform:
    """Initialisers of a network's layers: kernel and bias uniform in +-1/sqrt(fan_in).

    PyTorch's default for convolutions and dense layers (for kernels: He et al. 2015 with slope a = sqrt 5), with
    which the paper's networks were trained. `fan_in` is the number of inputs that one output sums over.

        initializers = FanInUniform(seed=0)
        hidden = keras.layers.Dense(8, **initializers(fan_in=4))
        output = keras.layers.Dense(1, **initializers(fan_in=8))

    Each call draws new seeds. The same `seed` gives the same sequence of them; with `seed=None` Keras draws them, as
    `keras.utils.set_random_seed` determines.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seeds = None if seed is None else random.Random(check_positive_int("seed", seed, minimum=0))

    def __call__(self, fan_in: int) -> dict[str, keras.initializers.Initializer]:
        bound = fan_in**-0.5
        return {
            "kernel_initializer": keras.initializers.RandomUniform(-bound, bound, seed=self.next_seed()),
            "bias_initializer": keras.initializers.RandomUniform(-bound, bound, seed=self.next_seed()),
        }

    def next_seed(self) -> int | None:
        """A seed for another initialiser of the same network."""
        return None if self._seeds is None else self._seeds.getrandbits(31)
