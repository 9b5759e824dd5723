"""The optimizer benchmark runs at a tiny size, compares all with Adam, and says whether limits are kept."""

import contextlib
import io
import json

import numpy as np
import pytest

import optimizers
from _timing import TABLE_WIDTH


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(what was printed, the numbers) of a run on 8 x 8 cells."""
    path = tmp_path_factory.mktemp("benchmark") / "new" / "optimizers.json"
    size = "--batch 2 --resolution 8 --levels 1 --repeats 2 --skip-memory --optimizers ada_hessian"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        optimizers.main([*size.split(), "--output", str(path)])
    return printed.getvalue(), json.loads(path.read_text())


def test_adam_is_always_measured_and_the_limit_is_judged_by_the_ratio(finished):
    printed, numbers = finished
    measured = numbers["batches"]["2"]
    assert list(measured["steps"]) == ["adam", "ada_hessian"]
    medians = {name: np.median(step["seconds"]) for name, step in measured["steps"].items()}
    ratio = measured["ratios"]["ada_hessian"]["value"]
    assert ratio == pytest.approx(medians["ada_hessian"] / medians["adam"])
    line = next(line for line in printed.splitlines() if line.startswith("ada_hessian"))
    assert ("kept" in line) == (ratio <= 4.0) and ("EXCEEDED" in line) == (ratio > 4.0)
    assert max(map(len, printed.splitlines())) <= TABLE_WIDTH


@pytest.mark.parametrize("words", [["--batch", "0"], ["--optimizers", "lion"], ["--repeats", "-1"]])
def test_bad_options_are_refused(words):
    with pytest.raises(SystemExit):
        optimizers.main(words)
