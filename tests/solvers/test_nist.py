"""NIST's regression sets, from both starts in one batch: certified digits in float64, and no word that is not true."""

import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip import Status

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))

from least_squares_problems import TENSORFLOW, nist_problems
from nist import has_way_down

PROBLEMS = nist_problems()
UNKNOWNS, OBSERVATIONS = (max(sizes) for sizes in zip(*(problem.shape for problem in PROBLEMS.values()), strict=True))
ROWS = [(name, start) for name, problem in PROBLEMS.items() for start in problem.starts]


class Sets(keras_sip.Simulator):
    """The model of the set that the context tells, with unknowns and observations that it does not have left at 0."""

    x_shape, y_shape = (UNKNOWNS,), (OBSERVATIONS,)

    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, x, context=None):
        y = tf.zeros((tf.shape(x)[0], OBSERVATIONS), x.dtype)
        for index, problem in enumerate(PROBLEMS.values()):
            unknowns, observations = problem.shape
            chosen = (context["set"] == index)[:, None]
            # The parameters of one set may overflow in the model of another.
            safe = tf.constant(problem.starts["start2"], x.dtype)
            value = problem.process(tf.where(chosen, x[:, :unknowns], safe), TENSORFLOW)
            y = tf.where(chosen, tf.pad(value, [[0, 0], [0, OBSERVATIONS - observations]]), y)
        return y


def padded(vector, size):
    return np.pad(vector, (0, size - len(vector)))


@pytest.fixture(scope="module", params=["float64", "float32"])
def fits(request):
    """(dtype, {(set, start): (x, status, optimality)}) of Levenberg-Marquardt with its own tolerances."""
    dtype = request.param
    x0 = np.array([padded(PROBLEMS[name].starts[start], UNKNOWNS) for name, start in ROWS], dtype)
    y_target = np.array([padded(PROBLEMS[name].target, OBSERVATIONS) for name, _ in ROWS], dtype)
    context = {"set": tf.constant([list(PROBLEMS).index(name) for name, _ in ROWS])}
    simulator = Sets(dtype)
    solver = keras_sip.LevenbergMarquardt(max_steps=500, linear_solver="dense")
    solve = tf.function(lambda x, y: solver.solve(simulator, x, y, context, evaluate_result=True), autograph=False)
    result = solve(tf.constant(x0), tf.constant(y_target))
    found = zip(result.x.numpy(), result.status.numpy(), result.optimality.numpy(), strict=True)
    return dtype, {
        row: (x[: PROBLEMS[row[0]].shape[0]], Status(int(status)), optimality)
        for row, (x, status, optimality) in zip(ROWS, found, strict=True)
    }


def test_certified_parameters_are_found_from_both_starts_and_said_so(fits):
    dtype, found = fits
    for (name, start), (x, status, _) in found.items():
        if (name, start) == ("BoxBOD", "start1") and status != Status.CONVERGED:
            continue  # it may run to a plateau, as MINPACK does
        if dtype == "float64":
            # 6 certified digits.
            assert PROBLEMS[name].is_solved(x, 6), (name, start, x)
            assert status == Status.CONVERGED, (name, start)


def test_converged_is_said_nowhere_with_a_visible_way_down(fits):
    dtype, found = fits
    for (name, start), (x, status, _) in found.items():
        if status == Status.CONVERGED and not PROBLEMS[name].is_solved(x, 4):
            assert not has_way_down(PROBLEMS[name], x, dtype), (name, start, x)
