"""What the benchmarks' measurements mean."""

import time

import numpy as np

from _timing import SHORTEST_TURN, TABLE_WIDTH, Ratio, interleaved, machine, ratio, summary, table


def test_variants_take_turns_after_two_calls_that_are_not_counted():
    calls = []

    def variant(name):
        return lambda: (calls.append(name), time.sleep(SHORTEST_TURN))

    seconds = interleaved({"a": variant("a"), "b": variant("b")}, repeats=3)
    assert "".join(calls) == "aabb" + 3 * "ab"
    assert {name: times.shape for name, times in seconds.items()} == {"a": (3,), "b": (3,)}


def test_short_calls_are_repeated_and_their_time_is_that_of_one():
    seconds = interleaved({"a": lambda: time.sleep(1e-3)}, repeats=2)["a"]
    assert np.all(seconds >= 1e-3)
    # A loaded machine may sleep ten times too long; without the division it would be at least SHORTEST_TURN.
    assert np.all(seconds < SHORTEST_TURN)


def test_ratio_is_that_of_medians_with_quartiles_of_the_turns():
    a, b = np.array([2.0, 4.0, 12.0]), np.array([1.0, 4.0, 4.0])
    # The ratios of the turns are 2, 1 and 3.
    assert ratio(a, b) == Ratio(value=1.0, low=1.5, high=2.5)
    assert summary(a) == {"median": 4.0, "quartiles": [3.0, 8.0], "seconds": [2.0, 4.0, 12.0]}


def test_tables_are_at_most_80_characters_wide():
    text = table(["name", *"abcde"], [["row", *5 * ["1.00 0.95-1.05"[:11]]]])
    header, line, row = text.splitlines()
    assert len(line) <= TABLE_WIDTH
    assert row.startswith("row") and row.count("1.00 0.95-1") == 5
    assert "cores" in machine()
