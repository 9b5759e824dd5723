"""SOAP against NumPy, and Keras' MultiOptimizer around optimizers of ours."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_network as tiny

import keras_sip


def dense_soap(kernel, gradients, rate, beta_1, beta_2, update_every):
    """The kernel after these gradients, by Algorithm 3 of the paper."""
    rows = columns = 0.0
    momentum = velocity = np.zeros(kernel.shape)
    for step, gradient in enumerate(gradients):
        rows = beta_2 * rows + (1 - beta_2) * gradient @ gradient.T
        columns = beta_2 * columns + (1 - beta_2) * gradient.T @ gradient
        if step == 0:
            left, right = (np.linalg.eigh(moment)[1][:, ::-1] for moment in (rows, columns))
            continue
        momentum = beta_1 * momentum + (1 - beta_1) * gradient
        velocity = beta_2 * velocity + (1 - beta_2) * (left.T @ gradient @ right) ** 2
        mean = left.T @ momentum @ right / (1 - beta_1**step)
        kernel = kernel - rate * left @ (mean / (np.sqrt(velocity / (1 - beta_2**step)) + 1e-8)) @ right.T
        if step % update_every == 0:
            left, right = np.linalg.qr(rows @ left)[0], np.linalg.qr(columns @ right)[0]
    return kernel


# Square: a null space has no eigenvectors of its own.
@pytest.mark.parametrize("shape", [(4, 4), (2, 2, 1, 4)])
def test_steps_are_those_of_adam_in_the_eigenbasis_of_the_moments(shape):
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal(shape)
    gradients = generator.standard_normal((7, *shape))
    variable = keras.Variable(kernel, dtype="float64")
    optimizer = keras_sip.SOAP(0.1, 0.9, 0.8, update_every=2)
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [variable])
    matrix = (-1, shape[-1])
    flat = [gradient.reshape(matrix) for gradient in gradients]
    expected = dense_soap(kernel.reshape(matrix), flat, 0.1, 0.9, 0.8, 2)
    # Keras keeps the rate in float32.
    np.testing.assert_allclose(variable.numpy().reshape(matrix), expected, rtol=0, atol=1e-7)


def test_vectors_and_long_sides_are_left_to_adam():
    generator = np.random.default_rng(0)
    bias = generator.standard_normal(4)
    adam, soap = keras.Variable(bias, dtype="float64"), keras.Variable(bias, dtype="float64")
    plain, ours = keras.optimizers.Adam(0.1, 0.95, 0.95, epsilon=1e-8), keras_sip.SOAP(0.1)
    for gradient in generator.standard_normal((5, 4)):
        plain.apply([tf.constant(gradient)], [adam])
        ours.apply([tf.constant(gradient)], [soap])
    np.testing.assert_allclose(soap.numpy(), adam.numpy(), rtol=1e-6)
    long = keras.Variable(np.zeros((6, 2)), dtype="float64")
    narrow = keras_sip.SOAP(largest_side=4)
    narrow.build([long])
    assert [side is None for side in narrow._sides[0]] == [True, False]


def test_a_model_trains_with_several_optimizers_and_resumes_from_its_file(tmp_path):
    kernels = lambda variable: muon if "kernel" in variable.path else adam  # noqa: E731
    muon, adam = keras_sip.Muon(0.02), keras.optimizers.Adam(0.01)
    model = tiny.model(keras.optimizers.MultiOptimizer(kernels))
    y, x = tiny.observations()
    first = model.evaluate(y, x, verbose=0, return_dict=True)["loss"]
    model.fit(y, x, batch_size=5, epochs=20, verbose=0)
    assert model.evaluate(y, x, verbose=0, return_dict=True)["loss"] < 0.9 * first
    assert int(model.optimizer.iterations) == 20
