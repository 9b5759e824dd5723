"""AdaHessian against NumPy with the dense Hessian of a tiny network."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_network as tiny

import keras_sip

RATE, BETA_1, BETA_2, EPSILON = 0.05, 0.9, 0.99, 1e-4


def ada_hessian(**options):
    return keras_sip.AdaHessian(RATE, BETA_1, BETA_2, EPSILON, **options)


def signs(step, seed=0):
    drawn = tf.random.stateless_uniform([13], (seed, step), maxval=2, dtype=tf.int32).numpy()
    return 2.0 * drawn - 1.0


def spatial_mean(diagonal):
    """The mean over the 2 x 2 cells of the first kernel, the other weights as they are."""
    kernel = diagonal[:8].reshape(2, 2, 1, 2)
    kernel = np.broadcast_to(kernel.mean(axis=(0, 1), keepdims=True), kernel.shape)
    return np.concatenate([kernel.ravel(), diagonal[8:]])


@pytest.mark.parametrize("every", [1, 2])
def test_three_steps_are_those_of_the_dense_hessian(every):
    y, _ = tiny.observations()
    model = tiny.model(ada_hessian(hessian_every=every))
    weights = tiny.weights(model)
    momentum, square = np.zeros(13), np.zeros(13)
    for step in range(3):
        v = signs(step)
        momentum = BETA_1 * momentum + (1 - BETA_1) * tiny.gradient(weights, y)
        if step % every == 0:
            square = BETA_2 * square + (1 - BETA_2) * spatial_mean(v * (tiny.hessian(weights, y) @ v)) ** 2
        products = step // every + 1
        mean, root = momentum / (1 - BETA_1 ** (step + 1)), np.sqrt(square / (1 - BETA_2**products))
        weights = weights - RATE * mean / (root + EPSILON)
        model.fit(y, batch_size=5, verbose=0)
        # Finite differences of the gradient are good to 1e-7 of the Hessian.
        np.testing.assert_allclose(tiny.weights(model), weights, rtol=0, atol=1e-6 * np.max(np.abs(weights)))


def test_power_zero_is_descent_along_the_running_mean_of_the_gradient():
    y, _ = tiny.observations()
    model = tiny.model(keras_sip.AdaHessian(1e-4, BETA_1, epsilon=0.0, hessian_power=0.0))
    weights = tiny.weights(model)
    model.fit(y, batch_size=5, verbose=0)
    expected = weights - 1e-4 * tiny.gradient(weights, y)
    np.testing.assert_allclose(tiny.weights(model), expected, rtol=0, atol=1e-9)


def test_random_signs_give_the_diagonal_in_the_mean():
    y, _ = tiny.observations()
    hessian = tiny.hessian(tiny.weights(tiny.model(ada_hessian())), y)
    drawn = np.stack([signs(step) for step in range(2000)])
    estimates = drawn * (drawn @ hessian)
    spread = np.sqrt(np.sum(hessian**2, 1) - np.diag(hessian) ** 2)
    # Six standard deviations of the mean of 2000.
    np.testing.assert_array_less(np.abs(estimates.mean(0) - np.diag(hessian)), 6 * spread / np.sqrt(2000) + 1e-12)
