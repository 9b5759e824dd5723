"""Comparison in one command: its numbers, its search of rates, what it writes, and what it refuses."""

import contextlib
import dataclasses
import io
import json
import math
import types

import keras
import pytest
import tensorflow as tf
from tiny import TINY

import compare
import keras_sip
from eager import eagerly
from experiments import figures
from experiments.experiment import Variant, rate_of
from experiments.options import parse_options
from keras_sip.checkpoints import Checkpoints
from keras_sip.comparison.records import Metrics
from studies import rate_search

# The search of rates --------------------------------------------------------------------------------------------------


def searched(best, factors=(0.1, 1.0, 10.0), diverges_above=math.inf):
    """{rate: error} of a search from 1e-3, where errors grow with the distance from `best` in decades."""
    variant = Variant(label="", about="", method="sip", optimizer=None, rate_factors=factors)

    def error(candidates):
        return {
            rate: math.inf if rate > diverges_above else 0.1 + abs(math.log10(rate / best))
            for rate, _ in candidates.values()
        }

    return rate_search._search("sip", variant, [1e-3 * factor for factor in factors], error)


def test_search_stays_between_its_candidates_where_the_best_is_there():
    assert sorted(searched(2e-3)) == pytest.approx([1e-4, 1e-3, 1e-2])


@pytest.mark.parametrize("best", [1e-7, 1.0])
def test_search_goes_on_where_the_best_is_at_an_end(best):
    errors = searched(best)
    assert min(errors, key=errors.get) == pytest.approx(best)


def test_search_ends_where_rates_diverge_and_after_a_number_of_candidates():
    assert max(searched(1.0, diverges_above=5e-2)) == pytest.approx(0.1)
    assert len(searched(1e30)) == rate_search.MOST_CANDIDATES
    assert list(searched(1.0, factors=(1.0,))) == [1e-3]


def test_a_best_rate_at_an_end_is_said(tmp_path):
    found = {
        "inner": {"rate": 1e-3, "x_error": {"0.0001": 0.5, "0.001": 0.25, "0.01": None}},
        "outer": {"rate": 1e-2, "x_error": {"0.001": 0.5, "0.01": 0.25}},
        "fixed": {"rate": 1e-2, "x_error": {}},
    }
    (tmp_path / rate_search.FILE).write_text(json.dumps(found))
    heading, inner, outer, fixed, remark = rate_search.rates_table(types.SimpleNamespace(path=tmp_path)).splitlines()
    assert "*0.001 0.2500  0.01 diverged" in inner and "*0.01 0.2500" in outer and "0.0" not in fixed
    assert "beyond: outer" in remark


@pytest.mark.parametrize("schedule", [False, True])
def test_a_rate_replaces_the_optimizers_own_and_nothing_else(schedule):
    def optimizer(options):
        rate = keras.optimizers.schedules.CosineDecay(1e-3, 50) if schedule else 1e-3
        return keras.optimizers.SGD(rate, momentum=0.7)

    changed = Variant(label="", about="", method="sip", optimizer=optimizer).with_rate(0.25).optimizer(None)
    assert rate_of(optimizer(None)) == 1e-3 and rate_of(changed) == 0.25 and changed.momentum == 0.7
    if schedule:
        assert float(changed._learning_rate(0)) == 0.25 and float(changed._learning_rate(50)) == 0.0


# A whole comparison ---------------------------------------------------------------------------------------------------


def wild(options):
    return keras.optimizers.SGD(1e30)


EXPERIMENT = dataclasses.replace(
    TINY,
    variants={
        "sip": dataclasses.replace(TINY.variants["sip"], rate_factors=(0.5,)),
        "wild": Variant(label="Wild", about="diverges", method="adjoint", optimizer=wild, rate_factors=(1.0, 10.0)),
    },
    reference="sip",
)
NOISY = keras_sip.Degraded(keras_sip.Poisson((8, 8)), noise=(0.05, 0.2))
WORDS = "--methods sip wild --budget 1e-6 --search 1 --noise 0.05 0.2 --robustness".split()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, exit code, printed): a budget that the second step uses up, and a method that diverges."""
    path = tmp_path_factory.mktemp("compared") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()), eagerly():
        exit_code = compare.main_of(EXPERIMENT, [*WORDS, "--output", str(path)])
    return path, exit_code, printed.getvalue()


def trained_model(path):
    """The model of the comparison's one finished run, with the rate that the search found."""
    model = EXPERIMENT.build_model("sip", NOISY, types.SimpleNamespace(steps=TINY.steps), 0)
    Checkpoints(path / "checkpoints" / "sip_seed0").restore(model)
    return model


def test_a_budget_ends_a_run_and_its_last_step_is_evaluated(whole):
    rows = Metrics(whole[0] / "metrics.csv").run("sip", 0)
    # The first step compiles and takes no training time; the second one is over the budget.
    assert [row["step"] for row in rows] == [0, 1, 2] and rows[2]["x_error"] is not None


