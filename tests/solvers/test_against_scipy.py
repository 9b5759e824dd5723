"""Every solver run to convergence against scipy.optimize, on problems with known minima, all in one batch.

A row of the batch is a problem and a start, so that each solver is compiled once, and the rows must not disturb each
other.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

import keras_sip
from keras_sip import Status

ROTATION = np.array([[0.8, -0.6], [0.6, 0.8]])


class Row(NamedTuple):
    """Residuals of (x1, x2), a start and the target; `unique` where there is one minimum near the start."""

    process: Any
    start: list
    target: list
    unique: bool = True


def quadratic(x, m):
    """The Hessian has a condition number of 1e8."""
    return m.stack([0.8 * x[..., 0] - 0.6 * x[..., 1], 1e-4 * (0.6 * x[..., 0] + 0.8 * x[..., 1])], axis=-1)


def rosenbrock(x, m):
    return m.stack([10 * (x[..., 1] - x[..., 0] ** 2), 1 - x[..., 0]], axis=-1)


def exponential(x, m):
    return m.exp(x)


def sine(x, m):
    u, v = 0.8 * x[..., 0] - 0.6 * x[..., 1], 0.6 * x[..., 0] + 0.8 * x[..., 1]
    return m.stack([m.sin(u) / 3, 3 * v], axis=-1)


def saddle(x, m):
    return m.stack([x[..., 0] ** 2, x[..., 1]], axis=-1)


def flat(x, m):
    return m.tanh(x)


def singular(x, m):
    """Only x1 + x2 is seen."""
    return m.stack([m.sinh(x[..., 0] + x[..., 1]), x[..., 0] + x[..., 1]], axis=-1)


ROWS = {
    "quadratic": Row(quadratic, [3.0, -2.0], [0.5, 2e-4]),
    "rosenbrock": Row(rosenbrock, [-1.2, 1.0], [0.0, 0.0]),
    "exponential": Row(exponential, [-3.0, 1.5], [2.0, 0.1]),
    "exponential_near": Row(exponential, [0.5, -2.0], [2.0, 0.1]),
    "sine": Row(sine, [0.4, -0.3], [0.2, 1.0]),
    "saddle": Row(saddle, [0.01, 0.3], [1.0, 0.0]),
    "flat": Row(flat, [2.5, -3.0], [0.5, -0.2]),
    "singular": Row(singular, [0.1, 0.4], [np.sinh(1.5), 1.5], unique=False),
    "singular_unreachable": Row(singular, [0.1, 0.4], [2.0, 0.5], unique=False),
}
PROCESSES = list(dict.fromkeys(row.process for row in ROWS.values()))


class NumPyLike:
    """TensorFlow under NumPy's names, so that both see the same residuals."""

    stack, exp, sin, tanh, sinh = tf.stack, tf.exp, tf.sin, tf.tanh, tf.sinh


class Collection(keras_sip.Simulator):
    """The process that the context tells, for each example."""

    x_shape, y_shape, dtype = (2,), (2,), "float64"

    def forward(self, x, context=None):
        y = tf.zeros_like(x)
        for index, process in enumerate(PROCESSES):
            chosen = (context["process"] == index)[:, None]
            # Far from where it is asked, another process may overflow.
            y = tf.where(chosen, process(tf.where(chosen, x, 0.1 * tf.ones_like(x)), NumPyLike), y)
        return y


def batch():
    start, target = (
        tf.constant([getattr(row, name) for row in ROWS.values()], tf.float64) for name in Row._fields[1:3]
    )
    return start, target, {"process": tf.constant([PROCESSES.index(row.process) for row in ROWS.values()])}


@pytest.fixture(scope="module")
def expected():
    """{name: (x, L)} by scipy.optimize.least_squares, checked by scipy.optimize.minimize."""
    found = {}
    for name, row in ROWS.items():

        def residual(x, row=row):
            return row.process(x, np) - np.array(row.target)

        fit = scipy.optimize.least_squares(residual, row.start, xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=2000)
        polished = scipy.optimize.minimize(lambda x, f=residual: 0.5 * np.sum(f(x) ** 2), fit.x, method="Nelder-Mead")
        assert polished.fun >= fit.cost * (1 - 1e-6) - 1e-14  # nothing lower nearby
        found[name] = fit.x, fit.cost
    return found


