"""The fluid's benchmark runs at a tiny size: parts and training steps are measured, growth and limit are judged."""

import contextlib
import io
import json

import numpy as np
import pytest

import fluid
from _timing import TABLE_WIDTH
from eager import eagerly


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(what was printed, the numbers): a simulation step and SIP training on 8 x 8 cells."""
    path = tmp_path_factory.mktemp("benchmark") / "new" / "fluid.json"
    # Batch norm is measured on 512 examples in batches of this size: a larger one takes fewer of them.
    size = "--resolution 8 --batch 1 --training-resolution 8 --training-batch 256 --time-steps 4 --repeats 1"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed, eagerly():
        patch.setattr(fluid, "FIT_STEPS", 2)
        patch.setattr(fluid, "LEVELS", 1)
        # Updates alone are measured below, of the adjoint too.
        patch.setattr(fluid, "METHODS", {"sip": fluid.METHODS["sip"]})
        fluid.main([*size.split(), "--skip-memory", "--output", str(path)])
    return printed.getvalue(), json.loads(path.read_text())


def test_every_part_of_a_step_is_measured(finished):
    _, numbers = finished
    modes = [f"{mode} {kind}" for mode in ("forward", "gradient") for kind in fluid.KINDS]
    expected = {f"{part} {mode}" for part in ("step", "advection", "projection") for mode in modes}
    assert set(numbers["steps"]["1"]["8"]) == expected
    assert all(part["median"] > 0 for part in numbers["steps"]["1"]["8"].values())


def test_growth_is_time_over_n_log_n_relative_to_the_coarsest_grid():
    """4 times the cells in 4 times the time: less than N log N by log 64 / log 256 = 0.75."""
    keys = [("step", mode, kind) for mode in ("forward", "gradient") for kind in fluid.KINDS]
    measured = {size: {key: np.array([1e-3 * cells]) for key in keys} for size, cells in ((8, 1.0), (16, 4.0))}
    rows = [line.split() for line in fluid.growth_table(measured).splitlines() if line.startswith(("forw", "grad"))]
    assert [row[-2:] for row in rows] == [["1.00", "0.75"]] * 4


def test_the_limit_of_a_sip_step_is_judged_by_the_ratio(finished):
    printed, numbers = finished
    seconds = numbers["training"]["256"]["seconds"]
    ratio = seconds["sip"]["median"] / seconds["network"]["median"]
    line = next(line for line in printed.splitlines() if line.startswith("sip "))
    assert ("kept" in line) == (ratio <= fluid.LIMIT) and ("EXCEEDED" in line) == (ratio > fluid.LIMIT)
    assert max(map(len, printed.splitlines())) <= TABLE_WIDTH


def test_memory_of_updates_is_that_of_the_trajectory_for_the_adjoint_alone():
    """A trajectory of 4 steps is four times one of 1; the solver forgets each step."""
    memory = fluid.measure_updates(64, 64, [1, 4])
    printed = fluid.updates_table(memory)
    assert [line.split()[0] for line in printed.splitlines()[2:]] == ["sip", "adjoint"]
    grown = {name: by_steps[4] - by_steps[1] for name, by_steps in memory.items()}
    # 200 against 58 MiB, of which some tens are the graph itself.
    assert grown["adjoint"] > 2 * grown["sip"]


@pytest.mark.parametrize("words", [["--resolution", "0"], ["--memory-steps", "0"], ["--repeats", "-1"]])
def test_bad_options_are_refused(words):
    with pytest.raises(SystemExit):
        fluid.main(words)
