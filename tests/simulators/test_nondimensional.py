"""The same physics in units of x_scale."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from numerics import relative_error

SCALE = np.array([1e-3, 1.0, 1e4])
PHYSICAL = problems.CURVED
SCALED = keras_sip.Nondimensional(PHYSICAL, x_scale=SCALE)
Z0, Z_TRUE = (tf.constant(np.random.default_rng(seed).normal(size=(4, 3)) / SCALE) for seed in (0, 1))
Y_TARGET = PHYSICAL.forward(SCALE * Z_TRUE)


def test_forward_residual_and_objective_are_those_of_the_scaled_x():
    y = SCALED.forward(Z0)
    assert np.array_equal(y, PHYSICAL.forward(SCALE * Z0))
    assert np.array_equal(SCALED.residual(y, Y_TARGET), PHYSICAL.residual(y, Y_TARGET))
    assert np.array_equal(SCALED.objective(y, Y_TARGET), PHYSICAL.objective(y, Y_TARGET))


def test_distance_is_measured_in_physical_units():
    assert SCALED.distance(Z0, Z_TRUE).numpy() == pytest.approx(np.mean(np.abs(SCALE * (Z0 - Z_TRUE)), axis=1))


def test_own_objective_and_context_are_handed_through():
    sensors = keras_sip.Nondimensional(problems.MaskedSensors(), x_scale=2.0)
    context = {"mask": tf.constant([[1.0, 0.0, 1.0, 1.0]] * 4, "float64")}
    assert np.array_equal(sensors.forward(Z0, context), problems.MaskedSensors().forward(2 * Z0, context))
    directions = keras_sip.Nondimensional(problems.Directions(), x_scale=2.0)
    y = directions.forward(Z0)
    assert np.array_equal(directions.objective(y, Y_TARGET), problems.Directions().objective(y, Y_TARGET))


def test_sample_inverse_and_projection_are_scaled():
    class MeanKept(keras_sip.Poisson):
        def project(self, x, observation):
            return x - tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True)

    physical = MeanKept((6, 5), dtype="float64")
    scaled = keras_sip.Nondimensional(physical, x_scale=10.0)
    sample = scaled.sample(2, (0, 0))
    assert relative_error(10 * sample["x"], physical.sample(2, (0, 0))["x"]) < 1e-15
    assert np.array_equal(sample["y"], physical.sample(2, (0, 0))["y"])
    assert relative_error(scaled.inverse(sample["y"], sample["x"]), sample["x"]) < 1e-12
    assert abs(np.mean(scaled.project(sample["x"] + 1.0, sample["y"]))) < 1e-12


def test_measured_scale_is_the_default():
    class Large(keras_sip.Poisson):
        x_scale = 50.0

    assert keras_sip.Nondimensional(Large((4, 4))).scale == 50.0
    assert keras_sip.Nondimensional(PHYSICAL).scale == 1.0
    assert keras_sip.Nondimensional(Large((4, 4))).x_scale == 1.0


def test_it_can_do_what_the_physical_simulator_can():
    assert keras_sip.Nondimensional(keras_sip.Poisson((4, 4))).has("inverse")
    assert not SCALED.has("inverse")
    assert not SCALED.has("sample")


@pytest.mark.parametrize(
    "solver",
    [
        keras_sip.GaussNewton(cg_steps=50, cg_tolerance=1e-12),
        keras_sip.LevenbergMarquardt(cg_steps=50, cg_tolerance=1e-12),
    ],
    ids=["gauss_newton", "levenberg_marquardt"],
)
def test_updates_of_scale_invariant_solvers_are_physical_ones_over_x_scale(solver):
    start = tf.constant(np.random.default_rng(2).normal(scale=0.1, size=(4, 3))) + SCALE * Z_TRUE
    physical = solver.solve(PHYSICAL, start, Y_TARGET).update
    scaled = solver.solve(SCALED, start / SCALE, Y_TARGET).update
    assert relative_error(scaled * SCALE, physical) < 1e-9  # CG in units with a condition number of 1e7


def test_update_of_the_analytic_inverse_is_the_physical_one_over_x_scale():
    physical = keras_sip.Poisson((6, 5), dtype="float64")
    scaled = keras_sip.Nondimensional(physical, x_scale=20.0)
    x0 = tf.constant(np.random.default_rng(3).normal(size=(2, 6, 5, 1)))
    y_target = physical.sample(2, (0, 0))["y"]
    solver = keras_sip.AnalyticInverse()
    expected = solver.solve(physical, x0, y_target).update / 20.0
    assert relative_error(solver.solve(scaled, x0 / 20.0, y_target).update, expected) < 1e-13


@pytest.mark.parametrize("x_scale", [0.0, -1.0, np.nan, [1.0, 2.0], np.ones((2, 1, 3))])
def test_scale_that_does_not_fit_is_refused(x_scale):
    with pytest.raises(ValueError, match="`x_scale` to be positive numbers that broadcast to \\(3,\\)"):
        keras_sip.Nondimensional(PHYSICAL, x_scale=x_scale)


def test_only_simulators_can_be_wrapped():
    with pytest.raises(TypeError, match="a keras_sip.Simulator with `x_shape`"):
        keras_sip.Nondimensional(np.tanh)
