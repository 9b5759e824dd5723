"""The solver benchmark runs, fits its table, and its solvers and SciPy solve the same problem."""

import json

import numpy as np
import pytest

import solvers


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """(lines, numbers) of a tiny run."""
    path = tmp_path_factory.mktemp("solvers") / "numbers.json"
    options = f"--sizes 2 --batches 1 3 --solvers gauss_newton --ways graph --repeats 1 --output {path}"
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *texts, sep=" ", **_: lines.extend(sep.join(texts).splitlines()))
        solvers.main(options.split())
    return lines, json.loads(path.read_text())


def test_everything_is_solved_and_timed(printed):
    lines, numbers = printed
    by_name = numbers["sizes"]["2"]
    assert by_name.keys() == {"gauss_newton graph", "scipy least_squares", "scipy minimize"}
    for by_batch in by_name.values():
        assert by_batch.keys() == {"1", "3"}
        assert all(entry["solved"] == 1 and entry["median"] > 0 for entry in by_batch.values())
    assert max(map(len, lines[1:])) <= 80  # the first names the machine


def test_solver_that_refuses_the_size_is_left_out():
    options = solvers.parse_options([])
    simulator = solvers.Chain(300)
    assert solvers.solver_call("newton", "graph", simulator, *simulator.sample_problem(1), options) is None


def test_scipy_gets_the_derivatives_of_the_same_problem():
    simulator = solvers.Chain(6)
    x0, y_target = (value.numpy() for value in simulator.sample_problem(2))
    for name in solvers.SCIPY:
        x = solvers.solve_by_scipy(name, simulator, x0, y_target, 1e-9)
        assert np.max(np.abs(simulator.forward(x) - y_target)) < 1e-7


@pytest.mark.parametrize("options", ["--repeats 0", "--sizes 0", "--solvers adam"])
def test_wrong_options_are_refused(options):
    with pytest.raises(SystemExit):
        solvers.parse_options(options.split())
