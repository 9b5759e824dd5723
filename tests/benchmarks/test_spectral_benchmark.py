"""The benchmark of spectral inverses runs at a tiny size, and its ratios are those of the faster ways."""

import contextlib
import io
import json

import numpy as np
import pytest

import spectral
from _timing import TABLE_WIDTH


def test_every_piece_is_measured_in_both_ways(tmp_path):
    path = tmp_path / "new" / "spectral.json"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        spectral.main(["--cells", "8", "--examples", "1", "--repeats", "2", "--skip-memory", "--output", str(path)])
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= TABLE_WIDTH
    measured = json.loads(path.read_text())["cells"]["8"]
    assert measured["examples"] == 64
    assert set(measured["seconds"]) == {f"{piece} {kind}" for piece in spectral.PIECES for kind in ("graph", "XLA")}
    for name in spectral.SOLVERS:
        assert any(line.startswith(name) and ("kept" in line or "EXCEEDED" in line) for line in lines)


def test_ratio_is_that_of_the_faster_ways():
    seconds = {("FFTs", "graph"): [2.0, 2.0], ("FFTs", "XLA"): [4.0, 4.0]}
    seconds |= {("damped", "graph"): [7.0, 7.0], ("damped", "XLA"): [3.0, 3.0]}
    measured = spectral.best_ratio({key: np.array(turns) for key, turns in seconds.items()}, "damped")
    assert measured.value == measured.low == measured.high == 1.5


def test_pieces_compute_what_they_are_named_after():
    for name, (function, arguments) in spectral.pieces(8, 2).items():
        result = function(*arguments)
        if name == "FFTs":
            np.testing.assert_allclose(result, arguments[0], atol=1e-13)
        assert np.all(np.isfinite(result))


def test_sizes_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        spectral.main(["--cells", "0"])
    assert "--cells: Expected a whole number of at least 1. Received 0." in capsys.readouterr().err
