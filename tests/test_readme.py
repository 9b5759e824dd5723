"""What the README shows runs as it stands."""

import pathlib
import re

import numpy as np
import pytest

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(code):
    names = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_functional_example_answers():
    # A hundred steps of the U-Net would take half a minute.
    names = run(EXAMPLES[0].replace("steps_per_epoch=100", "steps_per_epoch=2"))
    assert names["answer"].shape == (8, 64, 64, 1)
    assert np.isfinite(names["answer"]).all()


def test_own_simulator_example_refines_to_the_true_parameters():
    names = run(EXAMPLES[1])
    # Noise-free observations determine amplitude and rate: Levenberg-Marquardt goes on to the rounding of float32.
    error = np.abs(names["x"] - names["x_true"]).max(axis=1)
    assert np.median(error) < 1e-5


@pytest.mark.parametrize(
    "file", ["applications/poisson.py", "RESULTS.md", "docs/poisson_curves.png", "docs/sine_paper.png"]
)
def test_files_that_it_names_exist(file):
    assert file in README
    assert (pathlib.Path(__file__).parents[1] / file).exists()


def test_every_public_solver_is_in_the_table():
    import keras_sip

    solvers = {
        name
        for name in keras_sip.__all__
        if isinstance(getattr(keras_sip, name), type)
        and issubclass(getattr(keras_sip, name), keras_sip.InverseSolver)
        and name not in ("InverseSolver", "DirectInverse", "SpectralInverse")
    }
    assert solvers == set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
