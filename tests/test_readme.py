"""What the README shows runs as it stands."""

import pathlib
import re
import shlex

import numpy as np
import pytest

import keras_sip
from keras_sip.__main__ import main

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(code, names=None):
    names = {"__name__": "readme"} if names is None else names
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def own_simulator():
    """The names that the example of an own simulator leaves behind."""
    return run(EXAMPLES[1])


def test_functional_example_answers():
    # A hundred steps of the U-Net would take half a minute.
    names = run(EXAMPLES[0].replace("steps_per_epoch=100", "steps_per_epoch=2"))
    assert names["answer"].shape == (8, 64, 64, 1)
    assert np.isfinite(names["answer"]).all()


def test_own_simulator_example_refines_to_the_true_parameters(own_simulator):
    # Noise-free observations determine amplitude and rate: Levenberg-Marquardt goes on to the rounding of float32.
    error = np.abs(own_simulator["x"] - own_simulator["x_true"]).max(axis=1)
    assert np.median(error) < 1e-5


def test_watching_and_resuming(own_simulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(EXAMPLES[2], dict(own_simulator))
    assert list(tmp_path.glob("runs/decay/sip/events.out.tfevents.*"))
    assert names["resume"].restore(names["model"]) == 400


def test_deploying(own_simulator, tmp_path, monkeypatch):
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    monkeypatch.chdir(tmp_path)
    names = run(EXAMPLES[4], run(EXAMPLES[3], dict(own_simulator)))
    predicted = own_simulator["model"].predict(own_simulator["y"], verbose=0)
    np.testing.assert_allclose(names["x"], predicted, rtol=0, atol=1e-6 * np.abs(predicted).max())
    np.testing.assert_allclose(names["x_onnx"], predicted, rtol=0, atol=1e-5 * np.abs(predicted).max())
    error = np.abs(names["better"] - names["x_true"]).max(axis=1)
    assert np.median(error) < 1e-5


def test_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("y.npy", keras_sip.Poisson((64, 64)).sample(3, (0, 0))["y"].numpy())
    commands = re.findall(r"^    python -m keras_sip (.*)$", README, re.MULTILINE)
    assert [main(shlex.split(command)) for command in commands] == [0, 0]
    assert np.load("x.npy").shape == (3, 64, 64, 1) and (tmp_path / "answers.png").exists()


@pytest.mark.parametrize(
    "file", ["applications/poisson.py", "RESULTS.md", "docs/images/poisson_curves.png", "docs/images/tensorboard.png"]
)
def test_files_that_it_names_exist(file):
    assert file in README
    assert (pathlib.Path(__file__).parents[1] / file).exists()


def test_every_public_solver_is_in_the_table():
    solvers = {
        name
        for name in keras_sip.__all__
        if isinstance(getattr(keras_sip, name), type)
        and issubclass(getattr(keras_sip, name), keras_sip.InverseSolver)
        and name not in ("InverseSolver", "DirectInverse", "SpectralInverse")
    }
    assert solvers == set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
