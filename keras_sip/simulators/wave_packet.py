"""A wave packet in a signal, of which position and frequency are sought: many local minima."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import random_fields
from keras_sip.simulators.base import Context, Simulator


@keras.saving.register_keras_serializable(package="keras_sip")
class WavePacket(Simulator):
    """y is a signal over the time t in [0, 1] that is still but for a packet at p of the frequency f:

        y(t) = exp(-(t - p)^2 / (2 w^2)) sin(2 pi f (t - p)),    x = (p, f)

    x `[B, 2]`, y `[B, N]`, at the middles of N intervals. Moved by about a period the packet fits itself again, less
    well: the objective has a local minimum every 1 / f in p, up to about 3 w away, and is flat farther off. `sample`
    draws p and f uniform in their ranges; for a noisy signal wrap it: `Degraded(WavePacket(), noise=0.1)`.

    `distance` is the mean of |p - p*| and |f - f*|, each over the width of its range. No inverse is known.

    The task is that of the paper's appendix; signal, ranges and width are chosen here.

    Args:
        samples: N, of the signal.
        width: w.
        positions: The range of p.
        frequencies: The range of f; at most N / 2, what the samples can tell.
        dtype: "float32" or "float64".
    """

    x_shape = (2,)

    def __init__(
        self,
        samples: int = 128,
        *,
        width: float = 0.08,
        positions: tuple[float, float] = (0.2, 0.8),
        frequencies: tuple[float, float] = (6.0, 12.0),
        dtype: str = "float32",
    ):
        self.samples = check_positive_int("samples", samples)
        self.width = check_number("width", width, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.y_shape = (self.samples,)
        low, high = zip(
            _range("positions", positions, 1.0), _range("frequencies", frequencies, samples / 2), strict=True
        )
        self.lowest, self.range = np.array(low), np.array(high) - np.array(low)

    @property
    def times(self) -> np.ndarray:
        """t, `[N]`."""
        return (np.arange(self.samples) + 0.5) / self.samples

    @property
    def context_shape(self) -> dict[str, Any]:
        return {}

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        since = tf.constant(self.times, x.dtype) - x[:, :1]
        return tf.exp(-0.5 * tf.square(since / self.width)) * tf.sin(2 * np.pi * x[:, 1:] * since)

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.abs(x - x_ref) / tf.constant(self.range, x.dtype), axis=1)

    def sample(self, batch_size: int, seed: Any) -> dict[str, tf.Tensor]:
        check_positive_int("batch_size", batch_size)
        share = random_fields.uniform([batch_size, 2], seed, dtype=self.dtype)
        x = tf.constant(self.lowest, self.dtype) + tf.constant(self.range, self.dtype) * share
        return {"x": x, "y": self.forward(x)}


def _range(name, value, maximum):
    pair = tuple(value) if np.ndim(value) == 1 else (value,)
    if len(pair) != 2 or not 0 <= pair[0] < pair[1] <= maximum:
        raise ValueError(
            three_part(
                f"`{name}` to be a pair (low, high) with 0 <= low < high <= {maximum:g}",
                f"{name}={value!r}",
                "Give two numbers that ascend, such as (0.2, 0.8).",
            )
        )
    return tuple(float(bound) for bound in pair)
