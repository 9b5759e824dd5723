"""The exponential: the simplest process whose gradients span orders of magnitude."""

from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import random_fields
from keras_sip.simulators.base import Context, Simulator, split_observation


@keras.saving.register_keras_serializable(package="keras_sip")
class Exponential(Simulator):
    """y = e^x, x `[B, 1]`, y `[B, 1]`.

    With x in [-12, 0] the gradient of L = 1/2 (e^x - y*)^2 varies by e^12 = 160,000 in the linear term alone.
    `inverse` is log y*, exact for y* > 0; elsewhere there is none, and it is NaN.

    `sample` draws x uniform in [lower, 0]. x_scale is 1: the paper's network gives x itself.

    Source: the paper, Section 3.3 and Figure 2.

    Args:
        lower: The smallest x of the samples.
        log_input: Let the network see log y instead of y. It then has only to pass it on.
        dtype: "float32" or "float64".
    """

    x_shape = y_shape = (1,)
    prefers_xla = True
    x_scale = 1.0

    def __init__(self, *, lower: float = -12.0, log_input: bool = False, dtype: str = "float32"):
        self.lower = check_number("lower", lower, minimum=-80.0)
        if self.lower >= 0:
            raise ValueError(three_part("`lower` below 0, the largest x", f"lower={lower!r}", "Pass -12.0, say."))
        self.log_input = log_input
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return tf.exp(x)

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        return tf.math.log(y_target)

    def network_input(self, observation: Any) -> tf.Tensor:
        y, _ = split_observation(observation)
        return tf.math.log(y) if self.log_input else y

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        check_positive_int("batch_size", batch_size)
        x = self.lower * random_fields.uniform([batch_size, 1], seed, dtype=self.dtype)
        return {"x": x, "y": self.forward(x)}
