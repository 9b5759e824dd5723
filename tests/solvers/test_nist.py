"""NIST's regression sets and the problems of Moré, Garbow and Hillstrom, each collection in one batch.

Certified digits in float64 from both of NIST's starts, at least as many solved as by SciPy, and no word that is untrue.
"""

import functools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

import keras_sip
from keras_sip import Status
from least_squares_problems import ProblemBatch, more_problems, nist_problems

NIST, MORE = nist_problems(), more_problems()


def solve(problems, starts, dtype):
    """[(x `[B, n]`, status `[B]`, optimality `[B]`)] for each problem: Levenberg-Marquardt, all in one batch."""
    batch = ProblemBatch(problems, dtype)
    solver = keras_sip.LevenbergMarquardt(max_steps=500)
    result = tf.function(functools.partial(solver.solve, batch), autograph=False)(*batch.arguments(starts))
    parts = (batch.split(part, starts) for part in (result.x, result.status, result.optimality))
    return list(zip(*parts, strict=True))


def fits(problems, dtype):
    """{(problem, start): (x, status, optimality)}."""
    found = solve(problems.values(), [np.array(list(p.starts.values())) for p in problems.values()], dtype)
    return {
        (name, start): (x, Status(int(status)), cosine)
        for (name, problem), of_problem in zip(problems.items(), found, strict=True)
        for start, x, status, cosine in zip(problem.starts, *of_problem, strict=True)
    }


def of_few_and_of_many_unknowns(problems):
    """In one batch all have as many unknowns as the largest, and so many products with J are traced of each."""
    few = {name: problem for name, problem in problems.items() if problem.shape[0] <= 4}
    return few, {name: problem for name, problem in problems.items() if name not in few}


def minpack_solves(problem, x0):
    with np.errstate(all="ignore"):
        tolerances = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-12)
        fit = scipy.optimize.least_squares(
            problem.residual, x0, jac=problem.jacobian, method="lm", x_scale="jac", max_nfev=2000, **tolerances
        )
    return problem.is_solved(fit.x)


@pytest.fixture(scope="module")
def nist_fits():
    return fits(NIST, "float64")


def test_certified_parameters_are_found_from_both_starts_and_said_so(nist_fits):
    for (name, start), (x, status, _) in nist_fits.items():
        if (name, start) == ("BoxBOD", "start1") and status != Status.CONVERGED:
            continue  # it may run to a plateau, as MINPACK does
        assert NIST[name].is_solved(x, 6), (name, start, x)
        assert status == Status.CONVERGED, (name, start)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_converged_is_said_nowhere_with_a_visible_way_down(dtype, nist_fits):
    found = nist_fits if dtype == "float64" else fits(NIST, dtype)
    for (name, start), (x, status, _) in found.items():
        if status == Status.CONVERGED and not NIST[name].is_solved(x, 4):
            assert not NIST[name].has_way_down(x, dtype), (name, start, x)


# They take hundreds of steps and end elsewhere: counted as unsolved, they spare the others.
LONG = {("beale", "x10"), ("beale", "x100"), ("jennrich_sampson", "x100"), ("meyer", "x100")}


def without_long(name, problem):
    return problem._replace(starts={k: x0 for k, x0 in problem.starts.items() if (name, k) not in LONG})


def test_as_many_problems_are_solved_as_by_the_better_of_scipys_methods():
    """66 of 78, as lm and trf at their best; converged is said at minima, but for a few at infinity, and only there."""
    few, many = of_few_and_of_many_unknowns({name: without_long(name, problem) for name, problem in MORE.items()})
    found = fits(few, "float64") | fits(many, "float64")
    solved = {row for row, (x, *_) in found.items() if MORE[row[0]].is_solved(x)}
    said = {row for row, (_, status, _) in found.items() if status == Status.CONVERGED}
    assert len(solved) >= 66, solved
    # Bard's minimum at infinity from two starts; where steps creep or are turned down beside it, Brown and Dennis' and
    # the trigonometric one.
    assert len(solved - said) <= 6, solved - said
    for row in said - solved:
        assert not MORE[row[0]].has_way_down(found[row][0], "float64"), row


def test_perturbed_starts_are_solved_as_often_as_by_minpack():
    """Starts 30 % off, of the sets that too few or too cautious tries lose; benchmarks/nist.py has all sets."""
    problems = [NIST[name] for name in ("MGH09", "MGH17", "BoxBOD")]
    starts = [problem.perturbed_starts(32) for problem in problems]
    for problem, points, (x, *_) in zip(problems, starts, solve(problems, starts, "float64"), strict=True):
        assert np.sum(problem.is_solved(x)) >= sum(minpack_solves(problem, x0) for x0 in points), problem.name
