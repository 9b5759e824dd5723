"""Muon: kernels of convolutions as matrices, orthogonalised; everything else is Adam."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.ops.orthogonal import orthogonalize


@pytest.mark.parametrize("shape", [(144, 16), (9, 16), (16, 16), (2, 5, 3)])
def test_orthogonal_factor_is_that_of_the_svd_to_the_accuracy_of_newton_schulz(shape):
    matrix = np.random.default_rng(0).standard_normal(shape).astype("float32")
    u, size, v = np.linalg.svd(matrix, full_matrices=False)
    left, right = np.swapaxes(u, -1, -2), np.swapaxes(v, -1, -2)
    inside = left @ orthogonalize(tf.constant(matrix)).numpy() @ right
    diagonal = np.diagonal(inside, axis1=-2, axis2=-1)
    assert np.all((diagonal > 0.67) & (diagonal < 1.21))
    # The same singular vectors: nothing off the diagonal but float32 rounding, amplified by the five steep steps.
    off_diagonal = inside - diagonal[..., None] * np.eye(inside.shape[-1])
    assert np.max(np.abs(off_diagonal)) < 1e-4 * np.max(size) / np.min(size)


@pytest.mark.parametrize("unit", [1e-25, 1.0, 1e25])
def test_orthogonal_factor_has_no_unit(unit):
    matrix = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    expected = orthogonalize(tf.constant(matrix)).numpy()
    np.testing.assert_allclose(orthogonalize(tf.constant(matrix * np.float32(unit))).numpy(), expected, atol=1e-5)


def test_orthogonal_factor_of_zero_is_zero():
    assert np.all(orthogonalize(tf.zeros((3, 5))).numpy() == 0)


def apply(optimizer, variables, gradients):
    """The changes of the variables, NumPy."""
    before = [variable.numpy() for variable in variables]
    optimizer.apply([tf.constant(gradient) for gradient in gradients], variables)
    return [variable.numpy() - value for variable, value in zip(variables, before, strict=True)]


@pytest.fixture
def variables():
    generator = np.random.default_rng(0)
    shapes = {"conv_kernel": (3, 3, 2, 4), "conv_bias": (4,), "head_kernel": (1, 1, 4, 2)}
    return [
        keras.Variable(generator.standard_normal(shape).astype("float32"), name=name) for name, shape in shapes.items()
    ]


@pytest.fixture
def gradients(variables):
    generator = np.random.default_rng(1)
    return [generator.standard_normal(variable.shape).astype("float32") for variable in variables]


def test_kernel_step_is_the_orthogonal_factor_of_nesterovs_momentum(variables, gradients):
    optimizer = keras_sip.Muon(0.01, momentum=0.9)
    momentum = np.zeros((18, 4))
    for step in range(2):
        gradient = (step + 1) * gradients[0].reshape(18, 4)[:, ::-1] ** (step + 1)
        change = apply(optimizer, variables, [gradient.reshape(3, 3, 2, 4), *gradients[1:]])[0]
        momentum = 0.9 * momentum + gradient
        u, _, v = np.linalg.svd(gradient + 0.9 * momentum, full_matrices=False)
        inside = -u.T @ change.reshape(18, 4) @ v.T / (0.01 * 0.2 * np.sqrt(18))
        assert np.all((np.diag(inside) > 0.67) & (np.diag(inside) < 1.21))
        assert np.max(np.abs(inside - np.diag(np.diag(inside)))) < 1e-3


def test_bias_and_head_move_as_by_adam(variables, gradients):
    copies = [keras.Variable(variable.numpy()) for variable in variables]
    muon, adam = keras_sip.Muon(0.01), keras.optimizers.Adam(0.01)
    for factor in (1.0, -0.3, 2.0):
        scaled = [factor * gradient for gradient in gradients]
        ours, theirs = apply(muon, variables, scaled), apply(adam, copies, scaled)
        for one, other in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4)
        assert not np.allclose(ours[0], theirs[0], rtol=0.1)


def test_only_what_acts_as_a_matrix_is_orthogonalised():
    muon = keras_sip.Muon()

    def taken(shape, name):
        return muon.orthogonalizes(keras.Variable(np.zeros(shape, "float32"), name=name))

    assert taken((3, 3, 1, 16), "stem_conv") and taken((5, 2, 4), "conv_1d") and taken((4, 8), "dense")
    assert not any([taken((16,), "bias"), taken((1, 1, 16, 1), "last"), taken((1, 1, 16, 2), "head")])


def test_names_that_are_no_tuple_are_refused():
    with pytest.raises(ValueError, match="Expected `exclude`"):
        keras_sip.Muon(exclude="head")
