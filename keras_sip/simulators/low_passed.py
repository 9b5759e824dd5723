"""LowPassed: a process whose records are smoothed in time, for inversion from low frequencies to high ones."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_number, three_part
from keras_sip.simulators.base import Context, Simulator
from keras_sip.simulators.wrapper import SimulatorWrapper

# In samples: what is narrower leaves y as it is.
NARROWEST = 1e-2


@keras.saving.register_keras_serializable(package="keras_sip")
class LowPassed(SimulatorWrapper):
    """The process G P(x), G a Gaussian average along the first axis of y, the time; y is 0 beyond its ends:

        (G y)(t) = sum over t' of y(t') h(t - t') / sum over all integers n of h(n),    h(n) = exp(-n^2 / (2 width^2))

    Frequencies above 1 / (2 pi width) hardly pass. Inversion of waves from a poor start goes from wide to narrow: the
    wider, the fewer local minima (frequency continuation). `context` may hold "low_pass" `[B]`, in place of `width`:

        smooth = keras_sip.LowPassed(simulator)
        for width in (16.0, 8.0, 4.0, 0.0):
            context = {"low_pass": tf.fill([len(y)], width)}
            x = solver.refine(smooth, x, smooth.filtered(y, context), context, steps=20).x

    Source: C. Bunks et al., Multiscale seismic waveform inversion, Geophysics 60 (1995).

    Args:
        simulator: A simulator whose y `[B, times, ...]` has the time as its first axis.
        width: Standard deviation of the average, in recorded samples; 0 leaves y as it is.
    """

    def __init__(self, simulator: Simulator, *, width: float = 0.0):
        super().__init__(simulator)
        self.width = check_number("width", width)
        if len(self.y_shape) < 2:
            raise ValueError(
                three_part(
                    "y of shape [times, ...]",
                    f"y_shape={self.y_shape} of {simulator!r}",
                    "Give y an axis for the time.",
                )
            )

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.filtered(self.physical.forward(x, context), context)

    def filtered(self, y: Any, context: Context = None) -> tf.Tensor:
        """G y, of records `[B, times, ...]`."""
        y = tf.convert_to_tensor(y, self.dtype)
        given = (context or {}).get("low_pass")
        width = tf.constant([self.width], y.dtype) if given is None else tf.cast(given, y.dtype)
        width = tf.maximum(width, NARROWEST)[:, None, None]
        apart = np.arange(1 - y.shape[1], y.shape[1])
        gaussian = tf.exp(-0.5 * tf.square(tf.constant(apart, y.dtype) / width))
        kernel = tf.exp(-0.5 * tf.square(tf.constant(np.subtract.outer(*2 * [np.arange(y.shape[1])]), y.dtype) / width))
        flat = tf.reshape(y, [-1, y.shape[1], int(np.prod(y.shape[2:]))])
        smooth = tf.matmul(kernel / tf.reduce_sum(gaussian, axis=2, keepdims=True), flat)
        return tf.reshape(smooth, [-1, *y.shape[1:]])
