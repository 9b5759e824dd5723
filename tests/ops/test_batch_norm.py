"""Fused batch norm against the formula in float64: values, first and second derivatives, in each of the three modes."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops.batch_norm import batch_norm

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(4, 5, 6, 3)) * (2.0, 0.3, 1.0) + (0.0, 1.0, -2.0)
GAMMA, BETA = RANDOM.normal(size=(2, 3))
WEIGHT = RANDOM.normal(size=X.shape)
DIRECTIONS = [RANDOM.normal(size=X.shape), *RANDOM.normal(size=(2, 3))]


def formula(x, gamma, beta, epsilon):
    mean = tf.reduce_mean(x, (0, 1, 2))
    variance = tf.reduce_mean(tf.square(x - mean), (0, 1, 2))
    return (x - mean) / tf.sqrt(variance + epsilon) * gamma + beta


def gradient_and_hessian_product(normalize, dtype, epsilon):
    """Both, with respect to x, gamma and beta, of a loss that is not linear in y."""
    arguments, directions = (
        [tf.constant(value, dtype) for value in values] for values in ((X, GAMMA, BETA), DIRECTIONS)
    )
    with tf.GradientTape() as outer:
        outer.watch(arguments)
        with tf.GradientTape() as inner:
            inner.watch(arguments)
            y = normalize(*arguments, epsilon)
            loss = tf.reduce_sum(tf.constant(WEIGHT, dtype) * tf.sin(y) ** 2)
        gradient = inner.gradient(loss, arguments)
    return [y, *gradient, *outer.gradient(gradient, arguments, output_gradients=directions)]


@pytest.mark.parametrize("epsilon", [1e-5, 0.3])
def test_value_gradient_and_hessian_product_equal_those_of_the_formula(mode, epsilon):
    ours = mode(lambda: gradient_and_hessian_product(lambda *args: batch_norm(*args)[0], tf.float32, epsilon))()
    exact = gradient_and_hessian_product(formula, tf.float64, epsilon)
    for value, expected in zip(ours, exact, strict=True):
        # Float32 rounding of 6e-8, times |x| / deviation up to 7, in sums over 120 cells that cancel: 2e-5 seen.
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-4 * np.max(np.abs(expected)))


def test_mean_and_unbiased_variance(mode):
    _, mean, variance = mode(lambda: batch_norm(*(tf.constant(v, tf.float32) for v in (X, GAMMA, BETA)), 1e-5))()
    np.testing.assert_allclose(mean, X.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, X.var((0, 1, 2), ddof=1), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_uniform_batch_has_finite_second_derivatives(mode, value):
    def product():
        with tf.GradientTape() as outer:
            x = tf.fill((2, 3, 3, 1), value)
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(batch_norm(x, tf.ones(1), tf.ones(1), 1e-5)[0] ** 3)
            gradient = inner.gradient(loss, x)
        return gradient, outer.gradient(gradient, x)

    for result in mode(product)():
        assert np.isfinite(result).all()


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_inputs_keep_their_type_and_its_accuracy(dtype):
    x, direction = (tf.cast(value, dtype) for value in (X, DIRECTIONS[0]))
    gamma, beta = tf.constant(GAMMA, tf.float32), tf.constant(BETA, tf.float32)

    def hessian_product(normalize, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(tf.cast(normalize(x), x.dtype) ** 2 * tf.cast(WEIGHT, x.dtype))
            gradient = inner.gradient(loss, x)
        return outer.gradient(gradient, x, output_gradients=tf.cast(direction, x.dtype))

    ours = hessian_product(lambda x: batch_norm(x, gamma, beta, 0.3)[0], x)
    exact = hessian_product(
        lambda x: formula(x, tf.cast(gamma, x.dtype), tf.cast(beta, x.dtype), 0.3), tf.cast(x, tf.float64)
    )
    assert ours.dtype == dtype
    # A few roundings, each of 1/2048 or 1/256 of a summand.
    rounding = 2.0**-11 if dtype == tf.float16 else 2.0**-8
    assert np.max(np.abs(tf.cast(ours, tf.float64) - exact)) < 10 * rounding * np.max(np.abs(exact))