def test_a_method_that_diverges_is_named_and_the_others_are_compared(whole):
    path, exit_code, printed = whole
    comparison = json.loads((path / "comparison.json").read_text())
    assert exit_code == 1
    assert comparison["unfinished"] == ["wild seed 0"]
    assert "diverged" in comparison["failures"]["wild seed 0"] and "search wild" in comparison["failures"]
    assert list(comparison["error_at_step"]) == ["sip"]
    assert "measured as far as they came: wild seed 0" in printed
    assert max(map(len, (path / "comparison.txt").read_text().splitlines())) <= 80


def test_the_searched_rate_is_recorded_and_used(whole):
    path, _, printed = whole
    found = json.loads((path / "rates.json").read_text())
    assert list(found) == ["sip"] and found["sip"]["rate"] == 5e-3
    assert found["sip"]["x_error"]["0.005"] == pytest.approx(
        Metrics(path / "search" / "metrics.csv").run("sip_5e-03", rate_search.SEARCH_SEED)[-1]["x_error"]
    )
    model = trained_model(path)
    assert float(model.optimizer.learning_rate) == pytest.approx(5e-3)
    assert json.loads((path / "comparison.json").read_text())["learning_rates"]["sip"] == 5e-3
    assert "*0.005" in printed


def test_robustness_is_the_error_of_the_trained_model_on_degraded_observations(whole):
    path = whole[0]
    errors = json.loads((path / "robustness.json").read_text())
    assert {kind: list(by_method) for kind, by_method in errors.items()} == dict.fromkeys(
        ("noise", "multiplicative_noise", "missing_sensors", "low_pass"), ["sip"]
    )
    simulator = NOISY
    observation, x = keras_sip.evaluation_set(simulator, TINY.evaluation_examples, 0)
    model = trained_model(path)
    # Trained and measured on noisy observations, as the command says.
    last = Metrics(path / "metrics.csv").run("sip", 0)[-1]["x_error"]
    assert errors["noise"]["sip"]["0.0"][0] == pytest.approx(last, rel=1e-5)
    blurred = keras_sip.Degraded(simulator, low_pass=2.0).degrade(observation["y"], None, (0, 0))[0]
    expected = tf.reduce_mean(tf.abs(model({**observation, "y": blurred}) - x))
    assert errors["low_pass"]["sip"]["2.0"][0] == pytest.approx(float(expected), rel=1e-5)
    assert max(map(len, (path / "robustness.txt").read_text().splitlines())) <= 80
    assert len((path / "robustness.csv").read_text().splitlines()) == 1 + 4 * 5
    assert not figures.available() or tf.io.decode_png((path / "robustness.png").read_bytes()).shape[0] > 300


def test_a_finished_comparison_is_resumed_without_training(whole, capsys):
    path = whole[0]
    before = (path / "metrics.csv").read_text()
    words = ["sip" if word == "wild" else word for word in WORDS if word != "--robustness"]
    assert compare.main_of(EXPERIMENT, [*words, "--output", str(path), "--resume"]) == 0
    assert "sip s0 finished before" in capsys.readouterr().out
    assert (path / "metrics.csv").read_text() == before


# What is refused ------------------------------------------------------------------------------------------------------


def test_an_unknown_experiment_lists_those_there_are(capsys):
    assert compare.run(["heet"]) == 2
    error = capsys.readouterr().err
    assert "Received 'heet'" in error and "poisson" in error and "heat" in error


def test_an_unknown_method_lists_those_of_the_experiment(capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_info:
        compare.run(["heat", "--methods", "sip", "newton", "--output", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2 and "Received 'newton'" in error
    assert all(name in error for name in ("adahessian", "hessian_free", "fno", "sgd"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--budget soon", "600s"),
        ("--budget=-5s", "above 0"),
        ("--search 2", "at most 1"),
        ("--rates no_such_file.json", "no_such_file.json"),
    ],
)
def test_bad_options_are_refused_before_there_is_a_folder(capsys, tmp_path, words, message):
    with pytest.raises(SystemExit):
        compare.main_of(TINY, [*words.split(), "--output", str(tmp_path / "run")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_negative_noise_level_is_refused_before_there_is_a_folder(capsys, tmp_path):
    assert compare.main_of(TINY, ["--noise", "-0.1", "--output", str(tmp_path / "run")]) == 2
    assert "Expected `noise`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "seconds"), [("600s", 600), ("10m", 600), ("1h", 3600), ("2.5", 2.5)])
def test_a_budget_is_read_in_seconds_minutes_or_hours(text, seconds):
    options = parse_options(TINY, ["--budget", text])
    assert options.budget == seconds and options.steps >= 10**6
