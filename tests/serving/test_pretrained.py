"""Trained models by name: whole files only, versions named, and the shell commands around them."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import shipped
from keras_sip.__main__ import main
from keras_sip.files import DamagedFileError, write_checksums
from keras_sip.serving.pretrained import list_pretrained

ROOT = pathlib.Path(keras_sip.__file__).parents[1]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with the model "tiny", and that model."""
    folder = tmp_path_factory.mktemp("models")
    model = shipped.make_model()
    shipped.write(folder / "tiny", model)
    return folder, model


@pytest.fixture(scope="module")
def observations():
    return shipped.SIMULATOR.sample(70, (0, 0))["y"].numpy()


@pytest.fixture
def files(tmp_path, observations):
    np.save(tmp_path / "y.npy", observations)
    return tmp_path


def command(files, models, *more, name="tiny", source="y.npy"):
    words = ["infer", name, "--input", files / source, "--output", files / "x.npy", "--models", models[0], *more]
    return main([str(word) for word in words])


def test_a_loaded_model_answers_as_the_one_that_was_saved(models, observations):
    loaded = keras_sip.load_pretrained("tiny", models[0])
    np.testing.assert_array_equal(loaded.predict(observations, verbose=0), models[1].predict(observations, verbose=0))
    assert loaded.refine(observations[:2], 1).objective.numpy().max() < 1e-6


def test_an_unknown_name_lists_what_is_there(models):
    with pytest.raises(ValueError, match=r"one of: tiny.\nReceived 'heat'"):
        keras_sip.load_pretrained("heat", models[0])


def test_a_changed_file_is_found_before_anything_of_it_is_read(models, tmp_path):
    shipped.write(tmp_path / "tiny", models[1])
    path = tmp_path / "tiny" / "model.keras"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedFileError, match="changed: 'model.keras'"):
        keras_sip.load_pretrained("tiny", tmp_path)


def test_another_version_is_named(models, tmp_path):
    shipped.write(tmp_path / "tiny", models[1], version="9.9.9")
    with pytest.warns(UserWarning, match=r"Expected a model written by keras_sip(.|\n)*written by 9.9.9"):
        keras_sip.load_pretrained("tiny", tmp_path)


def test_what_this_version_cannot_read_names_both(models, tmp_path):
    shipped.write(tmp_path / "tiny", models[1], version="9.9.9")
    (tmp_path / "tiny" / "model.keras").write_bytes(b"a format of the future")
    write_checksums(tmp_path / "tiny")
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=rf"keras_sip {keras_sip.__version__} can read(.|\n)*written by 9.9.9"),
    ):
        keras_sip.load_pretrained("tiny", tmp_path)


def test_code_in_a_file_is_not_run(tmp_path):
    """Keras' safe mode: a file with a Python function in it is refused."""
    inputs = keras.Input((8, 8, 1))
    network = keras.Model(inputs, keras.layers.Lambda(lambda y: y + 1.0)(inputs))
    shipped.write(tmp_path / "unsafe", keras_sip.SIPModel(network, shipped.SIMULATOR, keras_sip.AnalyticInverse()))
    with pytest.raises(ValueError, match=r"Expected a model that keras_sip(.|\n)*(L|l)ambda") as refused:
        keras_sip.load_pretrained("unsafe", tmp_path)
    assert "It holds Python code" in str(refused.value) and "safe_mode=False" in str(refused.value)


def test_every_model_that_ships_is_whole_and_answers():
    for name in list_pretrained():
        model = keras_sip.load_pretrained(name)
        sample = model.simulator.sample(2, (0, 5))
        observation = {"y": sample["y"], "context": sample["context"]} if "context" in sample else sample["y"]
        error = model.simulator.distance(model.predict(observation, verbose=0), sample["x"])
        nothing = model.simulator.distance(tf.zeros_like(sample["x"]), sample["x"])
        assert np.mean(error) < 0.5 * np.mean(nothing), name


def test_models_that_ship_stay_small():
    sizes = [path.stat().st_size for path in (ROOT / "saved_models").rglob("*") if path.is_file()]
    assert sum(sizes) < 20e6


