"""BatchStatistics: what batch norm has learned of the data, measured anew before it is used."""

import contextlib
from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part


class BatchStatistics(keras.callbacks.Callback):
    """Measures the means and variances of batch norm on fixed observations before each evaluation and when fit ends.

    In training batch norm uses the statistics of the batch; in inference, moving averages of those of the last batches.
    They belong to networks that have changed since, and scatter with the few batches that they remember: on heat, 1,000
    steps of SIP, they raise the error in x by a third. Here the network of the moment sees B batches, and

        mean = (m_1 + ... + m_B) / B;    variance = (v_1 + ... + v_B) / B + variance of m_1, ..., m_B

    which is that of all their examples together, take their place. Training itself never reads them.

        statistics = keras_sip.callbacks.BatchStatistics(keras_sip.evaluation_set(simulator, 512, seed=2)[0], 32)
        model.fit(data, validation_data=validation, callbacks=[statistics])

    It must come before callbacks that save or evaluate. `model.evaluate(..., callbacks=[statistics])` measures first
    too. A network without batch norm is left as it is.

    Source: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", Section 3 (PreciseBN).

    Args:
        observation: What the model sees, `[N, ...]` or, with a context, a dictionary of such; not the examples that the
            model is judged on.
        batch_size: Examples in a batch, those of the training; a smaller last batch is left out.
    """

    def __init__(self, observation: Any, batch_size: int = 32) -> None:
        super().__init__()
        check_positive_int("batch_size", batch_size)
        examples = len(tf.nest.flatten(observation)[0])
        if examples < batch_size:
            raise ValueError(
                three_part(f"at least {batch_size} observations, one batch", str(examples), "Lower batch_size.")
            )
        self._batches = [
            tf.nest.map_structure(
                lambda entry, first=first: tf.convert_to_tensor(entry[first : first + batch_size]), observation
            )
            for first in range(0, examples - batch_size + 1, batch_size)
        ]
        self._measured: keras.Model | None = None
        self._measure: Any = None

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.measure()

    def on_train_end(self, logs: dict | None = None) -> None:
        self.measure()

    def measure(self) -> None:
        """Put the statistics of the observations in place of the moving averages."""
        if self._measured is not self.model:
            self._measured, self._layers = self.model, list(_batch_norms(self.model))
            self._measure = tf.function(self._statistics_of)
        if not self._layers:
            return
        state = [(variable, variable.numpy()) for layer in self._layers for variable in layer.non_trainable_variables]
        by_batch = [self._measure(batch) for batch in self._batches]
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


def _batch_norms(layer):
    """The layers of batch norm in a model that its training changes."""
    for inner in layer._flatten_layers(include_self=False, recursive=True):
        if isinstance(inner, keras.layers.BatchNormalization) and inner.trainable:
            yield inner
