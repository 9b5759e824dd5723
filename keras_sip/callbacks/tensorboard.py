"""SIPTensorBoard: curves, solver health, updates and answers of a training run in TensorBoard."""

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_sip import plotting
from keras_sip._on_use import event_files
from keras_sip.callbacks.calibration import CalibrationPanel
from keras_sip.callbacks.follower import Follower
from keras_sip.callbacks.probe import Probe
from keras_sip.errors import check_number, check_positive_int, three_part

# Charts of the "Custom Scalars" page, by regular expressions of tags.
LAYOUT = {
    "Learning": {
        "error in x": ["x_error/.*"],
        "loss in y": ["loss/.*"],
        "share of truths inside error bars": ["calibration/.*intervals"],
    },
    "Solver health": {
        "share of examples failed": ["solver/failed.*"],
        "share not descending": ["solver/not_descending"],
        "steps": ["solver/steps.*"],
        "update and gradient norm": ["norm/.*"],
        "bad input": ["bad_input/.*"],
    },
    "Speed": {"steps per second": ["speed/.*"]},
}
# What a picture is taken to cost until the first one has been drawn.
SECONDS_A_PICTURE = 1.0
TRAINING_TAGS = {
    "x_error": "x_error/training",
    "loss": "loss/training",
    "failed": "solver/failed, training",
    "solver_steps": "solver/steps, training",
    "update_norm": "norm/update, training",
    "bad_input": "bad_input/training",
}


