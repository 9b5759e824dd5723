"""Steps of one length in the gradient's direction."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from keras_sip import Status

X0 = np.array([[-11.0, -0.5, 0.3], [0.1, -7.0, -2.0]])
Y_TARGET = np.exp([[-1.0, -0.9, 0.3], [-9.0, -3.0, -4.0]])
EXPONENTIAL = keras_sip.from_function(problems.exponential_process, 3, dtype="float64")


def gradient():
    y = np.exp(X0)
    return (y - Y_TARGET) * y


@pytest.mark.parametrize("norm, length", [("l2", 0.7), ("rms", 0.7 * np.sqrt(3))])
def test_normalized_gradient_has_the_stated_length_downhill(norm, length):
    update = keras_sip.NormalizedGradient(step_size=0.7, norm=norm).solve(EXPONENTIAL, X0, Y_TARGET).update
    expected = -length * gradient() / np.linalg.norm(gradient(), axis=1, keepdims=True)
    assert update.numpy() == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_sign_step_moves_every_component_by_the_same():
    update = keras_sip.SignStep(step_size=0.25).solve(EXPONENTIAL, X0, Y_TARGET).update
    assert np.array_equal(update, -0.25 * np.sign(gradient()))


def test_in_one_dimension_they_are_one_even_where_squares_of_y_underflow():
    """Figure 2, "Rescaled": x = -50 is as far from its target as any other x; y^2 is 1e-44."""
    simulator = keras_sip.from_function(problems.exponential_process, 1)
    x0, y_target = np.array([[-50.0], [-3.0]], "float32"), np.exp(np.array([[-49.0], [-4.0]], "float32"))
    for solver in (keras_sip.NormalizedGradient(), keras_sip.SignStep()):
        result = solver.solve(simulator, x0, y_target)
        assert result.update.numpy().ravel() == pytest.approx([1.0, -1.0])


@pytest.mark.parametrize("solver", [keras_sip.NormalizedGradient(), keras_sip.SignStep()], ids=["unit", "sign"])
def test_gradient_zero_is_a_breakdown(solver):
    simulator = keras_sip.from_function(tf.tanh, 2, dtype="float64")
    result = solver.solve(simulator, np.array([[50.0, 50.0], [0.1, 0.2]]), np.array([[0.0, 0.5], [0.15, 0.2]]))
    assert result.status.numpy().tolist() == [Status.BREAKDOWN, Status.MAX_STEPS]
    assert np.all(result.update[0] == 0)
