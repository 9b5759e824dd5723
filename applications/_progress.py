"""Progress of a run: one line that is redrawn on a terminal, a plain line now and then in a log file."""

import shutil
import sys
import time

WIDTH = 80
BAR = 16
SECONDS_BETWEEN_LINES = 15
SECONDS_BETWEEN_DRAWS = 0.1


class ProgressBar:
    """Shows where one run is: step, step rate, error in x, loss in y, time left.

    Args:
        title: Names the run, such as "[1/2] sip s0".
        steps: The last step.
        stream: Where it is shown.
    """

    def __init__(self, title, steps, stream=None):
        self.title, self.steps = title, steps
        self.stream = stream or sys.stdout
        self.on_terminal = self.stream.isatty()
        self._shown_at = 0.0

    def note(self, text):
        """A word on what is going on before there is a first step."""
        if self.on_terminal:
            self._draw(f"{self.title}  {text}")

    def show(self, step, x_error, loss, steps_per_second):
        """Redraw the line, or print one if the last is some time ago."""
        now, last = time.monotonic(), step >= self.steps
        pause = SECONDS_BETWEEN_DRAWS if self.on_terminal else SECONDS_BETWEEN_LINES
        if now - self._shown_at < pause and not last:
            return
        self._shown_at = now
        numbers = [f"x {_number(x_error)}", f"y {loss:.1e}"]
        if steps_per_second > 0:
            numbers.insert(0, f"{steps_per_second:.3g}/s")
            numbers.append("" if last else f"ETA {_duration((self.steps - step) / steps_per_second)}")
        count = f"{step:>{len(str(self.steps))}}/{self.steps}"
        room = _width() - len(" ".join([self.title, count, *numbers]))
        # A bar of fewer cells would tell nothing; the numbers come first.
        cells = min(BAR, room - 3) if room >= 8 else 0
        filled = cells * step // self.steps
        bar = [f"[{'#' * filled}{'-' * (cells - filled)}]"] if cells else []
        line = " ".join([self.title, count, *bar, *numbers]).rstrip()
        if self.on_terminal:
            self._draw(line)
        else:
            print(line, file=self.stream, flush=True)

    def close(self):
        """Leave the line as it is and go to the next."""
        if self.on_terminal and self._shown_at:
            print(file=self.stream, flush=True)

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