class SIPTensorBoard(Follower):
    """Writes a run for TensorBoard: `tensorboard --logdir FOLDER`.

    - curves of loss in y and error in x, on training batches (means of the last ten) and on a fixed evaluation set;
    - solver health: steps, shares of examples that failed or do not descend, norm of the update and of the adjoint
      gradient, in units of x_scale; a histogram of the updates' entries;
    - pictures: y_target, simulated y, x, true x and errors as `keras_sip.plotting.answers` draws them (needs
      matplotlib);
    - calibration of error bars when fit ends, where the model's solver gives them and true x are known: how often
      central 50, 80 and 95 % intervals hold the truth, as curves over several fits and as a picture;
    - hyper-parameters, and a layout that groups the curves on the "Custom Scalars" page.

    Time in the event files is training time, without compiling and without what happens between steps: choose
    "Relative" as the horizontal axis to see curves over it. Everything is written from the host between steps: the
    compiled step holds no summary operation, and without this callback nothing is paid.

    Evaluation and pictures at their default happen as often as `max_share` of the training time allows, and at the
    first (without pictures) and the last step.

    Args:
        folder: Where the event file goes.
        evaluation: (observation, x) or observation, a fixed set such as `keras_sip.evaluation_set(...)`; None leaves
            out all that needs one.
        every: Steps between points of the training curves.
        evaluate_every: Steps between evaluations; None lets `max_share` decide.
        pictures: Examples of the evaluation set to draw; 0 draws none.
        hyperparameters: {name: number or text} to add to those of model and optimizer.
        draw: `(y_target, x, y, x_true) -> Figure` in place of `plotting.answers`.
        max_share: Of the training time, for evaluations that have no fixed interval.
        calibration: Examples of the evaluation set whose error bars are judged; 0 judges none.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        evaluation: Any = None,
        *,
        every: int = 10,
        evaluate_every: int | None = None,
        pictures: int = 3,
        hyperparameters: Mapping[str, float | str] | None = None,
        draw: Callable | None = None,
        max_share: float = 0.015,
        calibration: int = 32,
    ) -> None:
        super().__init__()
        self.folder, self.evaluation = folder, evaluation
        self.every = check_positive_int("every", every)
        self.evaluate_every = None if evaluate_every is None else check_positive_int("evaluate_every", evaluate_every)
        self.pictures = check_positive_int("pictures", pictures, minimum=0)
        self.hyperparameters = _plain(hyperparameters or {})
        self.draw = draw
        self.max_share = check_number("max_share", max_share, maximum=1.0)
        self.calibration = check_positive_int("calibration", calibration, minimum=0)
        self._evaluated_at: int | None = None
        # An EventWriter and a Probe from the start of fit on.
        self.writer: Any = None
        self._probe: Any = None

    def due(self, first: int, last: int) -> bool:
        """Whether to evaluate after the steps from `first` to `last`, of one execution."""
        if self.evaluate_every is not None:
            return last // self.evaluate_every > (first - 1) // self.evaluate_every
        if self._measuring is None:
            return True
        # This one and that at the end are expected to cost what the last did.
        expected = 2 * (self._measuring + self._drawing)
        return self._cost + expected <= self.max_share * self.train_seconds

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        self._start = time.time()
        self._cost, self._measuring = 0.0, None
        self._drawing = SECONDS_A_PICTURE if self._draws else 0.0
        self.writer = event_files.EventWriter(self.folder)
        self.writer.begin(self.step + 1, self._start)
        self.writer.hyperparameters({**_of_model(self.model), **self.hyperparameters}, self._start)
        self.writer.layout(LAYOUT, self._start)
        # Kept over several fits: making it anew would trace it anew.
        if self.evaluation is not None and (self._probe is None or self._probe.model is not self.model):
            self._probe = Probe(self.model, self.evaluation)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        previous = self.step
        super().on_train_batch_end(batch, logs)
        if self.step // self.every > previous // self.every:
            self._write_training()
        # Another callback measured them, under Keras' names.
        measured = self._write_validation(logs or {})
        if self._probe is not None and self.due(previous + 1, self.step):
            # The first one, of weights that know nothing yet, is traced; pictures begin with the second.
            first = self._measuring is None and self.evaluate_every is None
            self._evaluate(leave_out=measured, draw=not first)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._write_validation(logs or {})
        self.writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._probe is not None and self._evaluated_at != self.step:
            self._evaluate()
        panel = CalibrationPanel(self.model, self.evaluation, self.calibration)
        if panel.possible:
            panel.write(self.writer, self.step, self._now)
        self.close()

    def close(self) -> None:
        """Close the event file; fit does it, unless it ended with an error."""
        if self.writer is not None:
            self.writer.close()

    def _write_training(self):
        for name, value in self.running_means().items():
            if name in TRAINING_TAGS:
                self._scalar(TRAINING_TAGS[name], value)
        if self.steps_per_second > 0:
            self._scalar("speed/steps per second", self.steps_per_second)

    def _write_validation(self, logs):
        values = {f"{name}/evaluation": logs[f"val_{name}"] for name in ("x_error", "loss") if f"val_{name}" in logs}
        for tag, value in values.items():
            self._scalar(tag, value)
        return values

    def _evaluate(self, leave_out=(), draw=True):
        began = time.perf_counter()
        measured = self._probe.measure()
        for tag, value in measured.scalars.items():
            if tag not in leave_out:
                self._scalar(tag, value)
        if measured.update is not None and np.all(np.isfinite(measured.update)):
            self.writer.histogram("updates", measured.update, self.step, self._now)
        self._measuring = time.perf_counter() - began
        if draw and self._draws:
            shown = slice(self.pictures)
            figure = (self.draw or plotting.answers)(
                measured.y_target[shown],
                measured.x[shown],
                measured.y[shown],
                None if measured.x_true is None else measured.x_true[shown],
            )
            self.writer.picture("answers", plotting.png(figure), self.step, self._now)
            self._drawing = time.perf_counter() - began - self._measuring
        self.writer.flush()
        self._evaluated_at = self.step
        # Without the first one, which traces.
        self._cost += time.perf_counter() - began if draw else 0.0

    def _scalar(self, tag, value):
        if not math.isnan(value):
            self.writer.scalar(tag, value, self.step, self._now)

    @property
    def _draws(self):
        return bool(self.pictures) and plotting.available()

    @property
    def _now(self):
        """The start plus the training time."""
        return self._start + self.train_seconds


def _of_model(model):
    """What is set before training, as TensorBoard's table of hyper-parameters shows it."""
    optimizer = model.optimizer
    rate = keras.saving.serialize_keras_object(optimizer).get("config", {}).get("learning_rate")
    values = {
        "optimizer": type(optimizer).__name__,
        "learning_rate": float(rate) if isinstance(rate, (int, float)) else str(rate and rate.get("class_name")),
        "weights": model.count_params(),
    }
    for name in ("simulator", "solver", "method"):
        if hasattr(model, name):
            values[name] = repr(getattr(model, name))
    return values


def _plain(values):
    unusable = [name for name, value in values.items() if not isinstance(value, (bool, int, float, str))]
    if unusable:
        raise TypeError(
            three_part(
                "`hyperparameters` of numbers and texts",
                ", ".join(f"{name}={values[name]!r}" for name in unusable),
                "Give each as a number or a text, for example with str(value).",
            )
        )
    return dict(values)
