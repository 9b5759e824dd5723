"""Exact resume: killed at any moment, a run ends with the numbers of one that was not; damaged files are found."""

import multiprocessing
import pathlib
import random
import shutil
import signal
import time

import keras
import numpy as np
import pytest
import resumed_run
from resumed_run import everything, make_model, train

from eager import eagerly
from keras_sip.callbacks import ExactResume, WallTimeBudget
from keras_sip.checkpoints import Checkpoints
from keras_sip.files import DamagedFileError, OutputError

KILLS = 3
# Runs that are compared to the last bit are taken in one way, those of other processes as graphs.
pytestmark = pytest.mark.usefixtures("eagerly")


def equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def processes():
    """Starts `resumed_run.run` in processes that share one import of TensorFlow but no state."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_sip"])

    def start(*arguments):
        process = context.Process(target=resumed_run.run, args=arguments)
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of 20 steps, its model and metrics."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with eagerly():
        return folder, *train(folder, steps=20)


@pytest.fixture
def copy_of_finished(finished, tmp_path):
    return pathlib.Path(shutil.copytree(finished[0], tmp_path / "run"))


def test_a_run_killed_at_random_moments_ends_bit_identical(processes, tmp_path):
    whole = processes(tmp_path / "whole", tmp_path / "whole.npz")
    moments = random.Random(0)
    for kill in range(KILLS):
        process = processes(tmp_path / "killed", tmp_path / "killed.npz")
        before = max(Checkpoints(tmp_path / "killed").steps(), default=0)
        while process.is_alive() and max(Checkpoints(tmp_path / "killed").steps(), default=0) <= before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.join()
        # It did train, and did not end by itself.
        assert process.exitcode == -signal.SIGKILL, f"kill {kill} came too late"
    final = processes(tmp_path / "killed", tmp_path / "killed.npz")
    for process in (whole, final):
        process.join()
        assert process.exitcode == 0
    with np.load(tmp_path / "whole.npz") as expected, np.load(tmp_path / "killed.npz") as resumed:
        assert {"metric_loss", "metric_x_error", "metric_update_norm"} <= set(expected.files) == set(resumed.files)
        for name in expected.files:
            np.testing.assert_array_equal(resumed[name], expected[name], err_msg=name)


def test_the_last_two_checkpoints_are_kept_and_nothing_else(finished):
    assert sorted(path.name for path in finished[0].iterdir()) == [
        "step_000000015.checkpoint",
        "step_000000020.checkpoint",
    ]


def truncated(content):
    return content[: len(content) // 3]


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def emptied(content):
    return b""


def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(finished, copy_of_finished):
    newest = copy_of_finished / "step_000000020.checkpoint"
    newest.write_bytes(flipped(newest.read_bytes()))
    with pytest.warns(UserWarning, match=r"step_000000020.checkpoint(.|\n)*checkpoint of step 15 is used"):
        model, metrics = train(copy_of_finished, steps=20)
    equal(everything(model), everything(finished[1]))
    assert metrics == finished[2]
    assert newest.exists() and newest.with_suffix(".checkpoint.damaged").exists()


@pytest.mark.parametrize("damage", [truncated, flipped, emptied])
def test_of_a_damaged_and_a_whole_checkpoint_the_whole_one_is_restored(copy_of_finished, tmp_path, damage):
    newest = copy_of_finished / "step_000000020.checkpoint"
    whole = pathlib.Path(shutil.copytree(copy_of_finished, tmp_path / "whole"))
    (whole / newest.name).unlink()
    expected, model = make_model(), make_model()
    assert ExactResume(whole).restore(expected) == 15
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match=r"step_000000020.checkpoint(.|\n)*checkpoint of step 15 is used"):
        assert ExactResume(copy_of_finished).restore(model) == 15
    equal(everything(model), everything(expected))
    assert not newest.exists() and newest.with_suffix(".checkpoint.damaged").exists()


def test_where_all_are_damaged_nothing_is_started_anew(copy_of_finished):
    for path in copy_of_finished.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    before = {path: path.read_bytes() for path in copy_of_finished.iterdir()}
    with pytest.raises(DamagedFileError, match="step_000000020.checkpoint"):
        ExactResume(copy_of_finished).restore(make_model())
    assert {path: path.read_bytes() for path in copy_of_finished.iterdir()} == before


def test_checkpoints_of_another_model_are_refused(finished):
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="variables of another one"):
        ExactResume(finished[0]).restore(other)


def test_a_run_is_not_begun_over_an_earlier_one(copy_of_finished):
    model = make_model()
    with pytest.raises(ValueError, match=r"restore\(model\)"):
        model.fit(np.zeros((4, 8, 8, 1), "float32"), verbose=0, callbacks=[ExactResume(copy_of_finished)])


def test_a_run_that_was_finished_goes_on(finished, copy_of_finished, tmp_path):
    model, metrics = train(copy_of_finished, steps=30)
    expected, expected_metrics = train(tmp_path / "whole", steps=30)
    equal(everything(model), everything(expected))
    assert metrics == expected_metrics


def test_any_keras_model_resumes_where_an_epoch_ended(tmp_path):
    x, y = np.random.default_rng(0).standard_normal((2, 32, 3)).astype("float32")

    def fit(folder, epochs):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
        model.compile("adam", "mse", metrics=["mae"])
        resume = ExactResume(folder)
        step = resume.restore(model)
        history = model.fit(
            x, y, batch_size=8, shuffle=False, epochs=epochs, initial_epoch=step // 4, verbose=0, callbacks=[resume]
        )
        return everything(model), history.history["mae"][-1]

    fit(tmp_path / "parts", 2)
    resumed, mae = fit(tmp_path / "parts", 5)
    whole, expected_mae = fit(tmp_path / "whole", 5)
    equal(resumed, whole)
    assert mae == expected_mae


def test_a_budget_ends_the_run_with_a_checkpoint_of_its_last_step(tmp_path):
    model, _ = train(tmp_path, steps=10**6, every=10**6, callbacks=[WallTimeBudget(0.05)])
    step = int(model.optimizer.iterations)
    assert Checkpoints(tmp_path).steps() == [step] and 1 < step < 10**6


def test_a_folder_that_vanishes_stops_the_run_with_a_message(tmp_path):
    class Vanishing(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                shutil.rmtree(tmp_path / "run")

    with pytest.raises(OutputError, match=r"Expected to be able to write (.|\n)*No such file"):
        train(tmp_path / "run", steps=20, callbacks=[Vanishing()])
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="needs a file system that nobody can write to")
def test_a_folder_that_cannot_be_written_is_refused_before_training():
    with pytest.raises(OutputError, match="Expected to be able to write /proc/keras_sip"):
        train(pathlib.Path("/proc/keras_sip"), steps=20)


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model = make_model()
    model.trainable_variables[0].assign(np.full(model.trainable_variables[0].shape, np.nan))
    with pytest.raises(ArithmeticError, match="NaN or Inf in .*kernel"):
        Checkpoints(tmp_path).save(model, 3)
    assert not list(tmp_path.iterdir())
