"""Gradient descent is the adjoint of back-propagation."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from numerics import relative_error


@pytest.mark.parametrize("problem", [p for p in problems.PROBLEMS if p.name != "tanh_times_1e-21"], ids=repr)
def test_one_step_of_size_one_is_minus_the_gradient_of_the_objective(problem):
    x0, y_target, _ = problem.start_and_target()
    with tf.GradientTape() as tape:
        tape.watch(x0)
        y = problem.simulator.forward(x0, problem.context)
        objective = problem.simulator.objective(y, y_target, problem.context)
    update = keras_sip.GradientDescent().solve(problem.simulator, x0, y_target, problem.context).update
    tolerance = {"float32": 1e-5, "float64": 1e-12}[problem.simulator.dtype]
    assert relative_error(update, -tape.gradient(objective, x0)) < tolerance


def test_step_size_rescues_a_gradient_below_the_range_of_float32():
    """In units of 1e-21 r J is 1e-42, and 0 in float32; the step size enters before the product."""
    problem = problems.problem("tanh_times_1e-21")
    x0, y_target, x_true = problem.start_and_target()
    update = keras_sip.GradientDescent(step_size=1e30).solve(problem.simulator, x0, y_target).update
    x, x_true = np.float64(x0), np.float64(x_true)
    expected = -1e-12 * (np.tanh(x) - np.tanh(x_true)) / np.cosh(x) ** 2
    assert relative_error(update, expected) < 1e-5


def test_objective_that_is_no_sum_of_squares_descends():
    problem = problems.problem("directions")
    x0, y_target, _ = problem.start_and_target()
    solver = keras_sip.GradientDescent(step_size=0.1, max_steps=20)
    result = problems.compiled_solve(solver, problem)(x0, y_target)
    start = problem.simulator.objective(problem.simulator.forward(x0), y_target)
    assert np.all(result.objective < 0.5 * start)
