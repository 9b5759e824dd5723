"""The pairs of solver and problem that are tested leave out nothing that the full product would meet."""

import pytest

import keras_sip
from covering import KINDS, KINDS_PER_PROBLEM, cover, features, kind
from problems import PAIRS, PROBLEMS, SERVED, SOLVERS


def met_by(solver, pairs):
    return [problem for s, problem in pairs if s is solver]


FIRST = list({type(solver): solver for solver in reversed(SOLVERS)}.values())


@pytest.mark.parametrize("solver", FIRST, ids=lambda solver: type(solver).__name__)
def test_every_class_meets_every_feature_of_the_problems_that_it_serves(solver):
    served, met = (frozenset().union(*map(features, met_by(solver, pairs))) for pairs in (SERVED, PAIRS))
    # Only products with J are of the residual; the others see its half square.
    assert served - met <= ({"residual of its own"} if kind(solver) != "products with J" else set())
    if kind(solver) == "direct":
        assert met_by(solver, PAIRS) == met_by(solver, SERVED)


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if any(q is p for _, q in SERVED)], ids=repr)
def test_every_problem_meets_solvers_of_several_kinds(problem):
    served, met = ({kind(s) for s, p in pairs if p is problem} - {"composed"} for pairs in (SERVED, PAIRS))
    assert len(met) >= min(KINDS_PER_PROBLEM, len(served))


def test_only_served_pairs_are_tested_each_once():
    assert len(set(PAIRS)) == len(PAIRS)
    assert [pair for pair in SERVED if pair in set(PAIRS)] == PAIRS


def test_a_feature_that_one_problem_alone_has_is_met_by_all_solvers_that_serve_it():
    """Without any of its problems that a solver has met, another one takes its place, or a feature is gone."""
    newton = next(solver for solver in SOLVERS if isinstance(solver, keras_sip.Newton))
    for left_out in met_by(newton, PAIRS):
        rest = [(s, p) for s, p in SERVED if p is not left_out]
        expected = frozenset().union(*map(features, met_by(newton, rest)))
        received = frozenset().union(*map(features, met_by(newton, cover(rest))))
        assert expected - received <= {"residual of its own"}


def test_every_solver_is_tested():
    assert all(met_by(solver, PAIRS) for solver in SOLVERS)


def test_solvers_are_of_one_kind_each():
    assert all(sum(isinstance(solver, solvers) for solvers in KINDS.values()) == 1 for solver in SOLVERS)
