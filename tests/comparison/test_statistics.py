"""Numbers of a comparison over seeds, at equal steps and at equal time, and their tables."""

import csv
import io
import json

import numpy as np
import pytest

from keras_sip.comparison import statistics, tables
from keras_sip.comparison.records import Metrics

# Errors fall as 1 / step; "slow" takes twice the time for a step, seed 1 is worse by a half.
SECONDS_A_STEP = {"quick": 1.0, "slow": 2.0}


@pytest.fixture
def made_up(tmp_path):
    """Metrics of two methods and two seeds, evaluated after 0, 1, 2, 4 and 8 steps."""
    metrics = Metrics(tmp_path / "metrics.csv")
    for method, seconds in SECONDS_A_STEP.items():
        for seed in (0, 1):
            for step in range(9):
                measured = step in (0, 1, 2, 4, 8)
                error = (1 + seed / 2) / (1 + step)
                time = {"train_seconds": seconds * max(step - 1, 0), "compile_seconds": 3.0}
                metrics.append(method, seed, step, x_error=error if measured else None, **time)
    return metrics


@pytest.fixture
def compared(made_up):
    return statistics.errors_of(made_up, ["quick", "slow"], table_steps=(2, 4))


def test_errors_at_equal_steps_are_those_of_the_seeds(compared):
    for by_step in compared["error_at_step"].values():
        assert list(by_step) == [2, 4, 8]
        assert by_step[4] == pytest.approx((1.25 / 5, 1 / 5, 1.5 / 5, 0))


def test_errors_at_equal_time_end_where_the_quickest_run_does(compared):
    quick, slow = compared["error_at_seconds"]["quick"], compared["error_at_seconds"]["slow"]
    assert list(quick) == pytest.approx([0.7, 1.75, 3.5, 7.0])
    assert quick[7.0].mean == pytest.approx(1.25 / 9)
    # After 7 s the slow one is between steps 4 (6 s) and 8 (14 s): an eighth of the way, in the logarithm.
    expected = np.exp(np.log(1 / 5) + (np.log(1 / 9) - np.log(1 / 5)) / 8)
    assert (slow[7.0].low, slow[7.0].high) == pytest.approx((expected, 1.5 * expected))


def test_time_to_an_error_is_interpolated_and_missing_where_a_seed_does_not_reach_it(compared):
    by_level = compared["seconds_to_error"]["quick"]
    assert all(1 / 9 <= level < 1.5 for level in by_level)
    # Error 0.3 of seed 0 lies between steps 2 (1/3, 1 s) and 4 (1/5, 3 s); of seed 1 it is step 4 itself.
    first = 1 + 2 * np.log(10 / 9) / np.log(5 / 3)
    assert by_level[0.3][:3] == pytest.approx(((first + 3) / 2, first, 3.0))
    steps = compared["steps_to_error"]
    assert steps["quick"] == steps["slow"] and steps["slow"][0.3].high == pytest.approx(4)
    assert by_level[0.15].missing == 1 and by_level[0.15].mean == pytest.approx(by_level[0.15].low)


def test_an_untrained_network_has_reached_nothing():
    errors = (0.1, 0.5, 0.2, 0.05)
    rows = [{"step": step, "x_error": error} for step, error in enumerate(errors)]
    assert statistics._reached(rows, 0.2, "step") == pytest.approx(2.0)
    assert statistics._reached(rows, 0.1, "step") == pytest.approx(2.5)
    assert statistics._reached(rows, 0.04, "step") is None


def test_tables_have_80_columns_and_say_what_was_not_reached(compared):
    text = tables.time_tables(compared, {"quick": "A label of many letters", "slow": "Slow"})
    assert max(map(len, text.splitlines())) <= 80
    to_error = text.split("training seconds to an error")[1].splitlines()
    assert to_error[1].split()[1:3] == ["0.15", "0.2"] and to_error[2].split()[-6:][0] == "-"


def test_json_and_csv_hold_all_numbers(compared):
    numbers = json.loads(statistics.as_json(compared, experiment="made up"))
    assert numbers["experiment"] == "made up"
    assert numbers["error_at_step"]["slow"]["4"]["mean"] == pytest.approx(0.25)
    rows = list(csv.DictReader(io.StringIO(statistics.as_csv(compared))))
    assert len(rows) == sum(len(row) for by_method in compared.values() for row in by_method.values())
    row = next(row for row in rows if (row["quantity"], row["method"], row["at"]) == ("error_at_step", "slow", "4"))
    assert (row["mean"], row["low"], row["high"], row["missing"]) == ("0.25", "0.2", "0.3", "0")


def test_a_method_that_was_never_evaluated_again_is_left_out(made_up):
    made_up.append("broken", 0, 0, x_error=1.5)
    made_up.append("broken", 0, 1, x_error=float("nan"))
    compared = statistics.errors_of(made_up, ["quick", "broken"], table_steps=(10,))
    assert all(list(by_method) == ["quick"] for by_method in compared.values())
