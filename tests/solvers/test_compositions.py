"""Solvers made of solvers, L-BFGS where its line search fails, and the automatic choice."""

import json
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from keras_sip import Status
from keras_sip.solvers.automatic import CANDIDATES

EXPONENTIAL = keras_sip.from_function(problems.exponential_process, 2, dtype="float64")
# Newton steps of e^x: -(e^x - y) / e^x, from far below 1e4 long.
X0 = np.array([[-9.0, -9.0], [0.9, 1.1]])
Y_TARGET = np.exp(np.ones((2, 2)))


@pytest.mark.parametrize("norm, longest", [("l2", 0.1), ("rms", 0.1 * np.sqrt(2)), ("max", 0.1)])
def test_limited_step_shortens_long_steps_and_leaves_the_others(norm, longest):
    solver = keras_sip.LimitedStep(keras_sip.GaussNewton(), max_norm=0.1, norm=norm)
    free = keras_sip.GaussNewton().solve(EXPONENTIAL, X0, Y_TARGET).update.numpy()
    update = solver.solve(EXPONENTIAL, X0, Y_TARGET).update.numpy()
    length = np.max(np.abs(update[0])) if norm == "max" else np.linalg.norm(update[0])
    assert length == pytest.approx(longest, rel=1e-12)
    assert update[0] / length == pytest.approx(
        free[0] / (np.max(free[0]) if norm == "max" else np.linalg.norm(free[0]))
    )
    near = np.array([[0.99, 1.01]])
    arguments = (EXPONENTIAL, near, Y_TARGET[:1])
    assert np.array_equal(solver.solve(*arguments).update, keras_sip.GaussNewton().solve(*arguments).update)


def test_limit_holds_for_each_of_many_steps_and_for_a_direct_solver():
    many = keras_sip.LimitedStep(keras_sip.GaussNewton(max_steps=5), max_norm=0.1)
    assert np.linalg.norm(many.solve(EXPONENTIAL, X0, Y_TARGET).update[0]) == pytest.approx(0.5, rel=1e-12)
    simulator = keras_sip.Poisson(5, dtype="float64")
    sample = simulator.sample(1, (0, 0))
    direct = keras_sip.LimitedStep(keras_sip.AnalyticInverse(), max_norm=0.25)
    result = direct.solve(simulator, np.zeros((1, 5, 1)), sample["y"])
    expected = 0.25 * sample["x"] / np.linalg.norm(sample["x"])
    assert result.update.numpy() == pytest.approx(expected.numpy(), abs=1e-12)


def test_line_search_takes_the_first_factor_that_lowers_the_objective_enough():
    solver = keras_sip.LineSearch(keras_sip.GaussNewton(), shrink=0.5, max_tries=20)
    step = keras_sip.GaussNewton().solve(EXPONENTIAL, X0, Y_TARGET).update.numpy()
    received = solver.solve(EXPONENTIAL, X0, Y_TARGET).update.numpy()

    def objective(x):
        with np.errstate(over="ignore"):
            return 0.5 * np.sum((np.exp(x) - Y_TARGET) ** 2, axis=1)

    slope = np.sum((np.exp(X0) - Y_TARGET) * np.exp(X0) * step, axis=1)
    for index in range(2):
        factor = next(
            t
            for t in 0.5 ** np.arange(20)
            if objective(X0 + t * step)[index] <= objective(X0)[index] + 1e-4 * t * slope[index]
        )
        assert received[index] == pytest.approx(factor * step[index], rel=1e-9)
    assert np.linalg.norm(received[0]) < 1e-2 * np.linalg.norm(step[0])


def test_line_search_along_a_step_uphill_is_rejected():
    """Newton steps up where the curvature is negative."""
    simulator = keras_sip.from_function(tf.square, 1, dtype="float64")
    result = keras_sip.LineSearch(keras_sip.Newton()).solve(simulator, np.array([[0.1], [2.0]]), np.ones((2, 1)))
    assert result.status.numpy().tolist() == [Status.REJECTED, Status.MAX_STEPS]
    assert np.all(result.update[0] == 0)


