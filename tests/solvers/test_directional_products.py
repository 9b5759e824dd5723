"""J along many directions, by each of the three ways, against central differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.solvers import directional_products
from keras_sip.solvers.problem import InverseProblem

RNG = np.random.default_rng(2)


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Sorted(keras_sip.Simulator):
    """y = x^2, by way of Python, which TensorFlow cannot vectorise."""

    x_shape = y_shape = (70,)
    dtype = "float64"

    def forward(self, x, context=None):
        @tf.custom_gradient
        def square(x):
            y = tf.py_function(lambda x: x**2, [x], x.dtype)
            y.set_shape(x.shape)
            return y, lambda w: 2 * x * w

        return square(x)


def products(simulator, x, y, directions):
    # As exports trace it: for any number of examples.
    any_number = [tf.TensorSpec([None, *each.shape[1:]], each.dtype) for each in (x, y)]

    @tf.function(autograph=False, input_signature=any_number)
    def both(x, y):
        problem = InverseProblem(simulator, y)
        return directional_products.directional_products(problem, x, directions)

    return both(x, y)


@pytest.mark.parametrize("limits", [(64, 1024), (1000, 1024), (0, 0)], ids=["vectorised", "repeated", "in turn"])
def test_products_are_central_differences(limits, monkeypatch):
    monkeypatch.setattr(directional_products, "LARGEST_REPEATED", limits[0])
    monkeypatch.setattr(directional_products, "LARGEST_VECTORISED", limits[1])
    # Five directions in chunks of two: the last chunk is padded.
    monkeypatch.setattr(directional_products, "AT_ONCE", 2)
    simulator = keras_sip.DarcyFlow((11, 6), dtype="float64")
    x, directions = RNG.standard_normal((3, 11, 6, 1)), RNG.standard_normal((5, 11, 6, 1))
    y = np.zeros((3, 11, 6, 1))
    residual, received = products(simulator, tf.constant(x), tf.constant(y), directions)
    np.testing.assert_allclose(residual, simulator(x), rtol=1e-12)
    forward = tf.function(simulator.forward, autograph=False)
    step = 1e-5
    ends = [forward(tf.constant(x + sign * step * direction)) for direction in directions for sign in (1, -1)]
    expected = np.stack([(up - down) / (2 * step) for up, down in zip(ends[::2], ends[1::2], strict=True)], axis=1)
    # Central differences: of second order, and the rounding of y over the step.
    np.testing.assert_allclose(received, expected.reshape(3, 5, -1), atol=1e-8 * np.max(np.abs(expected)))


def test_what_cannot_be_vectorised_is_differentiated_in_turn():
    x, directions = RNG.standard_normal((2, 70)), RNG.standard_normal((4, 70))
    _, received = products(Sorted(), tf.constant(x), tf.zeros((2, 70), tf.float64), directions)
    np.testing.assert_allclose(received, 2 * x[:, None] * directions, rtol=1e-12)
