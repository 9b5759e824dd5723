"""What the guide to own simulators shows runs as it stands, and gives what it says."""

import pathlib
import re

import numpy as np

import keras_sip

GUIDE = (pathlib.Path(__file__).parents[1] / "docs" / "own_simulator.md").read_text(encoding="utf-8")


def test_guide_checks_diagnoses_trains_and_refines():
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names = {"__name__": "own_simulator"}
    # Refinement starts well enough after a fifth of the training.
    exec(compile(code.replace("steps_per_epoch=1000", "steps_per_epoch=200"), "own_simulator.md", "exec"), names)
    assert names["report"].passed
    assert isinstance(names["diagnosis"].solver, keras_sip.LevenbergMarquardt)
    error = np.abs(names["refined"] - names["x_true"])
    # Noise-free intensities determine the position to the rounding of float32.
    assert np.median(error) < 1e-5


def test_guide_is_short():
    assert len(GUIDE.splitlines()) <= 80
