"""What the README shows runs as it stands."""

import re
import shlex

import numpy as np
import pytest

import documentation
import keras_sip
from eager import eagerly
from keras_sip.__main__ import main

OWN_PHYSICS, REFINING, FUNCTIONAL, SERVING = documentation.blocks("README.md")


@pytest.fixture(scope="module")
def own_physics():
    """The names that the example of own physics leaves behind."""
    return documentation.run(OWN_PHYSICS, shorter=[("steps_per_epoch=1000", "steps_per_epoch=400")])


def test_sip_is_far_below_back_propagation(own_physics):
    # 13 times after 1,000 steps, 3 times after 400: a factor of two leaves room for other kernels.
    assert own_physics["errors"]["sip"] < own_physics["errors"]["adjoint"] / 2


def test_refining_finds_the_source(own_physics):
    # Noise-free intensities determine the position to the rounding of float32.
    names = documentation.run(REFINING, dict(own_physics))
    assert np.median(np.abs(names["refined"] - names["x_true"])) < 1e-5


def test_functional_example_answers():
    # A hundred steps of the U-Net would take half a minute; two are not worth a graph.
    with eagerly():
        names = documentation.run(FUNCTIONAL, shorter=[("steps_per_epoch=100", "steps_per_epoch=2")])
    assert names["answer"].shape == (8, 64, 64, 1)
    assert np.isfinite(names["answer"]).all()


def test_serving(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = documentation.run(SERVING)
    largest = np.abs(names["x"]).max()
    np.testing.assert_allclose(names["x"], names["model"].predict(names["y"], verbose=0), rtol=0, atol=1e-5 * largest)
    # The exact inverse of a linear process refines to rounding.
    simulated = names["model"].simulator(names["better"])
    assert np.abs(simulated - names["y"]).max() < 1e-3 * np.abs(names["y"]).max()


def test_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("y.npy", keras_sip.Poisson((64, 64)).sample(3, (0, 0))["y"].numpy())
    commands = documentation.shell_commands("README.md")
    assert [main(shlex.split(command)) for command in commands] == [0, 0]
    assert np.load("x.npy").shape == (3, 64, 64, 1) and (tmp_path / "answers.png").exists()


def test_it_names_the_versions_that_are_installed():
    text = documentation.text("README.md")
    for name, module in (("TensorFlow", "tensorflow"), ("Keras", "keras")):
        (version,) = set(re.findall(rf"\*\*{name} (\d+\.\d+)\*\*", text))
        assert __import__(module).__version__.startswith(version + ".")
