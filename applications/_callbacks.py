"""Keras callbacks of the runner: they measure, show and save while `SIPModel.fit` trains."""

import signal
import statistics
import threading
import time

import keras
import tensorflow as tf

RUNNING_MEAN = 10
SECONDS_BETWEEN_CHECKPOINTS = 60


class Recorder(keras.callbacks.Callback):
    """Measures each training step and, at the scheduled ones, the evaluation set. First in the list of callbacks.

    The others read its `row`, the numbers of the step that has just ended. The model's metrics are reset after each
    step, so that a batch is measured alone and not averaged with those before.

    Args:
        metrics: `Metrics` to append to; its rows of this run are those before the first step.
        method, seed: Which run this is.
        first_step: Steps already done.
        evaluation: Dataset of the evaluation examples.
        schedule: Steps to evaluate after, in order; the last is the run's last.
        error_parts: {name: `(x, x_ref) -> [B]`}, measured with the evaluation set.
    """

    def __init__(self, metrics, method, seed, first_step, evaluation, schedule, error_parts=None):
        super().__init__()
        self._error_parts = error_parts or {}
        self.metrics, self.method, self.seed = metrics, method, seed
        self.step = self._first_step = first_step
        self._evaluation, self._schedule = evaluation, schedule
        earlier = [row for row in metrics.run(method, seed) if row["step"] > 0]
        self._window = [(row["batch_x_error"], row["batch_loss"]) for row in earlier[-RUNNING_MEAN:]]
        self._train_seconds = earlier[-1]["train_seconds"] if earlier else 0.0
        self._compile_seconds = earlier[-1]["compile_seconds"] if earlier else 0.0
        self._seconds_before = self._train_seconds
        # The first execution compiles and is left out of the rate.
        self._timed_from = first_step
        self.row = None

    @property
    def steps_per_second(self):
        """Rate since the start of this program; 0 before the second execution."""
        seconds = self._train_seconds - self._seconds_before
        return (self.step - self._timed_from) / seconds if seconds > 0 else 0.0

    def on_train_begin(self, logs=None):
        if self.step == 0:
            self._write(**self._evaluate(0, 0))

    def on_train_batch_begin(self, batch, logs=None):
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        # Keras has read the step's metrics into `logs` by now, so that the step is over also on a GPU.
        seconds = time.perf_counter() - self._began
        # The last execution may hold fewer steps; Keras counts it as a whole one.
        previous, self.step = self.step, min(self._first_step + batch + 1, self._schedule[-1])
        if previous == self._first_step:
            self._compile_seconds += seconds
            self._timed_from = self.step
        else:
            self._train_seconds += seconds
        self.model.reset_metrics()
        self._window = [*self._window, (logs["x_error"], logs["loss"])][-RUNNING_MEAN:]
        x_errors, losses = zip(*self._window, strict=True)
        self._write(
            train_x_error=statistics.fmean(x_errors),
            train_loss=statistics.fmean(losses),
            batch_x_error=logs["x_error"],
            batch_loss=logs["loss"],
            failed=logs.get("failed"),
            **self._evaluate(previous + 1, self.step),
        )

    def _evaluate(self, first, last):
        """The evaluation set's numbers if a scheduled step is among these."""
        if not any(first <= step <= last for step in self._schedule):
            return {}
        measured = self.model.evaluate(self._evaluation, verbose=0, return_dict=True)
        self.model.reset_metrics()
        return {"x_error": measured["x_error"], "loss": measured["loss"], **self._measure_parts()}

    def _measure_parts(self):
        if not self._error_parts:
            return {}
        x_ref = tf.concat([x for _, x in self._evaluation], 0)
        x = tf.constant(self.model.predict(self._evaluation.map(lambda observation, _: observation), verbose=0))
        return {name: float(tf.reduce_mean(part(x, x_ref))) for name, part in self._error_parts.items()}

    def _write(self, **values):
        seconds = {"train_seconds": self._train_seconds, "compile_seconds": self._compile_seconds}
        self.row = self.metrics.append(self.method, self.seed, self.step, **values, **seconds)


class Progress(keras.callbacks.Callback):
    """Shows the recorder's numbers on a `ProgressBar`."""

    def __init__(self, recorder, bar):
        super().__init__()
        self.recorder, self.bar = recorder, bar

    def on_train_begin(self, logs=None):
        self.bar.note("compiling the training step ...")

    def on_train_batch_end(self, batch, logs=None):
        row = self.recorder.row
        self.bar.show(row["step"], row["train_x_error"], row["train_loss"], self.recorder.steps_per_second)


class Checkpoint(keras.callbacks.Callback):
    """Saves model and optimizer once a minute, at the last step, and before the program stops on Ctrl-C.

    Args:
        recorder: The run's `Recorder`.
        folder: `RunFolder` to save in.
        steps: The last step.
        interruption: The `Interruption` to watch.
    """

    def __init__(self, recorder, folder, steps, interruption):
        super().__init__()
        self.recorder, self.folder, self.steps, self.interruption = recorder, folder, steps, interruption
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        recorder = self.recorder
        due = time.monotonic() - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS
        if due or recorder.step >= self.steps or self.interruption.requested:
            self.folder.save_checkpoint(self.model, recorder.method, recorder.seed, recorder.step)
            self._saved_at = time.monotonic()
        if self.interruption.requested:
            raise KeyboardInterrupt


class TensorBoard(keras.callbacks.Callback):
    """Writes curves and, at the steps of the table, reconstructions as event files; from the host, never in the step.

    A resumed run writes the steps since its checkpoint a second time: the same values, which curves do not show.

    Args:
        recorder: The run's `Recorder`.
        folder: Where the event files go.
        picture_steps: Steps at which `draw` is called.
        draw: `model -> PNG bytes`, or None.
    """

    def __init__(self, recorder, folder, picture_steps=(), draw=None):
        super().__init__()
        self.recorder, self.picture_steps, self.draw = recorder, picture_steps, draw
        self.writer = tf.summary.create_file_writer(str(folder))

    def on_train_batch_end(self, batch, logs=None):
        row = self.recorder.row
        curves = {
            "x_error/evaluation": row["x_error"],
            "x_error/training batch": row["batch_x_error"],
            "loss/evaluation": row["loss"],
            "loss/training batch": row["batch_loss"],
            "solver/failed share": row["failed"],
        }
        with self.writer.as_default(row["step"]):
            for name, value in curves.items():
                if value is not None:
                    tf.summary.scalar(name, value)
            if self.draw and row["step"] in self.picture_steps:
                picture = tf.io.decode_png(self.draw(self.model), channels=3)
                tf.summary.image("reconstruction", picture[None])
        if row["x_error"] is not None:
            self.writer.flush()

    def close(self):
        self.writer.close()


class Interruption:
    """Ctrl-C, kept until the training step is done and a checkpoint is written; a second one stops at once.

    A context manager. `requested` tells whether Ctrl-C was pressed.
    """

    requested = False

    def __enter__(self):
        # Signals reach the main thread only, and only there can they be handled.
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:
            self._previous = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, *exception):
        if self._in_main_thread:
            signal.signal(signal.SIGINT, self._previous)

    def _remember(self, number, frame):
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nFinishing this step and saving; Ctrl-C again stops at once.", flush=True)
