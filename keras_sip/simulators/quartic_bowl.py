"""A bowl that is quadratic along one axis and quartic along the other."""

from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int
from keras_sip.ops import random_fields
from keras_sip.simulators.base import Context, Simulator


@keras.saving.register_keras_serializable(package="keras_sip")
class QuarticBowl(Simulator):
    """y = (x1, x2^2), x `[B, 2]`, y `[B, 2]`.

    For y* = 0 our objective is L = 1/2 |y|^2 = 1/2 (x1^2 + x2^4); the paper's Figure 1 shows twice that, |y|^2, on
    which Newton's method takes the same steps and gradient descent steps twice as long at the same rate.

    `inverse` keeps the sign of x2 at `x_near`: (y1, sign(x2) sqrt y2); where y2 < 0 there is none, and the nearest
    point, x2 = 0, is taken. `distance` is to the nearer of the solutions (x1, x2) and (x1, -x2).

    `sample` draws x uniform in [-extent, extent]^2.

    Source: the paper, Section 2 and Figure 1.

    Args:
        extent: Half width of the square of samples; the figure starts at (3, 3).
        dtype: "float32" or "float64".
    """

    x_shape = y_shape = (2,)
    prefers_xla = True

    def __init__(self, *, extent: float = 3.0, dtype: str = "float32"):
        self.extent = check_number("extent", extent, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return tf.stack([x[:, 0], tf.square(x[:, 1])], axis=1)

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        root = tf.sqrt(tf.maximum(y_target[:, 1], tf.zeros([], y_target.dtype)))
        return tf.stack([y_target[:, 0], tf.where(x_near[:, 1] < 0, -root, root)], axis=1)

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        mirrored = x * tf.constant([1.0, -1.0], x.dtype)
        return tf.minimum(tf.norm(x - x_ref, axis=1), tf.norm(mirrored - x_ref, axis=1))

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        check_positive_int("batch_size", batch_size)
        x = self.extent * (2.0 * random_fields.uniform([batch_size, 2], seed, dtype=self.dtype) - 1.0)
        return {"x": x, "y": self.forward(x)}
