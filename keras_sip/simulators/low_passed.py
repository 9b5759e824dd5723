"""LowPassed: a process whose records are smoothed in time, for inversion from low frequencies to high ones."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_number, three_part
from keras_sip.simulators.base import Context, Simulator
from keras_sip.simulators.wrapper import SimulatorWrapper


@keras.saving.register_keras_serializable(package="keras_sip")
class LowPassed(SimulatorWrapper):
    """The process G P(x), G a Gaussian average along the first axis of y, the time:

        (G y)(t) = sum over t' of y(t') exp(-(t - t')^2 / (2 width^2)) / (sqrt(2 pi) width)

    Frequencies above 1 / (2 pi width) hardly pass. Inversion of waves from a poor start goes from wide to narrow: the
    wider, the fewer local minima (frequency continuation).

        for width in (16.0, 8.0, 4.0):
            smooth = keras_sip.LowPassed(simulator, width=width)
            x = solver.refine(smooth, x, smooth.filtered(y), steps=20).x

    Source: C. Bunks et al., Multiscale seismic waveform inversion, Geophysics 60 (1995).

    Args:
        simulator: A simulator whose y `[B, times, ...]` has the time as its first axis.
        width: Standard deviation of the average, in recorded samples.
    """

    def __init__(self, simulator: Simulator, *, width: float):
        super().__init__(simulator)
        self.width = check_number("width", width, exclusive=True)
        if len(self.y_shape) < 2:
            raise ValueError(
                three_part(
                    "y of shape [times, ...]",
                    f"y_shape={self.y_shape} of {simulator!r}",
                    "Give y an axis for the time.",
                )
            )

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.filtered(self.physical.forward(x, context))

    def filtered(self, y: Any) -> tf.Tensor:
        """G y, of records `[B, times, ...]`."""
        y = tf.convert_to_tensor(y, self.dtype)
        times = np.arange(self.y_shape[0])
        kernel = np.exp(-0.5 * np.square((times[:, None] - times) / self.width)) / (np.sqrt(2 * np.pi) * self.width)
        flat = tf.reshape(y, [-1, y.shape[1], int(np.prod(y.shape[2:]))])
        return tf.reshape(tf.matmul(tf.constant(kernel, y.dtype), flat), [-1, *y.shape[1:]])
