"""Losses in y: their values, reductions and precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems

Y = np.array([[1.0, 2.0], [3.0, 5.0]])
Y_TARGET = np.array([[0.0, 2.0], [1.0, 1.0]])
PER_EXAMPLE = np.array([0.5, 0.5 * (4 + 16)])


@pytest.mark.parametrize(
    ("reduction", "expected"), [("sum", 10.5), ("sum_over_batch_size", 5.25), ("mean", 5.25)], ids=str
)
def test_half_sum_of_squares_sums_cells_and_reduces_the_batch(reduction, expected):
    loss = keras_sip.HalfSumOfSquares(reduction)
    assert float(loss(tf.constant(Y_TARGET), tf.constant(Y))) == pytest.approx(expected, rel=1e-15)
    weights = np.array([2.0, 0.0])
    share = expected / PER_EXAMPLE.sum()
    weighted = float(loss(tf.constant(Y_TARGET), tf.constant(Y), weights))
    assert weighted == pytest.approx(share * (weights @ PER_EXAMPLE), rel=1e-15)


def test_float64_is_kept():
    fine = 1.0 + 1e-12
    loss = keras_sip.HalfSumOfSquares("sum")(tf.ones((1, 1), tf.float64), tf.constant([[fine]], tf.float64))
    assert loss.dtype == tf.float64
    assert float(loss) == pytest.approx(0.5e-24, rel=1e-3)


def test_targets_coarser_than_y_are_refused():
    with pytest.raises(TypeError, match=r"precision of y, float64(?s:.*)float32(?s:.*)from_arrays"):
        keras_sip.HalfSumOfSquares()(tf.ones((1, 1)), tf.ones((1, 1), tf.float64))


def test_objective_is_the_simulators_own():
    class Weighted(keras_sip.Simulator):
        x_shape, y_shape = (2,), (2,)

        def forward(self, x, context=None):
            return x

        def residual(self, y, y_target, context=None):
            return tf.constant([1.0, 10.0]) * (y - y_target)

    loss = keras_sip.Objective(Weighted(), reduction="sum")
    value = loss(tf.constant(Y_TARGET, tf.float32), tf.constant(Y, tf.float32))
    assert float(value) == pytest.approx(0.5 + 0.5 * (4 + 1600))


def test_unknown_reduction_lists_what_is_allowed():
    with pytest.raises(ValueError, match="'sum_over_batch_size', 'mean', 'sum'"):
        keras_sip.HalfSumOfSquares("average")


def test_losses_survive_their_config():
    simulator = keras_sip.from_function(problems.tanh_process, 2)
    for loss in (keras_sip.HalfSumOfSquares("sum"), keras_sip.Objective(simulator, "sum")):
        restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
        y, y_target = tf.constant(Y, tf.float32), tf.constant(Y_TARGET, tf.float32)
        assert float(restored(y_target, y)) == float(loss(y_target, y))
