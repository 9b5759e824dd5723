"""What a finished run leaves: numbers, table, event files, exported models, figures."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TINY, trained_model

import keras_sip
from keras_sip.comparison.records import MEASURED, RUN

RUNS = [(method, seed) for seed in (0, 1) for method in ("sip", "adam")]
# Powers of ten times 1, 1.5, 2, 3, 4, 5, 6, 8, with the table's and the last.
SCHEDULE = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12]


@pytest.fixture(scope="module")
def evaluation():
    observation, x = keras_sip.evaluation_set(keras_sip.Poisson((8, 8)), TINY.evaluation_examples, 0)
    return observation, x.numpy()


def load(finished, method, seed):
    return trained_model(finished.path, method, seed)


def test_exit_code_and_description(finished):
    description = json.loads((finished.path / "run.json").read_text())
    assert finished.exit_code == 0
    assert description["failures"] == {}
    assert description["arguments"]["batch"] == 256
    assert description["versions"]["keras"] == keras.__version__
    assert set(description["machine"]) == {"processor", "cores", "memory_gib"}


def test_csv_has_a_row_for_every_step_and_evaluations_as_scheduled(finished):
    with (finished.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == (*RUN, *MEASURED)
    for method, seed in RUNS:
        own = [row for row in rows if (row["method"], row["seed"]) == (method, str(seed))]
        assert [int(row["step"]) for row in own] == list(range(13))
        assert [int(row["step"]) for row in own if row["x_error"]] == SCHEDULE
        assert all(row["batch_x_error"] and row["failed"] for row in own[1:])


def test_methods_start_equal_and_see_equal_batches(finished):
    for seed in (0, 1):
        sip, adam = (finished.metrics.run(method, seed) for method in ("sip", "adam"))
        assert (sip[0]["x_error"], sip[0]["loss"]) == (adam[0]["x_error"], adam[0]["loss"])
        # Measured before the first update: the same weights on the same batch.
        assert (sip[1]["batch_x_error"], sip[1]["batch_loss"]) == (adam[1]["batch_x_error"], adam[1]["batch_loss"])
        assert sip[2]["batch_x_error"] != adam[2]["batch_x_error"]
    assert finished.metrics.run("sip", 0)[0]["x_error"] != finished.metrics.run("sip", 1)[0]["x_error"]


def test_batches_are_measured_alone_and_averaged_over_ten(finished):
    rows = finished.metrics.run("sip", 0)
    batches = [row["batch_x_error"] for row in rows[1:]]
    for step in (1, 4, 12):
        # The mean of float32 numbers printed with nine digits.
        assert rows[step]["train_x_error"] == pytest.approx(np.mean(batches[max(0, step - 10) : step]), rel=1e-8)


def test_evaluation_equals_numpy_on_the_saved_model(finished, evaluation):
    observation, x_true = evaluation
    model = load(finished, "adam", 1)
    x = model.predict(observation, verbose=0)
    y = keras_sip.Poisson((8, 8))(x).numpy()
    last = finished.metrics.run("adam", 1)[-1]
    # float32 sums over 64 cells and 8 examples.
    assert last["x_error"] == pytest.approx(np.mean(np.abs(x - x_true)), rel=1e-5)
    assert last["loss"] == pytest.approx(np.mean(np.sum((y - observation.numpy()) ** 2, (1, 2, 3))) / 2, rel=1e-5)


def test_times_leave_out_compiling_and_only_grow(finished):
    rows = finished.metrics.run("sip", 0)
    assert rows[1]["train_seconds"] == 0 and rows[1]["compile_seconds"] > 0
    assert len({row["compile_seconds"] for row in rows[1:]}) == 1
    assert np.all(np.diff([row["train_seconds"] for row in rows[1:]]) > 0)


def test_table_repeats_the_csv_in_80_columns(finished):
    table = (finished.path / "table.txt").read_text()
    assert table in finished.printed
    lines = table.splitlines()
    assert max(map(len, lines)) <= 80
    head = next(number for number, line in enumerate(lines) if line.split() == ["after", "step", "10", "12"])
    # Two methods with three rows each; after a blank line and a title, two rows of ratios.
    shown = [[float(word) for word in line.split()[-2:]] for line in lines[head + 1 : head + 7] + lines[head + 9 :][:2]]

    def values(method, column):
        curves = [finished.metrics.curve(method, seed, column) for seed in (0, 1)]
        return np.array([[curve[step] for step in (10, 12)] for curve in curves])

    expected = []
    for method in ("sip", "adam"):
        error = values(method, "x_error")
        expected += [error.mean(0), np.ptp(error, 0) / 2, values(method, "train_x_error").mean(0)]
    for column in ("x_error", "train_x_error"):
        expected.append((values("adam", column) / values("sip", column)).mean(0))
    # Four decimals are shown.
    np.testing.assert_allclose(shown, expected, atol=5.1e-5)


@pytest.mark.parametrize(("method", "seed"), RUNS)
def test_event_files_hold_the_curves_of_the_csv(finished, method, seed):
    events = EventAccumulator(str(finished.path / "tensorboard" / f"{method}_seed{seed}"), {"tensors": 0, "images": 0})
    events.Reload()
    for tag, column in (("x_error/evaluation", "x_error"), ("loss/training", "train_loss")):
        curve = {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}
        # Step 0 is measured before TensorBoard's first step.
        expected = {step: value for step, value in finished.metrics.curve(method, seed, column).items() if step > 0}
        assert curve == pytest.approx(expected, rel=1e-6)


def test_event_files_hold_coloured_reconstructions(finished):
    events = EventAccumulator(str(finished.path / "tensorboard" / "sip_seed0"), {"tensors": 0})
    events.Reload()
    pictures = events.Tensors("answers")
    assert [event.step for event in pictures] == [10, 12]
    width, height, png = tf.make_ndarray(pictures[-1].tensor_proto)
    picture = tf.io.decode_png(png, channels=3).numpy()
    assert picture.shape == (int(height), int(width), 3)
    assert np.ptp(picture.astype(int), axis=-1).max() > 100


@pytest.mark.parametrize("method", ["sip", "adam"])
def test_exported_model_equals_the_trained_one(finished, evaluation, method):
    observation, x_true = evaluation
    served = tf.saved_model.load(str(finished.path / "saved_models" / method))
    x = served.signatures["infer"](y=observation[:5])["x"].numpy()
    expected = load(finished, method, 0).predict(observation, verbose=0)[:5]
    assert np.max(np.abs(x - expected)) <= 1e-5 * np.max(np.abs(expected))
    y = served.signatures["simulate"](x=tf.constant(x_true))["y"].numpy()
    assert np.max(np.abs(y - observation)) <= 1e-5 * np.max(np.abs(y))
    assert f"saved_models/{method}: loaded back" in finished.printed


@pytest.mark.parametrize("name", ["learning_curves.png", "reconstructions.png"])
def test_figures_are_coloured_pictures(finished, name):
    picture = tf.io.decode_png((finished.path / name).read_bytes(), channels=3).numpy().astype(int)
    assert min(picture.shape[:2]) > 300
    assert np.ptp(picture, axis=-1).max() > 100
