"""What batch norm has learned of the data, measured with the weights of the moment."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_sip.data import first_observations

# Enough for means and variances, quick beside training.
EXAMPLES = 512


class BatchNormStatistics:
    """Means and variances of batch norm over given batches, in place of moving averages.

    In training batch norm uses the statistics of the batch; in inference, moving averages of those of the last batches.
    They belong to networks that have changed since, and scatter with the few batches that they remember: on heat, 1,000
    steps of SIP, they raise the error in x by a third. Here the network of the moment sees B batches, and

        mean = (m_1 + ... + m_B) / B;    variance = (v_1 + ... + v_B) / B + variance of m_1, ..., m_B

    which is that of all their examples together, take their place. Training itself never reads them.

    Source: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", Section 3 (PreciseBN).

    Args:
        model: A Keras model.
        batches: What it sees, a list of its inputs in batches of one size.
    """

    def __init__(self, model: keras.Model, batches: list):
        self.model, self.batches = model, batches
        self._layers = list(batch_norms(model))
        self._measured = tf.function(self._statistics_of, autograph=False)

    def measure(self) -> None:
        """Put the statistics of the batches in place of the moving averages."""
        if not self._layers or not self.batches:
            return
        state = [(variable, variable.numpy()) for layer in self._layers for variable in layer.non_trainable_variables]
        by_batch = [self._measured(batch) for batch in self.batches]
        for variable, before in state:
            variable.assign(before)
        for layer, *batches in zip(self._layers, *by_batch, strict=True):
            means, variances = (tf.stack(values) for values in zip(*batches, strict=True))
            layer.moving_mean.assign(tf.reduce_mean(means, 0))
            layer.moving_variance.assign(tf.reduce_mean(variances, 0) + tf.math.reduce_variance(means, 0))

    def _statistics_of(self, batch):
        """[(mean, variance)] of a batch, by layer."""
        # Traced once; a momentum of 0 leaves nothing of the batches before.
        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.callback(setattr, layer, "momentum", layer.momentum)
                layer.momentum = 0.0
            self.model(batch, training=True)
            return [(tf.identity(layer.moving_mean), tf.identity(layer.moving_variance)) for layer in self._layers]


class MeasuredStatistics(keras.callbacks.Callback):
    """Keeps the statistics of batch norm those of a model's last weights: what `SIPModel` does by default.

    As a callback it measures them when fit ends; `refresh` does wherever the model answers.

    Args:
        model: A `SIPModel`.
        data: What it is trained on; its first batches are kept.
    """

    def __init__(self, model: keras.Model, data: Any):
        super().__init__()
        self._statistics = BatchNormStatistics(model, first_observations(data, EXAMPLES))
        self._steps = model.training_steps

    @classmethod
    def of_fit(cls, model: keras.Model, data: Any, callbacks: list) -> "MeasuredStatistics | None":
        """The statistics for a fit; None without batch norm, or where one of the callbacks measures them."""
        elsewhere = any(getattr(callback, "measures_statistics", False) for callback in callbacks)
        return None if elsewhere or not list(batch_norms(model)) else cls(model, data)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.refresh(self.model)

    def refresh(self, model: keras.Model) -> None:
        """Measure, if the model has been trained since."""
        if self._steps != model.training_steps:
            self._statistics.measure()
            self._steps = model.training_steps


def batch_norms(model: keras.Model) -> Iterator[Any]:
    """The layers of batch norm in a model that its training changes."""
    for inner in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(inner, keras.layers.BatchNormalization) and inner.trainable:
            yield inner