ALL = tuple(ROWS)
# What needs no globalisation: a start in the valley of the minimum, and a regular Hessian.
NEAR = ("quadratic", "rosenbrock", "exponential_near", "sine")
SOLVERS = {
    "levenberg_marquardt": (keras_sip.LevenbergMarquardt(max_steps=100), ALL),
    "levenberg_marquardt_cg": (keras_sip.LevenbergMarquardt(max_steps=100, linear_solver="conjugate_gradient"), ALL),
    "lbfgs": (keras_sip.LBFGS(max_steps=200), ALL),
    "bfgs": (keras_sip.LBFGS(max_steps=200, full_matrix=True), ALL),
    "saddle_free_newton_searched": (
        keras_sip.LineSearch(keras_sip.SaddleFreeNewton(max_steps=100, max_relative_loss_change=2.0)),
        ALL,
    ),
    "gauss_newton_searched": (
        keras_sip.LineSearch(keras_sip.GaussNewton(max_steps=100), max_tries=30),
        tuple(name for name in ALL if name != "saddle"),
    ),
    "gauss_newton": (keras_sip.GaussNewton(max_steps=30), (*NEAR, "singular")),
    "newton": (keras_sip.Newton(max_steps=100), NEAR),
    "saddle_free_newton": (keras_sip.SaddleFreeNewton(max_steps=30), NEAR),
    "fallback": (
        keras_sip.Fallback(keras_sip.Newton(max_steps=3), keras_sip.LevenbergMarquardt(max_steps=100)),
        ("quadratic",),
    ),
}


@functools.cache
def solved(name):
    start, target, context = batch()
    solve = tf.function(SOLVERS[name][0].solve, autograph=False)
    if SOLVERS[name][1] == ("quadratic",):  # its process alone is traced more quickly
        simulator = keras_sip.from_function(lambda x: quadratic(x, NumPyLike), 2, dtype="float64")
        return solve(simulator, start, target, evaluate_result=True)
    return solve(Collection(), start, target, context, evaluate_result=True)


@pytest.mark.parametrize("name", SOLVERS)
def test_solver_run_to_convergence_finds_the_minimum_of_scipy(name, expected):
    result = solved(name)
    x, objective = result.x.numpy(), result.objective.numpy()
    for index, row in enumerate(ROWS):
        if row not in SOLVERS[name][1]:
            continue
        expected_x, lowest = expected[row]
        # Where gradients vanish in rounding, L is good to its square.
        assert objective[index] <= lowest * (1 + 1e-9) + 1e-14, row
        if ROWS[row].unique:
            # The flat direction of the quadratic: L changes by 1e-8 of the square of the distance.
            assert x[index] == pytest.approx(expected_x, rel=1e-4, abs=1e-4), row
    assert np.all(np.isfinite(x))


def test_gradient_steps_find_the_minimum_of_scipy():
    """First-order steps of fixed size, on a problem they suit: within a step's length of the minimum."""
    simulator = keras_sip.from_function(tf.sinh, 2, dtype="float64")
    x0, y_target = np.array([[0.9, -0.8]]), np.sinh([[0.3, -0.1]])
    fit = scipy.optimize.least_squares(lambda x: np.sinh(x) - y_target[0], x0[0]).x
    for solver, tolerance in (
        (keras_sip.GradientDescent(step_size=0.3, max_steps=100), 1e-9),
        (keras_sip.NormalizedGradient(step_size=0.01, max_steps=150), 0.01),
        (keras_sip.SignStep(step_size=0.01, max_steps=150), 0.011),
    ):
        result = tf.function(solver.solve, autograph=False)(simulator, tf.constant(x0), tf.constant(y_target))
        assert np.max(np.abs(result.x[0] - fit)) <= tolerance


def test_levenberg_marquardt_solves_what_newton_does_not():
    rows, result = list(ROWS), solved("newton")
    for row in ("exponential", "saddle", "flat"):
        assert result.objective[rows.index(row)] > 1e-3, row  # and those of LevenbergMarquardt are 0, see above
    assert result.status[rows.index("exponential_near")] != Status.BREAKDOWN
