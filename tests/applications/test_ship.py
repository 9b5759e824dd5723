"""ship.py: trains method and baseline, goes on after a stop, and writes a folder that loads."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from tiny import TINY, files

import keras_sip
import ship
from keras_sip.files import verify_checksums


@pytest.fixture
def shipping(tmp_path, monkeypatch):
    """`ship.main` on the tiny experiment, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ship, "_experiment", lambda name: TINY)
    return lambda *words: ship.main(["tiny", "--steps", "6", "--output", "models", *words])


def test_a_shipped_model_is_whole_measured_and_loads(shipping, tmp_path, capsys):
    assert shipping("--quiet") == 0
    folder = tmp_path / "models" / "tiny"
    verify_checksums(folder)
    model = keras_sip.load_pretrained("tiny", tmp_path / "models")
    measured = json.loads((folder / "metrics.json").read_text())["measured"]
    observation, x = keras_sip.evaluation_set(model.simulator, TINY.evaluation_examples, 0)
    error = np.mean(np.abs(model.predict(observation, verbose=0) - x))
    assert measured["x_error sip"] == pytest.approx(error, rel=1e-5)
    assert measured["x_error adam / sip"] == pytest.approx(measured["x_error adam"] / measured["x_error sip"])
    # The solver inverts exactly.
    assert measured["x_error sip, refined 5 steps"] < 1e-4
    # The rate has fallen to zero at the last step.
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-12)
    card = (folder / "README.md").read_text()
    assert "x_error adam" in card and 'load_pretrained("tiny")' in card and "6 steps, batch 256" in card
    for picture in ("answers.png", "learning_curves.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")

    before = files(folder)
    assert shipping() == 2
    assert "--replace" in capsys.readouterr().err
    assert files(folder) == before


def test_an_unknown_application_lists_those_that_are_there(capsys):
    assert ship.main(["poison"]) == 2
    error = capsys.readouterr().err
    assert "poisson" in error and "Received 'poison'" in error


def test_a_schedule_of_the_applications_own_is_kept():
    schedule = keras.optimizers.schedules.CosineDecay(0.25, 7)
    scheduled = dataclasses.replace(TINY.variants["sip"], optimizer=lambda options: keras.optimizers.Adam(schedule))
    experiment = dataclasses.replace(TINY, variants={"sip": scheduled, "adam": TINY.variants["adam"]})
    falling = ship.with_falling_rates(experiment, steps=10).variants
    configs = {
        name: variant.optimizer(None).get_config()["learning_rate"]["config"] for name, variant in falling.items()
    }
    assert configs["sip"]["decay_steps"] == 7 and configs["adam"]["decay_steps"] == 10
