"""A chain against its solvers called one by one."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from problems import problem

DESCENT = keras_sip.GradientDescent(step_size=0.1, max_steps=2)
NEWTON = keras_sip.GaussNewton(cg_steps=60, cg_tolerance=1e-9)


def test_chain_is_its_solvers_one_after_the_other():
    curved = problem("curved")
    x0, y_target, _ = curved.start_and_target()
    first = DESCENT.solve(curved.simulator, x0, y_target)
    second = NEWTON.solve(curved.simulator, first.x, y_target)
    result = keras_sip.Chain(solvers=(DESCENT, NEWTON)).solve(curved.simulator, x0, y_target)
    np.testing.assert_array_equal(result.update, first.update + second.update)
    np.testing.assert_array_equal(result.num_steps, [3, 3, 3, 3])
    np.testing.assert_array_equal(result.status, second.status)


def test_best_point_on_the_way_is_kept():
    """A second solver that leaps away must not undo the first; one that is worse throughout leaves x0."""
    curved = problem("curved")
    x0, y_target, _ = curved.start_and_target()
    leap = keras_sip.GradientDescent(step_size=1e3)
    kept = keras_sip.Chain(solvers=(NEWTON, leap), on_failure="keep_best").solve(curved.simulator, x0, y_target)
    np.testing.assert_allclose(kept.update, NEWTON.solve(curved.simulator, x0, y_target).update, rtol=1e-12)
    stayed = keras_sip.Chain(solvers=(leap,), on_failure="keep_best").solve(curved.simulator, x0, y_target)
    np.testing.assert_array_equal(stayed.update, np.zeros_like(x0))


def test_refining_is_the_last_solvers():
    chain = keras_sip.Chain(solvers=(DESCENT, NEWTON)).refining(7)
    assert [solver.max_steps for solver in chain.solvers] == [2, 7]
    assert chain.on_failure == "keep_best"


def test_reverse_simulation_then_gauss_newton_goes_beyond_the_family():
    """The small-scale part, which the reverse simulation cannot have, explains the rest of the observation."""
    simulator = keras_sip.NavierStokes((8, 8), spacing=16.0, num_steps=1, dt=2.0, dtype="float64")
    sample = simulator.sample(4, (0, 0))
    problem = tf.zeros_like(sample["x"]), sample["y"], sample["context"]
    reverse = keras_sip.ReverseSimulation(max_steps=2)
    chain = keras_sip.Chain(solvers=(reverse, keras_sip.GaussNewton(cg_steps=4)), on_failure="keep_best")
    alone, chained = (solver.solve(simulator, *problem, evaluate_result=True) for solver in (reverse, chain))
    assert np.all(chained.objective <= alone.objective)
    # 0.25 here; 0.03 over 32 examples of 32 x 32 cells.
    assert np.sum(chained.objective) < 0.5 * np.sum(alone.objective)
    assert np.max(np.abs(simulator.swirl.split(alone.update)[2])) < 1e-9
    assert np.max(np.abs(simulator.swirl.split(chained.update)[2])) > 1e-2


@pytest.mark.parametrize("solvers", [(), ("newton",), (DESCENT, None)])
def test_what_is_no_solver_is_refused(solvers):
    with pytest.raises(TypeError, match="`solvers` to be one or more inverse solvers"):
        keras_sip.Chain(solvers=solvers)


@pytest.mark.parametrize("options", [{"max_steps": 2}, {"tolerance": 0.1}])
def test_steps_are_the_solvers_own(options):
    with pytest.raises(ValueError, match="given to the solvers of a chain"):
        keras_sip.Chain(solvers=(DESCENT,), **options)


def test_all_solvers_must_serve_the_simulator():
    with pytest.raises(TypeError, match="reverse_form"):
        keras_sip.Chain(solvers=(DESCENT, keras_sip.ReverseSimulation())).check(keras_sip.Poisson(5))