def test_fallback_asks_the_other_solver_for_the_failed_examples_only():
    flat, regular = np.cbrt(0.4), 1.2  # the Hessian of 1/2 (x^3 - 1)^2 vanishes at the first
    simulator = keras_sip.from_function(lambda x: x**3, 1, dtype="float64")
    x0, y_target = np.array([[flat], [regular]]), np.ones((2, 1))
    first, other = keras_sip.Newton(), keras_sip.GaussNewton(max_steps=3)
    result = keras_sip.Fallback(first, other).solve(simulator, x0, y_target)
    assert result.status.numpy().tolist() == [Status.MAX_STEPS, Status.MAX_STEPS]
    assert result.num_steps.numpy().tolist() == [3, 1]
    assert np.array_equal(result.update[:1], other.solve(simulator, x0[:1], y_target[:1]).update)
    assert np.array_equal(result.update[1:], first.solve(simulator, x0[1:], y_target[1:]).update)


def test_fallback_reports_what_both_fail_in():
    simulator = keras_sip.from_function(tf.tanh, 1, dtype="float64")
    solver = keras_sip.Fallback(keras_sip.Newton(), keras_sip.GaussNewton(on_failure="raise"))
    with pytest.raises(keras_sip.SolverError, match="1 failed of 1"):
        solver.solve(simulator, np.array([[50.0]]), np.zeros((1, 1)))


def test_wrappers_inherit_the_loop_of_the_inner_solver_and_survive_json():
    inner = keras_sip.GaussNewton(max_steps=7, ftol=None, residual_tolerance=1e-4, on_failure="gradient")
    for solver in (
        keras_sip.LimitedStep(inner, max_norm=0.5, norm="rms"),
        keras_sip.LineSearch(inner, shrink=0.3, max_tries=5),
        keras_sip.Fallback(keras_sip.LineSearch(inner), keras_sip.LBFGS(memory=3), on_failure="gradient"),
    ):
        options = solver.max_steps, solver.ftol, solver.gtol, solver.residual_tolerance, solver.on_failure
        assert options == (7, None, 1e-8, 1e-4, "gradient")
        text = json.dumps(keras.saving.serialize_keras_object(solver))
        assert keras.saving.deserialize_keras_object(json.loads(text)) == solver


@pytest.mark.parametrize("wrapper", [keras_sip.LimitedStep, keras_sip.LineSearch])
def test_wrapper_refuses_what_is_no_solver(wrapper):
    with pytest.raises(TypeError, match="`solver` to be a keras_sip.InverseSolver"):
        wrapper("newton")


@pytest.mark.parametrize(
    "options", [{"max_norm": 0.0}, {"norm": "l1"}, {"shrink": 1.0}, {"max_tries": 0}, {"sufficient_decrease": 0.9}]
)
def test_wrong_options_are_refused(options):
    wrapper = keras_sip.LimitedStep if set(options) & {"max_norm", "norm"} else keras_sip.LineSearch
    with pytest.raises(ValueError, match=f"Received {next(iter(options))}="):
        wrapper(keras_sip.GaussNewton(), **options)


def test_wrapper_asks_for_what_its_solver_needs():
    with pytest.raises(TypeError, match="objective is 1/2 sum r"):
        keras_sip.LimitedStep(keras_sip.GaussNewton()).check(problems.Directions())
    with pytest.raises(TypeError, match="objective is 1/2 sum r"):
        keras_sip.Fallback(keras_sip.Newton(), keras_sip.GaussNewton()).check(problems.Directions())


def valley(x):
    """Rosenbrock's residuals with an offset that leaves float32 no room: L is 1e6 + 1e-3."""
    ones = tf.ones_like(x[:, 0])
    return tf.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0], 1e3 * ones], axis=1)