def test_list_shows_shapes_versions_and_errors(models, capsys):
    assert main(["list", "--models", str(models[0])]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("tiny ") and "y [8, 8, 1] -> x [8, 8, 1]" in printed
    assert f"keras_sip {keras_sip.__version__}" in printed and "x_error sip: 0.25" in printed


def test_list_writes_out_what_would_steer_a_terminal(models, tmp_path, capsys):
    shipped.write(tmp_path / "tiny\x1b[2J", models[1], version="1\\u001b[31m\\nheat")
    (tmp_path / "tiny\x1b[2J" / "metrics.json").write_text('{"measured": {"a\\u009b2J\\nb": 0.5}}')
    assert main(["list", "--models", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert r"keras_sip 1\x1b[31m\nheat" in printed and r"a\x9b2J\nb: 0.5" in printed
    assert all(mark.isprintable() or mark == "\n" for mark in printed) and printed.count("\n") == 2


@pytest.mark.parametrize("word", ["ctrl-c", "sigterm"])
def test_an_interrupted_infer_ends_without_a_traceback_and_without_files(
    models, files, capsys, monkeypatch, request, word
):
    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT if word == "ctrl-c" else signal.SIGTERM)
        time.sleep(10)

    before = sorted(files.iterdir())
    # Programs that a shell starts in the background ignore Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    # While the file is being written: that is what could be left in half.
    monkeypatch.setattr("keras_sip.files.os.fsync", interrupted)
    assert command(files, models) == (130 if word == "ctrl-c" else 143)
    assert "Interrupted" in capsys.readouterr().err and sorted(files.iterdir()) == before


def test_infer_writes_the_models_answers(models, files, observations):
    assert command(files, models) == 0
    np.testing.assert_allclose(
        np.load(files / "x.npy"), models[1].predict(observations, verbose=0), rtol=1e-6, atol=1e-6
    )


def test_infer_refines_and_draws(models, files, observations):
    assert command(files, models, "--refine", 2, "--plot", files / "answers.png") == 0
    y = shipped.SIMULATOR(np.load(files / "x.npy"))
    assert np.max(np.abs(y - observations)) < 1e-4 * np.max(np.abs(observations))
    picture = tf.io.decode_png((files / "answers.png").read_bytes(), channels=3).numpy()
    assert min(picture.shape[:2]) > 200


def test_infer_writes_and_draws_error_bars(models, files, observations):
    assert command(files, models, "--std", files / "std.npy", "--plot", files / "answers.png") == 0
    result, stddev = models[1].refine(observations, 10, return_stddev=True)
    np.testing.assert_allclose(np.load(files / "x.npy"), result.x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.load(files / "std.npy"), stddev, rtol=1e-3)
    assert (files / "answers.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--std", "a.npy", "--output", "a.npy"), "--std and --output to be two files"),
        (("--std", "std.txt"), "--std to end in .npy"),
        (("--refine", 0), "`--refine` to be an integer of at least 1"),
        (("--plot", "answers.jpg"), "--plot to end in .png"),
        (("--output", "nowhere/x.npy"), "--output in a folder that exists"),
        (("--input", "missing.npy"), "No such file"),
        (("--models", "nowhere"), "(none is installed)"),
    ],
)
def test_bad_arguments_are_refused_in_three_parts(models, files, capsys, words, message):
    assert command(files, models, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("Expected ") and "\nReceived " in error and message in error
    assert not (files / "x.npy").exists()


def test_an_answer_that_is_there_is_kept_unless_asked(models, files, capsys):
    (files / "x.npy").write_text("years of work")
    assert command(files, models) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (files / "x.npy").read_text() == "years of work"
    assert command(files, models, "--overwrite") == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: y[:, :7], "shape (70, 7, 8, 1)"),
        (lambda y: y[0], "shape"),
        (lambda y: y.astype(int), "dtype int64"),
        (lambda y: y.astype("float16"), "dtype float16"),
        (lambda y: np.where(np.arange(70)[:, None, None, None] == 3, np.nan, y), "1 of 70 examples: [3]"),
        (lambda y: y[:0], "at least one example"),
    ],
)
def test_observations_that_do_not_fit_are_refused(models, files, observations, capsys, spoil, message):
    np.save(files / "spoilt.npy", spoil(observations))
    assert command(files, models, source="spoilt.npy") == 2
    error = capsys.readouterr().err
    assert error.startswith("Expected ") and message in error
    assert not (files / "x.npy").exists()


def test_a_context_that_the_model_does_not_take_is_refused(models, files, observations, capsys):
    np.savez(files / "y.npz", y=observations, marker=observations)
    assert command(files, models, source="y.npz") == 2
    assert "without a context.\nReceived marker" in capsys.readouterr().err


def test_the_command_runs_as_a_module_and_says_nothing_of_tensorflows(models, files):
    words = [sys.executable, "-m", "keras_sip", "infer", "tiny", "--input", "y.npy", "--output", "x.npy"]
    environment = {**shipped.talkative(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*words, "--models", models[0]], cwd=files, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "x [70, 8, 8, 1] of 70 observations" in done.stdout
    assert not done.stderr
