"""The TensorBoard benchmark runs at a tiny size and judges the limit by the ratio that it writes."""

import contextlib
import io
import json

import numpy as np
import pytest

import tensorboard_cost


@pytest.mark.usefixtures("eagerly")
def test_fits_with_and_without_the_callback_are_compared(tmp_path):
    path = tmp_path / "new" / "cost.json"
    # Batch norm is measured on 512 examples in batches of this size: a larger one takes fewer of them.
    size = "--steps 2 --batch 256 --resolution 8 --levels 1 --repeats 2 --clock processor --output"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        tensorboard_cost.main([*size.split(), str(path)])
    numbers = json.loads(path.read_text())
    inside, whole = np.array(numbers["inside"]["seconds"]), np.array(numbers["fit"]["with"]["seconds"])
    # The two evaluations of so short a fit are part of it.
    assert len(inside) == 2 and (inside > 0).all() and (inside < whole).all()
    assert numbers["ratio"]["value"] == pytest.approx(np.median(whole) / np.median(whole - inside))
    assert numbers["fit"]["with"]["median"] > 0 and numbers["fit"]["without"]["median"] > 0
    verdict = next(line for line in printed.getvalue().splitlines() if line.startswith("limit"))
    assert verdict.split()[-1] == ("kept" if numbers["ratio"]["value"] <= tensorboard_cost.LIMIT else "EXCEEDED")


@pytest.mark.parametrize("words", [["--steps", "0"], ["--batch", "-1"]])
def test_bad_options_are_refused(words):
    with pytest.raises(SystemExit):
        tensorboard_cost.main(words)
