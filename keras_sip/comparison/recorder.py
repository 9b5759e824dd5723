"""What measures, shows and saves while `SIPModel.fit` trains one of the compared models."""

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from keras_sip.callbacks import BatchStatistics, ExactResume
from keras_sip.callbacks.follower import RUNNING_MEAN, Follower
from keras_sip.callbacks.progress_bar import ProgressLine
from keras_sip.comparison.interruption import Interruption
from keras_sip.comparison.records import Metrics, as_written

SECONDS_BETWEEN_CHECKPOINTS = 60


class Recorder(Follower):
    """Measures each training step and, at the scheduled ones, the evaluation set. First in the list of callbacks.

    The others read its `row`, the numbers of the step that has just ended, and find the evaluation's in `logs`, under
    Keras' names for validation. The model's metrics are reset after each step, so that a batch is measured alone and
    not averaged with those before.

    Args:
        metrics: `Metrics` to append to; its rows of this run are those before the first step.
        method, seed: Which run this is.
        first_step: Steps already done.
        evaluation: Dataset of the evaluation examples.
        schedule: Steps to evaluate after, in order; the last is the run's last.
        budget: Seconds of training after which the run ends, or None.
        error_parts: {name: `(x, x_ref) -> [B]`}, measured with the evaluation set.
        batch_statistics: What measures batch norm before each evaluation, or None.
        line: Where it is said that the evaluation set is being measured, or None.
    """

    # Before each evaluation, where it is asked to: SIPModel.fit leaves it to this one.
    measures_statistics = True

    def __init__(
        self,
        metrics: Metrics,
        method: str,
        seed: int,
        first_step: int,
        evaluation: tf.data.Dataset,
        schedule: Sequence[int],
        budget: float | None = None,
        error_parts: Mapping[str, Callable] | None = None,
        batch_statistics: BatchStatistics | None = None,
        line: ProgressLine | None = None,
    ) -> None:
        super().__init__(first_step)
        self._error_parts = error_parts or {}
        self._before_evaluating = [batch_statistics] if batch_statistics else []
        self._line = line
        self.metrics, self.method, self.seed = metrics, method, seed
        self._evaluation, self._schedule, self._budget = evaluation, schedule, budget
        earlier = [row for row in metrics.run(method, seed) if row["step"] > 0]
        window = [(row["batch_x_error"], row["batch_loss"]) for row in earlier[-RUNNING_MEAN:]]
        self._window = [pair for pair in window if None not in pair]
        self._seconds_before = {
            name: earlier[-1][name] or 0.0 if earlier else 0.0 for name in ("train_seconds", "compile_seconds")
        }
        self.row = None

    @property
    def is_finished(self) -> bool:
        """Whether the step that has just ended is the run's last."""
        spent = self._seconds_before["train_seconds"] + self.train_seconds
        return self.step >= self._schedule[-1] or is_used_up(self._budget, spent)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.step == 0:
            self._write(**self._evaluate(0, 0))

    def on_train_batch_end(self, batch, logs=None):
        previous = self.step
        super().on_train_batch_end(batch, logs)
        self.model.reset_metrics()
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(f"the loss of the training batch is {logs['loss']} at step {self.step}: diverged")
        self.model.stop_training = self.is_finished
        # As they are written: a run that goes on finds its last batches in the file.
        self._window = [*self._window, (as_written(logs["x_error"]), as_written(logs["loss"]))][-RUNNING_MEAN:]
        x_errors, losses = zip(*self._window, strict=True)
        evaluated = self._evaluate(previous + 1, self.step)
        logs.update({f"val_{name}": value for name, value in evaluated.items()})
        self._write(
            train_x_error=statistics.fmean(x_errors),
            train_loss=statistics.fmean(losses),
            batch_x_error=logs["x_error"],
            batch_loss=logs["loss"],
            failed=logs.get("failed"),
            **evaluated,
        )

    def _evaluate(self, first, last):
        """The evaluation set's numbers if a scheduled step, or the last one, is among these."""
        if not (self.is_finished or any(first <= step <= last for step in self._schedule)):
            return {}
        if self._line is not None:
            self._line.note("measuring the evaluation set ...")
        measured = self.model.evaluate(
            self._evaluation, verbose=0, return_dict=True, callbacks=list(self._before_evaluating)
        )
        self.model.reset_metrics()
        return {"x_error": measured["x_error"], "loss": measured["loss"], **self._measure_parts()}

    def _measure_parts(self):
        if not self._error_parts:
            return {}
        x_ref = tf.concat([x for _, x in self._evaluation], 0)
        x = tf.constant(self.model.predict(self._evaluation.map(lambda observation, _: observation), verbose=0))
        return {name: float(tf.reduce_mean(part(x, x_ref))) for name, part in self._error_parts.items()}

    def _write(self, **values):
        seconds = {name: before + getattr(self, name) for name, before in self._seconds_before.items()}
        self.row = self.metrics.append(self.method, self.seed, self.step, **values, **seconds)


class Progress(keras.callbacks.Callback):
    """Shows the recorder's numbers on a `ProgressLine`."""

    def __init__(self, recorder: Recorder, line: ProgressLine) -> None:
        super().__init__()
        self.recorder, self.line = recorder, line

    def on_train_begin(self, logs=None):
        self.line.note("compiling the training step ...")

    def on_train_batch_end(self, batch, logs=None):
        row = self.recorder.row
        means = {"x_error": row["train_x_error"], "loss": row["train_loss"], "failed": row["failed"] or 0.0}
        self.line.show(row["step"], means, self.recorder.steps_per_second, row["train_seconds"])


class Checkpoint(ExactResume):
    """Saves model and optimizer once a minute, at the last step, and before the program stops on a signal.

    Args:
        folder: Of this run's checkpoints.
        interruption: The `Interruption` to watch.
        metrics: Whose rows are on the disk before a checkpoint is, so that none is ahead of its curve.
    """

    def __init__(self, folder: str | os.PathLike, interruption: Interruption, metrics: Metrics) -> None:
        super().__init__(folder, every=None, seconds=SECONDS_BETWEEN_CHECKPOINTS)
        self.interruption, self.metrics = interruption, metrics

    def save(self):
        self.metrics.flush()
        super().save()

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if self.interruption.requested:
            self.save()
            self.interruption.check()


def is_used_up(budget: float | None, seconds: float) -> bool:
    """Whether a run has spent its budget of training time; without one (None) never."""
    return budget is not None and seconds >= budget
