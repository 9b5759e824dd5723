"""keras_sip.compare and the shell's compare: what they measure, write, refuse, and go on with."""

import csv
import json
import os
import signal
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.__main__ import main
from keras_sip.comparison import command, training
from keras_sip.comparison.networks import default_network
from keras_sip.comparison.recorder import Recorder

SHELL = """
import tensorflow as tf
import keras_sip

class Line(keras_sip.Simulator):
    x_shape, y_shape = (2,), (3,)
    def forward(self, x, context=None):
        return tf.concat([x, tf.reduce_sum(x, axis=1, keepdims=True)], axis=1)
    def inverse(self, y_target, x_near, context=None):
        return y_target[:, :2]
    def sample(self, batch_size, seed):
        x = tf.random.stateless_uniform([batch_size, 2], seed, -1.0, 1.0)
        return {"x": x, "y": self.forward(x)}

class Silent(Line):
    sample = keras_sip.Simulator.sample

class Sized(Line):
    def __init__(self, size):
        pass

broken = 3
"""
WORDS = "--methods sip adjoint --steps 20 --seeds 0 1 --quiet".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a newcomer has it: one file with a simulator; the working directory of this module's tests."""
    path = tmp_path_factory.mktemp("newcomer")
    (path / "my_line.py").write_text(SHELL)
    return path


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture(scope="module")
def written(folder):
    """(folder of the results, exit code, the simulator) of the shell's command, started there."""
    before = os.getcwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        code = main(["compare", "my_line:Line", *WORDS, "--output", "run"])
        return folder / "run", code, command.find_simulator("my_line:Line")
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))


def rows(path, method, seed):
    with (path / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if (row["method"], row["seed"]) == (method, str(seed))]


def test_methods_start_from_equal_weights_and_end_with_their_own(written):
    path, code, _ = written
    assert code == 0
    for seed in (0, 1):
        sip, adjoint = (rows(path, method, seed) for method in ("sip", "adjoint"))
        assert sip[0]["x_error"] == adjoint[0]["x_error"]
        assert sip[-1]["step"] == "20" and sip[-1]["x_error"] != adjoint[-1]["x_error"]


def test_tables_csv_json_and_curves_hold_what_was_measured(written):
    path, _, _ = written
    last = np.array([float(rows(path, "sip", seed)[-1]["x_error"]) for seed in (0, 1)])
    with (path / "comparison.csv").open() as file:
        entry = next(row for row in csv.DictReader(file) if (row["quantity"], row["at"]) == ("error_at_step", "20"))
    # Six digits are written.
    assert entry["method"] == "sip" and float(entry["mean"]) == pytest.approx(last.mean(), rel=1e-5)
    assert float(entry["high"]) == pytest.approx(last.max(), rel=1e-5)
    assert json.loads((path / "comparison.json").read_text())["seeds"] == {"sip": [0, 1], "adjoint": [0, 1]}
    for name in ("table.txt", "comparison.txt"):
        assert max(map(len, (path / name).read_text().splitlines())) <= 80
    assert f"{last.mean():.4f}" in (path / "table.txt").read_text()
    picture = tf.io.decode_png((path / "learning_curves.png").read_bytes(), channels=3).numpy().astype(int)
    assert min(picture.shape[:2]) > 300 and np.ptp(picture, axis=-1).max() > 100


def test_the_function_resumes_the_same_run_and_returns_its_models(written):
    path, _, simulator = written
    before = rows(path, "sip", 0)
    comparison = keras_sip.compare(
        simulator, ("sip", "adjoint"), steps=20, seeds=(0, 1), output=path, resume=True, verbose=False
    )
    assert rows(path, "sip", 0) == before and comparison.failures == {} and comparison.unfinished == []
    observation, x = keras_sip.evaluation_set(simulator, 256, 0)
    error = np.mean(np.abs(comparison.models["sip"].predict(observation, verbose=0) - x))
    # The distance of a vector may be a sum or a mean over components; compared by the simulator's own.
    expected = np.mean(simulator.distance(comparison.models["sip"](observation), x))
    assert np.isfinite(error) and float(before[-1]["x_error"]) == pytest.approx(expected, rel=1e-5)
    assert str(comparison).startswith(comparison.heading) and "AnalyticInverse" in comparison.heading


def test_solvers_are_methods_too_and_nothing_is_kept_without_an_output(folder, capsys):
    simulator = command.find_simulator("my_line:Line")
    before = sorted(folder.iterdir())
    solvers = {"by inverse": keras_sip.AnalyticInverse(), "by gradient": keras_sip.GradientDescent()}
    comparison = keras_sip.compare(simulator, solvers, steps=10)
    assert sorted(folder.iterdir()) == before and capsys.readouterr().out == ""
    assert {name: type(model.solver).__name__ for name, model in comparison.models.items()} == {
        "by inverse": "AnalyticInverse",
        "by gradient": "GradientDescent",
    }
    assert list(comparison.errors["error_at_step"]) == ["by inverse", "by gradient"]


class Interrupted(Recorder):
    def on_train_batch_end(self, batch, logs=None):
        os.kill(os.getpid(), signal.SIGINT)
        super().on_train_batch_end(batch, logs)


def test_ctrl_c_saves_and_says_how_to_go_on(folder, monkeypatch, capsys):
    words = ["compare", "my_line:Line", "--methods", "adjoint", "--steps", "20", "--quiet", "--output", "stopped"]
    monkeypatch.setattr(sys, "argv", ["keras_sip", *words])
    with monkeypatch.context() as patch:
        patch.setattr(training, "Recorder", Interrupted)
        assert main(words) == 130
    assert "To go on: python -m keras_sip compare my_line:Line" in capsys.readouterr().out
    assert len(list((folder / "stopped" / "checkpoints" / "adjoint_seed0").glob("step_*"))) == 1
    assert main([*words, "--resume"]) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_line.py:Line", "Write for example my_line:Line"),
        ("my_line", "such as decay:Decay"),
        ("my_lime:Line", "no module my_lime"),
        ("my_line:Lime", "There are: Line, Silent, Sized"),
        ("my_line:broken", "to be a keras_sip.Simulator"),
        ("my_line:Sized", "Make one in the module"),
        ("my_line:Silent", "sample"),
    ],
)
def test_what_is_no_simulator_is_said_before_there_is_a_folder(folder, capsys, name, said):
    assert main(["compare", name, "--steps", "1", "--output", "none"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Expected ") and "\nReceived " in error and said in error
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "soon"], "600s"),
        (["--methods", "sib"], "'sip'"),
        (["--steps", "0"], "`steps`"),
        (["--seeds", "-1"], "`seeds`"),
        (["--learning-rate", "0"], "`learning_rate`"),
        (["--output", "run"], "--resume"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(written, folder, capsys, words, said):
    assert main(["compare", "my_line:Line", "--output", "none", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Expected ") and said in error
    assert not (folder / "none").exists()


def test_a_network_is_chosen_by_the_shapes():
    assert default_network(keras_sip.Poisson((12, 12)))(0).output_shape == (None, 12, 12, 1)
    assert default_network(keras_sip.Poisson((12, 12)))(0).name == "unet"
    assert default_network(keras_sip.RotatedSine(xi=1.0, phi=0.0))(0).name == "mlp"
    profile = keras_sip.from_function(
        lambda x: tf.reduce_sum(x, axis=1), x_shape=(4, 2), y_shape=(2,), sample=lambda n, seed: tf.ones([n, 4, 2])
    )
    assert default_network(profile)(0).output_shape == (None, 4, 2)
