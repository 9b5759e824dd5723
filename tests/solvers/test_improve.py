"""`improve`: a number of steps that is a tensor, and never a worse objective."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems

SENSORS = problems.MaskedSensors()
SAMPLE = SENSORS.sample(6, (0, 0))


class Halfway(keras_sip.AnalyticInverse):
    """Half of the way to the solution, by a `solve` of its own."""

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        whole = keras_sip.AnalyticInverse().solve(simulator, x0, y_target, context)
        x = x0 + 0.5 * whole.update
        y = simulator.forward(x, context)
        return whole._replace(x=x, update=0.5 * whole.update, y=y, objective=simulator.objective(y, y_target, context))


def improve(solver, simulator, sample, jit_compile=None):
    @tf.function(jit_compile=jit_compile)
    def improved(x0, steps):
        return solver.improve(simulator, x0, sample["y"], sample.get("context"), steps=steps)

    return improved


@pytest.mark.parametrize("jit_compile", [None, True])
def test_one_graph_takes_as_many_steps_as_it_is_told(jit_compile):
    solver = keras_sip.LevenbergMarquardt()
    improved = improve(solver, SENSORS, SAMPLE, jit_compile)
    x0 = tf.zeros_like(SAMPLE["x"])
    for steps in (1, 3, 6):
        result = improved(x0, tf.constant(steps))
        expected = solver.refining(steps).solve(SENSORS, x0, SAMPLE["y"], SAMPLE["context"], evaluate_result=True)
        np.testing.assert_allclose(result.x, expected.x, rtol=1e-8, atol=1e-10)
        if not jit_compile:
            # At convergence a rounding of XLA's decides whether one more step is taken.
            np.testing.assert_array_equal(result.num_steps, expected.num_steps)
    assert improved.experimental_get_tracing_count() == 1
    nothing = improved(x0, tf.constant(0))
    np.testing.assert_array_equal(nothing.x, x0)


def test_a_solver_with_its_own_solve_is_run_over_and_over():
    simulator = keras_sip.Poisson((8, 8), dtype="float64")
    sample = simulator.sample(3, (0, 0))
    improved = improve(Halfway(), simulator, sample)
    for steps in (0, 1, 4):
        result = improved(tf.zeros_like(sample["x"]), tf.constant(steps))
        np.testing.assert_allclose(result.x, (1 - 0.5**steps) * sample["x"], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(result.update, result.x, rtol=1e-12)


def test_a_step_that_makes_it_worse_is_not_kept():
    class Away(Halfway):
        def solve(self, simulator, x0, *arguments, **options):
            result = super().solve(simulator, x0, *arguments, **options)
            x = x0 - 2 * result.update
            y = simulator.forward(x)
            return result._replace(x=x, update=x - x0, y=y, objective=simulator.objective(y, arguments[0]))

    simulator = keras_sip.Poisson((8, 8))
    sample = simulator.sample(3, (0, 0))
    x0 = 0.5 * sample["x"]
    result = Away().improve(simulator, x0, sample["y"], steps=tf.constant(2))
    np.testing.assert_array_equal(result.x, x0)
    np.testing.assert_array_equal(result.update, 0 * x0)
