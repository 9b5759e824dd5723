"""BatchStatistics: batch norm's means and variances on observations of the user's choice."""

from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part
from keras_sip.training.batch_statistics import BatchNormStatistics


class BatchStatistics(keras.callbacks.Callback):
    """Measures the statistics of batch norm on fixed observations before each evaluation and when fit ends.

    `SIPModel` measures them by itself, on the first batches that `fit` trains on; this is for other observations, and
    for other models.

        statistics = keras_sip.callbacks.BatchStatistics(keras_sip.evaluation_set(simulator, 512, seed=2)[0], 32)
        model.fit(data, validation_data=validation, callbacks=[statistics])

    It must come before callbacks that save or evaluate. `model.evaluate(..., callbacks=[statistics])` measures first
    too. A network without batch norm is left as it is. See `BatchNormStatistics` for what is measured.

    Args:
        observation: What the model sees, `[N, ...]` or, with a context, a dictionary of such; not the examples that the
            model is judged on.
        batch_size: Examples in a batch, those of the training; a smaller last batch is left out.
    """

    # SIPModel.fit then leaves it to this one.
    measures_statistics = True

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
        self._statistics: BatchNormStatistics | None = None

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.measure()

    def on_train_end(self, logs: dict | None = None) -> None:
        self.measure()

    def measure(self) -> None:
        """Put the statistics of the observations in place of the moving averages."""
        if self._statistics is None or self._statistics.model is not self.model:
            self._statistics = BatchNormStatistics(self.model, self._batches)
        self._statistics.measure()
