"""check_solver measures what it says: the constants of Eqs. 11 and 12 by hand, and both scale laws."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip import Status
from keras_sip.diagnostics import Verdict
from problems import CURVED

MATRIX = np.array([[2.0, 0.5, 0.0], [-0.3, 1.0, 0.4], [0.2, 0.0, 0.5], [0.1, -0.6, 1.0]])
LINEAR = keras_sip.from_function(lambda x: tf.linalg.matvec(tf.constant(MATRIX), x), 3, dtype="float64")
SQUARE = keras_sip.from_function(tf.square, 1, dtype="float64")
X_TRUE, X0 = np.random.default_rng(2).standard_normal((2, 8, 3))
LAWS = ["x -> c x", "units of x", "rotations of x", "any map of x", "units of y"]


def check(solver, simulator=CURVED, **options):
    return keras_sip.check_solver(solver, simulator, print_report=False, **options)


def verdicts(report):
    return {name: report[name].verdict for name in LAWS}


def objective(x):
    return 0.5 * np.sum(np.square((x - X_TRUE) @ MATRIX.T), axis=1)


def test_tau_and_K_are_those_computed_by_hand_on_a_linear_problem():
    report = check(keras_sip.GradientDescent(step_size=0.2), LINEAR, x=X_TRUE, x0=X0)
    update = -0.2 * (X0 - X_TRUE) @ MATRIX.T @ MATRIX
    before, after = objective(X0), objective(X0 + update)
    # L(x*) = 0. Both are of the worst example.
    assert report.tau == pytest.approx(np.min((before - after) / before), rel=1e-9)
    assert report.K == pytest.approx(np.max(np.linalg.norm(update, axis=1) / before), rel=1e-9)
    assert np.allclose(report.objective_before, before, rtol=1e-9)
    assert np.allclose(report.objective_after, after, rtol=1e-9)
    assert report.descent_share == np.mean(after < before)


def test_step_too_long_has_negative_tau_and_fails_to_descend():
    report = check(keras_sip.GradientDescent(step_size=2.0), LINEAR, x=X_TRUE, x0=X0)
    assert report.tau < 0
    assert report.descent_share < 0.5
    assert report["descent"].verdict is Verdict.FAILED
    assert "LevenbergMarquardt" in report["descent"].remedy


def test_gauss_newton_follows_all_laws():
    report = check(keras_sip.GaussNewton())
    assert verdicts(report) == dict.fromkeys(LAWS, Verdict.PASSED)
    assert report.passed
    # The law itself holds to rounding; maps have condition 10.
    assert np.max(report.general_map_error) < 1e-9


def test_gradient_descent_is_flagged_for_both_laws():
    report = check(keras_sip.GradientDescent(step_size=0.1))
    assert {finding.name for finding in report.failures} == {"x -> c x", "units of y"}
    # x = 8 x' multiplies the gradient by 8 where the update should be divided by it.
    assert np.allclose(report.common_factor_error, 63.0, rtol=1e-9)
    assert report["units of x"].verdict is Verdict.NOTE
    # A gradient is a vector: rotations do not harm it.
    assert np.max(report.rotation_error) < 1e-9


def test_levenberg_marquardt_with_strong_damping_follows_units_and_not_rotations():
    report = check(keras_sip.LevenbergMarquardt(damping=1.0))
    assert np.max(report.component_units_error) < 1e-9
    assert report["rotations of x"].verdict is Verdict.NOTE
    assert report.passed


def test_units_of_y_are_measured_where_float32_leaves_room_for_no_square():
    tiny = keras_sip.from_function(lambda x: 1e-21 * tf.tanh(x), 2)
    report = check(keras_sip.GaussNewton(), tiny, start_distance=0.1)
    assert report["units of y"].verdict is Verdict.PASSED
    assert report.K > 1e38  # a length over L near 1e-43


def test_failed_examples_are_counted_with_their_status_and_its_remedy():
    x0 = np.array([[0.0], [1.0], [1.5], [2.0]])
    report = check(keras_sip.GaussNewton(), SQUARE, x=x0 + 0.5, x0=x0)
    # At 0 the derivative of x^2 vanishes.
    assert report.failed_share == 0.25
    assert report.statuses == {Status.MAX_STEPS: 3, Status.BREAKDOWN: 1}
    assert report["status"].verdict is Verdict.FAILED
    assert Status.BREAKDOWN.message in report["status"].remedy


def test_solver_that_the_simulator_does_not_serve_is_a_finding():
    report = check(keras_sip.AnalyticInverse())
    assert [finding.name for finding in report.failures] == ["accepts"]
    assert report.tau is None
    assert "Not reached because of that: problems, status" in " ".join(str(report).split())


class OverTheBatch(keras_sip.GaussNewton):
    """Shares one step among all examples."""

    def solve(self, *arguments, **options):
        result = super().solve(*arguments, **options)
        update = tf.zeros_like(result.update) + tf.reduce_mean(result.update, axis=0)
        x0 = arguments[1]
        return result._replace(update=update, x=x0 + update)


class Raising(keras_sip.GaussNewton):
    def step(self, problem, x, state):
        raise RuntimeError("no step today")


@pytest.mark.parametrize("solver, name", [(OverTheBatch(), "NaN example"), (Raising(), "status")])
def test_broken_solver_is_named(solver, name):
    report = check(solver, LINEAR)
    finding = report[name]
    assert finding.verdict is Verdict.FAILED
    assert finding.remedy


def test_report_fits_80_columns(capsys):
    report = keras_sip.check_solver(keras_sip.GradientDescent(step_size=0.1), LINEAR)
    printed = capsys.readouterr().out
    assert printed == f"{report}\n"
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.startswith("check_solver: GradientDescent(step_size=0.1) on from_function(")
