"""What docs/running.md shows runs as it stands, one block after the other in one folder."""

import shlex

import numpy as np
import pytest

import documentation
import keras_sip
from keras_sip.__main__ import main

WATCHING, RESUMING, EXPORTING, SERVING, ONNX = documentation.blocks("docs/running.md")
run = documentation.run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("y.npy", keras_sip.Poisson((64, 64)).sample(3, (0, 0))["y"].numpy())
    return tmp_path


def test_watching(folder, capsys):
    run(WATCHING)
    assert "poisson 40/40" in capsys.readouterr().out
    assert list((folder / "runs" / "logs" / "sip").glob("events.out.tfevents.*"))
    assert (folder / "runs" / "card" / "metrics.json").exists()


def test_resuming(folder):
    assert run(RESUMING)["step"] == 0
    assert run(RESUMING)["step"] == 60


def test_deploying(folder):
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    run(EXPORTING)
    served, in_onnx = run(SERVING), run(ONNX)
    assert served["valid"].numpy().all() and in_onnx["valid"].all()
    largest = np.max(np.abs(served["x"]))
    assert np.max(np.abs(in_onnx["x"] - served["x"])) <= 1e-5 * largest
    y = np.load("y.npy")
    assert np.max(np.abs(keras_sip.Poisson((64, 64))(served["better"]) - y)) < 1e-3 * np.max(np.abs(y))


def test_the_shell(folder):
    commands = documentation.shell_commands("docs/running.md")
    assert [main(shlex.split(command)) for command in commands] == [0, 0, 0]
    assert np.load("x.npy").shape == np.load("std.npy").shape == (3, 64, 64, 1)
    assert (folder / "answers.png").exists()
