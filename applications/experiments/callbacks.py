"""TensorBoard as the applications use it: whatever happens to its files, training goes on."""

import os
import warnings
from collections.abc import Collection

import tensorflow as tf

from keras_sip.callbacks import SIPTensorBoard
from keras_sip.callbacks.progress_bar import ProgressLine
from keras_sip.errors import three_part


class TensorBoard(SIPTensorBoard):
    """`SIPTensorBoard` with all training batches, and solver and pictures at the steps of the table.

    Args:
        folder: Where the event file goes. Where it cannot be written this is said once, and no more is tried.
        evaluation: (observation, x).
        steps: Steps to measure and draw after.
        line: Where it is said that this is going on, or None.
        **options: As in `SIPTensorBoard`.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        evaluation: tuple,
        steps: Collection[int],
        *,
        line: ProgressLine | None = None,
        **options,
    ) -> None:
        # At fixed steps, so that nothing is left to the share of the time: `due` says at which.
        super().__init__(folder, evaluation, every=1, evaluate_every=1, **options)
        self.steps, self.line, self._failed = steps, line, False

    def due(self, first, last):
        due = self.model.stop_training or any(first <= step <= last for step in self.steps)
        if due and self.line is not None:
            self.line.note("measuring the solver and drawing for TensorBoard ...")
        return due

    def on_train_begin(self, logs=None):
        self._guarded(super().on_train_begin, logs)

    def on_train_batch_end(self, batch, logs=None):
        self._guarded(super().on_train_batch_end, batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._guarded(super().on_epoch_end, epoch, logs)

    def on_train_end(self, logs=None):
        self._guarded(super().on_train_end, logs)

    def close(self):
        self._guarded(super().close)

    def _guarded(self, write, *arguments):
        if self._failed:
            return
        try:
            write(*arguments)
        except (OSError, tf.errors.OpError) as error:
            self._failed = True
            warnings.warn(
                three_part(
                    f"to be able to write TensorBoard's files in {self.folder}",
                    f"{getattr(error, 'strerror', None) or error} at step {self.step}",
                    "Training goes on without them. Free space on the disk, or mend the folder's permissions.",
                ),
                stacklevel=2,
            )