@pytest.mark.parametrize("full_matrix", [False, True])
def test_lbfgs_whose_line_search_fails_keeps_the_best_point_and_says_so(full_matrix):
    """In float32 all changes of L below 0.06 are rounding: the search fails there, and that is no failure."""
    simulator = keras_sip.from_function(valley, 2)
    x0, y_target = np.array([[-1.2, 1.0], [1.0, 1.0]], "float32"), np.zeros((2, 3), "float32")
    solver = keras_sip.LBFGS(max_steps=60, full_matrix=full_matrix)
    result = tf.function(solver.solve, autograph=False)(simulator, x0, y_target, evaluate_result=True)
    assert result.status[0] == Status.STALLED
    assert result.optimality[0] > 1e-6  # and says why
    assert result.num_steps[0] > 0
    assert np.all(result.objective.numpy()[0] < simulator.objective(simulator(x0), y_target)[0])


def test_lbfgs_turns_down_what_does_not_lower_the_objective():
    @tf.custom_gradient
    def wrong(x):
        return tf.exp(x), lambda upstream: -upstream * tf.exp(x)

    simulator = keras_sip.from_function(wrong, 2, dtype="float64")
    result = keras_sip.LBFGS(on_failure="zero").solve(simulator, np.zeros((1, 2)), np.exp([[1.0, 0.5]]))
    assert result.status[0] == Status.REJECTED
    assert np.all(result.update == 0)


def test_automatic_choice_goes_from_the_most_to_the_least_knowing_and_says_why_in_the_log(caplog, capsys):
    caplog.set_level(logging.INFO, "keras_sip")
    cases = [
        (keras_sip.Poisson((8, 8)), "AnalyticInverse", "defines its `inverse`"),
        (keras_sip.Heat((8, 8)), "DampedSpectralInverse", "diagonal in a spectral basis"),
        (keras_sip.NavierStokes((8, 8)), "ReverseSimulation", "run backward in time"),
        (problems.CURVED, "LevenbergMarquardt", "x or y is small enough for a dense Jacobian"),
        (problems.MaskedSensors(), "MaximumAPosteriori", "samples of x give a prior"),
        (keras_sip.from_function(problems.tanh_process, 2), "LevenbergMarquardt", "x has one or two components"),
        (keras_sip.from_function(problems.tanh_process, 40), "LevenbergMarquardt", "too large for a dense Jacobian"),
        (keras_sip.from_function(lambda x: x[:, :4], 96), "LevenbergMarquardt", "x or y is small enough"),
        (keras_sip.Nondimensional(problems.CURVED), "LevenbergMarquardt", f"for {problems.CURVED!r}: "),
        (problems.Directions(), "LBFGS", "no half sum of squares"),
    ]
    for simulator, name, reason in cases:
        solver = keras_sip.auto_solver(simulator)
        solver.check(simulator)
        (record,) = caplog.records
        caplog.clear()
        assert type(solver).__name__ == name
        assert name in record.getMessage()
        assert reason in record.getMessage()
    assert not capsys.readouterr().out  # a library does not print unasked
    assert keras_sip.auto_solver(problems.CURVED, max_steps=4).max_steps == 4
    assert len({candidate.reason for candidate in CANDIDATES}) == len(CANDIDATES)


def test_auto_is_a_name_of_that_choice_in_models_and_layers(caplog):
    caplog.set_level(logging.INFO, "keras_sip")
    simulator = keras_sip.Poisson((8, 8))
    layer = keras_sip.SIPPhysicsLayer(simulator, "auto")
    network = keras_sip.UNet(simulator.y_shape, 1, levels=1, seed=0)
    model = keras_sip.SIPModel(network, simulator, "auto")
    assert layer.solver == model.solver == keras_sip.AnalyticInverse()
    # The simulator is named as the user knows it.
    assert {record.getMessage() for record in caplog.records} == {
        f"AnalyticInverse for {simulator!r}: the simulator defines its `inverse`."
    }
    with pytest.raises(TypeError, match='"auto"'):
        keras_sip.SIPPhysicsLayer(simulator, "automatic")


def test_automatic_choice_refuses_what_is_no_simulator():
    with pytest.raises(TypeError, match="keras_sip.Simulator"):
        keras_sip.auto_solver(tf.exp)
