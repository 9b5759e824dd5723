"""The training-step benchmark runs at a tiny size, shows every row, and its ratios are those of its medians."""

import contextlib
import io
import json

import numpy as np
import pytest

import train_step
from _problem import METHODS, SYSTEMS, Problem
from _timing import TABLE_WIDTH
from eager import eagerly

MEASURED = ["supervised", "sip"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(what was printed, the numbers) of a run on 8 x 8 cells."""
    path = tmp_path_factory.mktemp("benchmark") / "new" / "train_step.json"
    # Batch norm is measured on 512 examples in batches of this size: a larger one takes fewer of them.
    size = "--batch 256 --resolution 8 --levels 1 --repeats 2 --fit-steps 1 --cg-steps 2 --skip-memory"
    with contextlib.redirect_stdout(io.StringIO()) as printed, eagerly():
        train_step.main([*size.split(), "--methods", *MEASURED, "--output", str(path)])
    return printed.getvalue(), json.loads(path.read_text())


def test_tables_have_all_rows(finished):
    printed, _ = finished
    lines = printed.splitlines()
    parts = ["data", "network", "physics", "physics + adjoint", "solver sip", "solver gauss_newton"]
    for row in [*MEASURED, "sip /", "  limit 1.10", *parts]:
        assert sum(line.startswith(row) for line in lines) >= 1, row
    assert max(map(len, lines)) <= TABLE_WIDTH


def test_ratios_are_those_of_the_medians(finished):
    measured = finished[1]["batches"]["256"]
    assert list(measured["ratios"]) == list(measured["steps"]) == ["fit_made", "fit_stored", "graph", "xla"]
    for way, ratios in measured["ratios"].items():
        medians = {method: measured["steps"][way][method]["median"] for method in MEASURED}
        assert ratios["sip/supervised"]["value"] == pytest.approx(medians["sip"] / medians["supervised"])
        assert list(ratios) == ["sip/supervised"]


def test_each_part_is_measured_with_and_without_xla(finished):
    for kinds in finished[1]["batches"]["256"]["parts"].values():
        assert list(kinds) == ["graph", "xla"]
        assert all(len(kind["seconds"]) == 2 and min(kind["seconds"]) > 0 for kind in kinds.values())


@pytest.mark.parametrize("system", SYSTEMS)
def test_all_methods_train_the_same_network(system):
    problem = Problem(system, resolution=8, batch=2, levels=1)
    first, *others = [problem.model(method).get_weights() for method in METHODS]
    # A SIPModel holds its metrics beside the network.
    for weights in others:
        for expected, value in zip(first, weights[: len(first)], strict=True):
            np.testing.assert_array_equal(value, expected)


def test_sizes_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        train_step.main(["--repeats", "0"])
    assert "--repeats: Expected a whole number of at least 1. Received 0." in capsys.readouterr().err
