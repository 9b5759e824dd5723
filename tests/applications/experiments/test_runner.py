"""How the runner behaves: it goes on exactly, refuses what it must not touch, and names what failed."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import TINY, files, run, trained_model

import keras_sip
import poisson
from experiments import figures, results, runner
from keras_sip import plotting
from keras_sip.checkpoints import Checkpoints
from keras_sip.comparison import training
from keras_sip.comparison.recorder import Recorder
from keras_sip.comparison.records import Metrics

# Holds the lock that its argument names, as `keras_sip.locks` describes it, until it is killed.
HOLDER = """
import fcntl, json, os, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
json.dump({"process": os.getpid(), "host": "here", "since": "noon", "command": "other"}, file)
file.flush()
print("held", flush=True)
time.sleep(60)
"""


class Interrupted(Recorder):
    """A user who presses Ctrl-C while the third step runs, and a scheduler that ends the job in the seventh."""

    def on_train_batch_end(self, batch, logs=None):
        if self.step in (2, 6):
            os.kill(os.getpid(), signal.SIGINT if self.step == 2 else signal.SIGTERM)
        super().on_train_batch_end(batch, logs)


@pytest.fixture
def no_matplotlib(monkeypatch):
    """A run without figures, as where matplotlib is not installed."""
    monkeypatch.setattr(figures, "available", lambda: False)
    monkeypatch.setattr(plotting, "available", lambda: False)


@pytest.fixture
def training_only(no_matplotlib, monkeypatch):
    """A run that is trained and recorded, without what `finished` is tested for: event files, table, exports."""
    monkeypatch.setattr(runner, "TensorBoard", lambda *arguments, **options: keras.callbacks.Callback())
    monkeypatch.setattr(runner, "write_results", lambda run: None)


def without_times(path):
    """The rows of metrics.csv of a run, without the columns that no two runs share."""
    return [
        {name: value for name, value in row.items() if not name.endswith("_seconds")}
        for row in Metrics(path / "metrics.csv").run("sip", 1)
    ]


def state(path):
    """All numbers of the finished model and of its optimizer."""
    model = trained_model(path, "sip", 1)
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


@pytest.mark.usefixtures("eagerly")
def test_interrupted_and_resumed_run_is_bit_identical(finished, training_only, tmp_path, monkeypatch, capsys):
    output = tmp_path / "run"
    command = ("--methods", "sip", "--seeds", 1, "--output", output)
    with monkeypatch.context() as patch:
        patch.setattr(training, "Recorder", Interrupted)
        assert run(*command) == 130
        assert run(*command, "--resume") == 143
    assert f"To go on: python applications/tiny.py --methods sip --seeds 1 --output {output} --resume" in (
        capsys.readouterr().out
    )
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["sip_seed1"]
    assert Checkpoints(output / "checkpoints" / "sip_seed1").steps() == [3, 7]
    assert not list(output.rglob(".lock"))

    # A program that is killed leaves rows after its last checkpoint, and half a row.
    with (output / "metrics.csv").open("a") as file:
        file.write("sip,1,8,99.0,99.0,,,99.0,99.0,0.0,9.0,9.0\nsip,1,9,99")
    assert run(*command, "--resume") == 0
    assert "goes on after step 7" in capsys.readouterr().out
    assert without_times(output) == without_times(finished.path)
    for resumed, uninterrupted in zip(state(output), state(finished.path), strict=True):
        np.testing.assert_array_equal(resumed, uninterrupted)


@pytest.fixture
def no_export(monkeypatch):
    """A run whose models are not exported again: `finished` and a run with a failure are tested for that."""
    monkeypatch.setattr(results, "_export", lambda *arguments: 0.0)


@pytest.mark.usefixtures("eagerly")
def test_resume_keeps_finished_runs_and_adds_methods(no_matplotlib, no_export, tmp_path, capsys):
    output = tmp_path / "run"
    assert run("--methods", "sip", "--steps", 1, "--output", output) == 0
    before = Metrics(output / "metrics.csv").rows
    # No event file can be written any more: this is said, and training goes on.
    shutil.rmtree(output / "tensorboard")
    (output / "tensorboard").write_text("")
    with pytest.warns(UserWarning, match="to be able to write TensorBoard's files"):
        assert run("--methods", "adam", "sip", "--steps", 1, "--output", output, "--resume") == 0
    printed = capsys.readouterr().out
    assert "sip s0 finished before" in printed
    assert "No figures: install matplotlib" in printed and not list(output.glob("*.png"))
    metrics = Metrics(output / "metrics.csv")
    assert metrics.methods() == ["sip", "adam"]
    assert metrics.run("sip", 0) == before
    assert json.loads((output / "run.json").read_text())["arguments"]["methods"] == ["sip", "adam"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_outside_of_training_ends_with_the_command_that_goes_on(tmp_path, monkeypatch, capsys, number, code):
    monkeypatch.setattr(runner, "train_all", lambda run: os.kill(os.getpid(), number))
    # Shells start background jobs, as these tests may be, with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run("--output", tmp_path / "run") == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert f"To go on: python applications/tiny.py --output {tmp_path / 'run'} --resume" in capsys.readouterr().out
    # The folder is free again.
    assert not list(tmp_path.glob("**/.lock"))


def test_a_folder_that_cannot_be_written_is_refused_in_three_parts(capsys):
    assert run("--output", "/proc/run") == 2
    error = capsys.readouterr().err
    assert "Expected to be able to write /proc/run" in error and "\nReceived " in error and "Make the folder" in error


@pytest.mark.usefixtures("eagerly")
def test_a_full_disk_ends_the_run_with_a_message_and_loses_nothing(finished, training_only, tmp_path, capsys):
    output = tmp_path / "run"
    command = ("--methods", "sip", "--seeds", 1, "--output", output, "--quiet")
    assert run(*command, "--steps", 5) == 0
    checkpoint = output / "checkpoints" / "sip_seed1" / "step_000000005.checkpoint"
    before = checkpoint.read_bytes()
    # Files can grow by a few rows only, as where the disk is full: a checkpoint is larger than that.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((output / "metrics.csv").stat().st_size + 200, limits[1]))
    try:
        with pytest.warns(UserWarning, match="rows wait in memory"):
            assert run(*command, "--steps", 12, "--resume") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert "Expected to be able to write" in error and "free space on its disk" in error
    assert checkpoint.read_bytes() == before
    assert run(*command, "--steps", 12, "--resume") == 0
    for resumed, uninterrupted in zip(state(output), state(finished.path), strict=True):
        np.testing.assert_array_equal(resumed, uninterrupted)
    assert [row["step"] for row in Metrics(output / "metrics.csv").rows] == list(range(13))


def test_a_second_process_is_refused_by_the_name_of_the_first(finished, capsys):
    before = files(finished.path)
    # Another process, and none of our code.
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(finished.path / ".lock")], stdout=subprocess.PIPE, text=True
    )
    try:
        holder.stdout.readline()
        assert run("--seeds", 0, 1, "--output", finished.path, "--resume") == 2
        assert f"beside process {holder.pid} on here, since noon: other" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.wait()
    (finished.path / ".lock").unlink()
    assert files(finished.path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "go on with that run with --resume"),
        (("--resume", "--batch", 4), "batch=4 instead of 256"),
        (("--resume", "--resolution", 6), "resolution=[6, 6] instead of [8, 8]"),
    ],
)
def test_output_of_another_run_is_refused_and_untouched(finished, capsys, arguments, message):
    before = files(finished.path)
    assert run("--output", finished.path, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("Expected ") and "\nReceived " in error and message in error
    assert files(finished.path) == before


def test_folder_that_is_no_run_is_refused_and_untouched(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert run("--output", tmp_path, "--resume") == 2
    assert "run.json" in capsys.readouterr().err
    assert set(files(tmp_path)) == {tmp_path / "thesis.txt"}


def test_unknown_method_lists_what_is_allowed(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        runner.main(poisson.EXPERIMENT, ["--methods", "sip", "sib", "--output", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert "Received 'sib'" in error and all(name in error for name in poisson.VARIANTS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments", [("--steps", 0), ("--batch", -1), ("--resolution", 8, 8, 8), ("--seeds", -1), ("--evaluate-every", 0)]
)
def test_bad_numbers_are_refused_with_the_option_named(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit):
        run(*arguments, "--output", tmp_path / "run")
    assert f"{arguments[0]}" in capsys.readouterr().err.split("error:")[1]
    assert not (tmp_path / "run").exists()


def test_resolution_that_the_network_cannot_take_is_refused_before_there_is_a_folder(tmp_path, capsys):
    assert runner.main(poisson.EXPERIMENT, ["--resolution", "20", "--output", str(tmp_path / "run")]) == 2
    assert "Expected" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("eagerly")
def test_a_method_that_fails_is_named_and_the_others_finish(no_matplotlib, tmp_path, caplog, request):
    def broken(options):
        raise ArithmeticError("the rate is imaginary")

    variants = {"sip": dataclasses.replace(TINY.variants["sip"], optimizer=broken), "adam": TINY.variants["adam"]}
    experiment = dataclasses.replace(TINY, variants=variants)
    assert run("--steps", 1, "--output", tmp_path / "run", experiment=experiment) == 1
    message = "ArithmeticError: the rate is imaginary"
    assert f"FAILED: sip seed 0: {message}" in caplog.text
    assert json.loads((tmp_path / "run" / "run.json").read_text())["failures"] == {"sip seed 0": message}
    assert "the rate is imaginary" in (tmp_path / "run" / "failure_sip_seed_0.txt").read_text()
    assert (tmp_path / "run" / "saved_models" / "adam" / "saved_model.pb").exists()
    # The cause is mended, and the run goes on.
    request.getfixturevalue("no_export")
    assert run("--steps", 1, "--output", tmp_path / "run", "--resume") == 0
    assert not (tmp_path / "run" / "failure_sip_seed_0.txt").exists()


def test_poisson_builds_every_variant_with_the_papers_settings():
    options = runner.parse_options(poisson.EXPERIMENT, ["--resolution", "16", "--cg-steps", "7"])
    simulator = poisson.EXPERIMENT.simulator(options)
    models = {
        name: poisson.EXPERIMENT.build_model(name, simulator, options, seed=0)
        for name in ("sgd", "supervised", "gauss_newton")
    }
    assert models["gauss_newton"].solver.cg_steps == 7
    assert models["sgd"].optimizer.momentum == 0.9
    for model in models.values():
        assert sum(np.size(weight) for weight in model.trainable_weights) == 37_697
        assert model.batch_reduction == "sum"


def test_a_system_without_a_grid_runs_many_steps_an_execution_and_measures_its_own_errors(training_only, tmp_path):
    def error_of_mean(simulator, x, x_ref):
        return tf.abs(tf.reduce_mean(x - x_ref, axis=(1, 2, 3)))

    experiment = dataclasses.replace(
        TINY,
        resolution=(),
        simulator=lambda options: keras_sip.Poisson((8, 8)),
        steps_per_execution=5,
        error_parts={"mean_error": error_of_mean},
    )
    output = tmp_path / "run"
    assert run("--methods", "sip", "--seeds", 1, "--output", output, experiment=experiment) == 0
    with pytest.raises(SystemExit):
        run("--resolution", 8, "--output", tmp_path / "other", experiment=experiment)

    rows = Metrics(output / "metrics.csv", experiment.error_parts).run("sip", 1)
    assert [row["step"] for row in rows] == [0, 5, 10, 12]
    observation, x = keras_sip.evaluation_set(keras_sip.Poisson((8, 8)), TINY.evaluation_examples, 0)
    model = trained_model(output, "sip", 1)
    assert int(model.optimizer.iterations) == 12
    expected = np.mean(np.abs(np.mean(model.predict(observation, verbose=0) - x, axis=(1, 2, 3))))
    np.testing.assert_allclose(rows[-1]["mean_error"], expected, rtol=1e-5)


def test_many_steps_an_execution_reach_the_weights_of_single_steps(training_only, tmp_path):
    for steps in (1, 4):
        experiment = dataclasses.replace(TINY, steps_per_execution=steps)
        assert run("--methods", "sip", "--seeds", 1, "--output", tmp_path / str(steps), experiment=experiment) == 0
    for together, one_by_one in zip(state(tmp_path / "4"), state(tmp_path / "1"), strict=True):
        # One graph of four steps may sum in another order than four graphs of one.
        np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-5)
