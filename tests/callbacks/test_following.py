"""What callbacks know of a run, and the guard, the card and the bar that are built on it."""

import io
import json

import keras
import numpy as np
import pytest
from resumed_run import BATCH, SIMULATOR, everything, make_model

import keras_sip
from eager import eagerly
from keras_sip.callbacks import ModelCard, NonFiniteGuard, ProgressBar
from keras_sip.callbacks.follower import Follower
from keras_sip.callbacks.non_finite_guard import NonFiniteError
from keras_sip.callbacks.progress_bar import ProgressLine

# What is compared to the last bit is taken in one way.
pytestmark = pytest.mark.usefixtures("eagerly")

BAD_STEP, BAD_EXAMPLE = 7, 2


class Noted(Follower):
    """Keeps what a follower knows after each step."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.notes = []

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.notes.append((self.step, self.running_means(), dict(logs)))


class Reset(keras.callbacks.Callback):
    """Resets the metrics after each step, as the applications' runner does, so that logs are of one batch."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.reset_metrics()


def fit(callbacks, model=None, data=None, steps=12, **options):
    model = model or make_model()
    data = keras_sip.dataset(SIMULATOR, batch_size=BATCH, seed=0) if data is None else data
    return model.fit(data, steps_per_epoch=steps, verbose=0, callbacks=callbacks, **options)


@pytest.fixture(scope="module")
def followed():
    """Notes of a plain run, those of the same run with metrics reset after each step, and its model."""
    plain, alone = Noted(), Noted()
    model = make_model()
    with eagerly():
        fit([plain], steps=12)
        fit([Reset(), alone], model, steps=12)
    return plain.notes, alone.notes, model


def test_running_means_are_of_the_last_ten_batches_whatever_keras_averages(followed):
    plain, alone, _ = followed
    batches = [logs["loss"] for _, _, logs in alone]
    for step in (1, 6, 12):
        expected = np.mean(batches[max(0, step - 10) : step])
        # Keras' own means are float32; theirs over the epoch are taken apart again.
        assert plain[step - 1][1]["loss"] == pytest.approx(expected, rel=1e-5)
        assert alone[step - 1][1]["loss"] == pytest.approx(expected, rel=1e-6)


def test_steps_go_on_where_the_optimizer_is_and_over_epochs(followed):
    noted = Noted()
    fit([noted], followed[2], steps=3, epochs=2)
    assert [step for step, _, _ in noted.notes] == [13, 14, 15, 16, 17, 18]
    assert noted.compile_seconds > 0 and noted.train_seconds > 0 and noted.steps_per_second > 0


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_training_steps_are_counted_and_not_changes_of_the_weights(policy):
    simulator = keras_sip.Exponential(lower=-2.0)
    network = keras_sip.MLP(1, 1, (4,), seed=0)
    network.dtype_policy = keras.dtype_policies.get(policy)
    model = keras_sip.SIPModel(network, simulator, keras_sip.AnalyticInverse())
    model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=4), run_eagerly=True)
    data = keras_sip.dataset(simulator, 4, seed=0)
    for first in (1, 7):
        noted = Noted()
        model.fit(data, steps_per_epoch=6, verbose=0, callbacks=[noted])
        assert [step for step, _, _ in noted.notes] == list(range(first, first + 6))
    assert model.training_steps == 12


def exploding_data(first_step):
    """The batches from a step on; at `BAD_STEP` one example's x, on which supervised training builds, is enormous."""

    def spoil(step, example):
        observation, x = example
        factor = np.ones((BATCH, 1, 1, 1), "float32")
        factor[BAD_EXAMPLE] = 1e30
        return observation * keras.ops.where(step == BAD_STEP - 1, factor, 1.0), x

    data = keras_sip.dataset(SIMULATOR, batch_size=BATCH, seed=0, start_step=first_step)
    return data.enumerate(start=first_step).map(spoil)


@pytest.mark.parametrize("replayed", [True, False])
def test_guard_names_step_and_example_and_restores_good_weights(replayed):
    # Measured statistics would be those of the end of fit, which the other model does not come to.
    expected = make_model("moving")
    fit([], expected, steps=BAD_STEP - 1 if replayed else 5)
    model = make_model()
    guard = NonFiniteGuard(every=5, data=exploding_data if replayed else None)
    with pytest.raises(NonFiniteError, match="finite losses and weights") as caught:
        fit([guard], model, exploding_data(0))
    if replayed:
        assert (caught.value.step, caught.value.example) == (BAD_STEP, BAD_EXAMPLE)
        assert f"step {BAD_STEP}, where example {BAD_EXAMPLE} of the batch" in str(caught.value)
    else:
        assert "a step from 6 to" in str(caught.value) and caught.value.example is None
    for restored, good in zip(everything(model), everything(expected), strict=True):
        np.testing.assert_array_equal(restored, good)


def test_card_and_metrics_say_what_was_done(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--rate", "1e-2"])
    evaluation = keras_sip.evaluation_set(SIMULATOR, 8, 1)
    model = make_model()
    fit([ModelCard(tmp_path / "out", "Poisson, small", evaluation=evaluation, seeds=[0], notes={"data": "own"})], model)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected = model.evaluate(*evaluation, verbose=0, return_dict=True)
    assert metrics["measured"]["x_error, evaluation"] == pytest.approx(expected["x_error"], rel=1e-6)
    assert metrics["steps"] == 12 and metrics["command"] == "python train.py --rate 1e-2"
    assert metrics["versions"]["keras_sip"] == keras_sip.__version__
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("# Poisson, small\n")
    for part in ("`Poisson(resolution=[8, 8])`", "python train.py --rate 1e-2", "| data | own |", "12 steps"):
        assert part in card


def test_bar_shows_what_matters_in_a_log_file():
    stream = io.StringIO()
    fit([ProgressBar("small", stream=stream)], steps=12)
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("small 12/12 [################] ") and " x " in last and " y " in last


def test_bar_shows_a_failed_share_only_where_there_is_one():
    stream = io.StringIO()
    line = ProgressLine("run", None, stream)
    line.show(3, {"x_error": 0.5, "loss": 1.0, "failed": 0.25}, 0.0)
    assert stream.getvalue() == "run 3 x 0.5000 y 1.0e+00 failed 25%\n"
