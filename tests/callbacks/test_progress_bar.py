"""The progress bar: one line of at most 80 columns on a terminal, a plain line now and then elsewhere."""

import io

import pytest

from keras_sip.callbacks import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def unhurried(monkeypatch):
    """Every step counts as far enough from the one before to be shown."""
    monkeypatch.setattr(progress_bar, "SECONDS_BETWEEN_DRAWS", 0)


@pytest.mark.parametrize(("title", "steps"), [("[1/2] sip s0", 60), ("[20/21] levenberg_marquardt s10", 20_000)])
def test_terminal_shows_one_line_that_fits(unhurried, title, steps):
    stream = Terminal()
    bar = progress_bar.ProgressLine(title, steps, stream)
    bar.note("compiling ...")
    for step, rate in ((1, 0.0), (steps // 2, 0.71), (steps, 0.71)):
        bar.show(step, {"x_error": 0.2105, "loss": 1.23e7}, rate)
    bar.close()
    assert stream.getvalue().count("\n") == 1
    # Written in the last column, a terminal would wrap.
    assert {len(line) for line in stream.getvalue().strip().split("\r")[1:-1]} == {79}
    assert title in stream.getvalue() and "x 0.2105 y 1.2e+07" in stream.getvalue()


def test_terminal_shows_rate_bar_and_time_left(unhurried):
    stream = Terminal()
    bar = progress_bar.ProgressLine("[1/2] sip s0", 1000, stream)
    bar.show(500, {"x_error": 0.5, "loss": 2.0}, 0.1)
    line = stream.getvalue().rstrip().lstrip("\r")
    assert line == "[1/2] sip s0  500/1000 [########--------] 0.1/s x 0.5000 y 2.0e+00 ETA 1:23:20"


def test_log_file_gets_whole_lines_now_and_then():
    stream = io.StringIO()
    bar = progress_bar.ProgressLine("[1/2] sip s0", 100, stream)
    for step in range(1, 101):
        bar.show(step, {"x_error": 0.5, "loss": 2.0}, 3.0)
    bar.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and "\r" not in stream.getvalue()
    assert lines[-1] == "[1/2] sip s0 100/100 [################] 3/s x 0.5000 y 2.0e+00"
