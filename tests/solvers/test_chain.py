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
    result = keras_sip.Chain(DESCENT, NEWTON).solve(curved.simulator, x0, y_target)
    np.testing.assert_array_equal(result.update, first.update + second.update)
    np.testing.assert_array_equal(result.x, second.x)
    np.testing.assert_array_equal(result.num_steps, [3, 3, 3, 3])
    np.testing.assert_array_equal(result.status, second.status)


def test_reverse_simulation_then_gauss_newton_goes_beyond_the_family():
    """The small-scale part, which the reverse simulation cannot have, explains the rest of the observation."""
    simulator = keras_sip.NavierStokes((8, 8), spacing=16.0, num_steps=1, dt=2.0, dtype="float64")
    sample = simulator.sample(4, (0, 0))
    problem = tf.zeros_like(sample["x"]), sample["y"], sample["context"]
    reverse = keras_sip.ReverseSimulation(max_steps=2)
    chain = keras_sip.Chain(reverse, keras_sip.GaussNewton(cg_steps=4))
    alone = reverse.solve(simulator, *problem, evaluate_result=True)
    chained = chain.refine(simulator, *problem, steps=1)
    assert np.all(chained.objective <= alone.objective)
    # 0.25 here; 0.03 over 32 examples of 32 x 32 cells.
    assert np.sum(chained.objective) < 0.5 * np.sum(alone.objective)
    assert np.max(np.abs(simulator.swirl.split(alone.update)[2])) < 1e-9
    assert np.max(np.abs(simulator.swirl.split(chained.update)[2])) > 1e-2


@pytest.mark.parametrize("solvers", [(), ("newton",), (DESCENT, None)])
def test_what_is_no_solver_is_refused(solvers):
    with pytest.raises(TypeError, match="one or more inverse solvers"):
        keras_sip.Chain(*solvers)


@pytest.mark.parametrize("options", [{"max_steps": 2}, {"residual_tolerance": 0.1}, {"gtol": None}])
def test_steps_are_the_solvers_own(options):
    with pytest.raises(ValueError, match="given to the solvers of a chain"):
        keras_sip.Chain(DESCENT, **options)


def test_all_solvers_must_serve_the_simulator():
    with pytest.raises(TypeError, match="reverse_form"):
        keras_sip.Chain(DESCENT, keras_sip.ReverseSimulation()).check(keras_sip.Poisson(5))


def test_config_of_an_earlier_version_loads():
    config = keras_sip.Chain(DESCENT, NEWTON).get_config() | {"on_failure": "keep_best"}
    for solver in config["solvers"]:
        solver["config"]["tolerance"] = 0.25
        for name in ("ftol", "xtol", "gtol", "residual_tolerance"):
            del solver["config"][name]
    chain = keras_sip.Chain.from_config(config)
    assert chain == keras_sip.Chain(*(solver.with_options(residual_tolerance=0.25) for solver in (DESCENT, NEWTON)))
    assert chain.with_options(on_failure="gradient").solvers == chain.solvers
