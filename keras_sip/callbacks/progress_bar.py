"""Progress of a run: one line that is redrawn on a terminal, a plain line now and then in a log file."""

import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from keras_sip.callbacks.follower import Follower

WIDTH = 80
BAR = 16
SECONDS_BETWEEN_LINES = 15
SECONDS_BETWEEN_DRAWS = 0.1


class ProgressBar(Follower):
    """Names what matters while `fit` trains: step, step rate, error in x, loss in y, failed share, time left.

    Pass it with `verbose=0`. Numbers are means over the last ten executions, not since the epoch began. In a log file
    it is a whole line every 15 seconds.

    Args:
        title: Names the run.
        steps: The last step; None takes it from fit.
        stream: Where it is shown; None is standard output.
    """

    def __init__(self, title: str = "training", steps: int | None = None, stream: TextIO | None = None) -> None:
        super().__init__()
        self.title, self.steps, self.stream = title, steps, stream
        # A ProgressLine while fit runs.
        self.line: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        per_epoch = self.params.get("steps")
        steps = self.steps or (per_epoch and self.step + per_epoch * self.params.get("epochs", 1))
        self.line = ProgressLine(self.title, steps, self.stream)
        self.line.note("compiling the training step ...")

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        self.line.show(self.step, self.running_means(), self.steps_per_second)

    def on_test_begin(self, logs: dict | None = None) -> None:
        # An evaluation between steps; one by itself has no line.
        if self.line is not None:
            self.line.note("measuring ...")

    def on_train_end(self, logs: dict | None = None) -> None:
        self.line.close()
        self.line = None


class ProgressLine:
    """Shows where one run is: step, step rate, error in x, loss in y, failed share, time left.

    Args:
        title: Names the run, such as "[1/2] sip s0".
        steps: The last step; None where it is not known.
        stream: Where it is shown; None is standard output.
        budget: Seconds of training that the run may take, or None.
    """

    def __init__(
        self, title: str, steps: int | None, stream: TextIO | None = None, *, budget: float | None = None
    ) -> None:
        self.title, self.steps, self.budget = title, steps, budget
        self.stream = stream or sys.stdout
        self.on_terminal = self.stream.isatty()
        self._shown_at, self._step = 0.0, 0

    def note(self, text: str) -> None:
        """A word on what is going on while no step ends: compiling, measuring."""
        if self.on_terminal:
            self._draw(f"{self.title} {f'after step {self._step}: ' if self._step else ' '}{text}")

    def show(self, step: int, means: Mapping[str, float], steps_per_second: float, train_seconds: float = 0.0) -> None:
        """Redraw the line, or print one if the last is some time ago.

        Args:
            step: Steps done.
            means: {"x_error", "loss", "failed": number}; what is missing is not shown, nor is a failed share of 0.
            steps_per_second: 0 where it is not known yet.
            train_seconds: Of the budget, where there is one.
        """
        self._step = step
        now, last = time.monotonic(), self._share_done(step, train_seconds) >= 1
        pause = SECONDS_BETWEEN_DRAWS if self.on_terminal else SECONDS_BETWEEN_LINES
        if now - self._shown_at < pause and not last:
            return
        self._shown_at = now
        numbers = self._numbers(step, means, steps_per_second, train_seconds)
        line = " ".join([self.title, *self._count_and_bar(step, numbers, train_seconds)]).rstrip()
        if self.on_terminal:
            self._draw(line)
        else:
            print(line, file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the line as it is and go to the next."""
        if self.on_terminal and self._shown_at:
            print(file=self.stream, flush=True)

    def _share_done(self, step, train_seconds):
        shares = [step / self.steps if self.steps else 0.0, train_seconds / self.budget if self.budget else 0.0]
        return max(shares)

    def _numbers(self, step, means, steps_per_second, train_seconds):
        numbers = []
        if steps_per_second > 0:
            numbers.append(f"{steps_per_second:.3g}/s")
        if "x_error" in means:
            numbers.append(f"x {_number(means['x_error'])}")
        if "loss" in means:
            numbers.append(f"y {means['loss']:.1e}")
        if means.get("failed", 0) > 0:
            numbers.append(f"failed {100 * means['failed']:.0f}%")
        if steps_per_second > 0 and self.steps and self._share_done(step, train_seconds) < 1:
            left = (self.steps - step) / steps_per_second
            left = left if self.budget is None else min(left, self.budget - train_seconds)
            numbers.append(f"ETA {_duration(left)}")
        return numbers

    def _count_and_bar(self, step, numbers, train_seconds):
        if not self.steps:
            return [str(step), *numbers]
        count = f"{step:>{len(str(self.steps))}}/{self.steps}" if self.budget is None else str(step)
        room = _width() - len(" ".join([self.title, count, *numbers]))
        # A bar of fewer cells would tell nothing; the numbers come first.
        cells = min(BAR, room - 3) if room >= 8 else 0
        filled = int(cells * min(1.0, self._share_done(step, train_seconds)))
        bar = [f"[{'#' * filled}{'-' * (cells - filled)}]"] if cells else []
        return [count, *bar, *numbers]

    def _draw(self, line):
        print(f"\r{line[: _width()]:<{_width()}}", end="", file=self.stream, flush=True)


def _width():
    # One column is left free: terminals wrap when the last one is written.
    return min(WIDTH, shutil.get_terminal_size().columns) - 1


def _number(value):
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"


def _duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
