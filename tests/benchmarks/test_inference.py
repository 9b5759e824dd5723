"""The inference benchmark runs at a tiny size, every way of answering is measured, and the limit is judged."""

import contextlib
import importlib.util
import io
import json

import numpy as np
import pytest

import inference
from _timing import TABLE_WIDTH

needs_onnx = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs the extra `onnx`")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(what was printed, the numbers) of a run on 8 x 8 cells."""
    path = tmp_path_factory.mktemp("benchmark") / "new" / "inference.json"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        inference.main("--batch 1 64 --resolution 8 --levels 1 --repeats 2 --output".split() + [str(path)])
    return printed.getvalue(), json.loads(path.read_text())


def test_all_ways_are_measured_for_each_batch(finished):
    printed, numbers = finished
    assert list(numbers["batches"]) == ["1", "64"]
    for by_way in numbers["batches"].values():
        assert {"predict", "predict_on_batch", "SavedModel", "SavedModel, XLA", "LiteRT"} <= set(by_way)
        assert all(np.isfinite(way["median"]) and way["median"] > 0 for way in by_way.values())
    assert max(map(len, printed.splitlines())) <= TABLE_WIDTH


@needs_onnx
def test_the_limit_is_judged_at_batch_64(finished):
    printed, numbers = finished
    assert "ONNX Runtime" in numbers["batches"]["64"]
    line = next(line for line in printed.splitlines() if "at least 0.80 at 64" in line)
    shown = next(line for line in printed.splitlines() if line.startswith("SavedModel / ONNX"))
    assert line.split()[-1] == ("kept" if float(shown.split()[-1]) >= 0.8 else "MISSED")
    line = next(line for line in printed.splitlines() if "at most 1.3 at 1" in line)
    single = numbers["batches"]["1"]
    quotient = single["SavedModel"]["median"] / single["ONNX Runtime"]["median"]
    assert line.split()[-1] == ("kept" if quotient <= 1.3 else "above")


@pytest.mark.parametrize("words", [["--batch", "0"], ["--levels", "0"], ["--repeats", "x"]])
def test_bad_options_are_refused(words):
    with pytest.raises(SystemExit):
        inference.main(words)
