"""Lanczos' iteration against dense eigenvectors."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops.lanczos import apply_function, lanczos


def symmetric(eigenvalues):
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal([len(eigenvalues)] * 2))[0]
    return basis @ np.diag(eigenvalues) @ basis.T


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_function_of_a_matrix_is_exact_once_all_eigenvalues_are_seen(jit_compile):
    # Five different eigenvalues: the Krylov space has five dimensions, and steps beyond it add nothing.
    matrix = symmetric(np.repeat([1e-3, 0.1, 0.5, 2.0, 7.0], 4))
    vector = np.random.default_rng(1).standard_normal(20)

    @tf.function(jit_compile=jit_compile)
    def power(matrix, vector):
        steps = lanczos(lambda v: tf.linalg.matvec(matrix, v), vector, 9)
        return apply_function(lambda e: tf.where(e > 1e-6, tf.pow(tf.maximum(e, 1e-6), -0.75), 0.0), steps)

    values, vectors = np.linalg.eigh(matrix)
    expected = vectors @ (values**-0.75 * (vectors.T @ vector))
    # XLA's eigenvectors are good to 1e-9 of the largest eigenvalue only.
    tolerance = (1e-8 if jit_compile else 1e-10) * np.max(np.abs(expected))
    np.testing.assert_allclose(power(matrix, vector), expected, rtol=0, atol=tolerance)


def test_basis_stays_orthonormal_where_plain_lanczos_loses_it():
    matrix = symmetric(np.geomspace(1e-8, 1.0, 40))
    steps = lanczos(lambda v: tf.linalg.matvec(matrix, v), tf.constant(np.ones(40)), 30)
    np.testing.assert_allclose(steps.basis @ tf.transpose(steps.basis), np.eye(30), atol=1e-12)
    projected = steps.basis.numpy() @ matrix @ steps.basis.numpy().T
    np.testing.assert_allclose(projected, steps.matrix, atol=1e-13)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_nothing_comes_of_a_start_that_is_zero_or_not_finite(value):
    steps = lanczos(lambda v: 2 * v, tf.constant(np.full(4, value)), 3)
    np.testing.assert_array_equal(apply_function(lambda e: e + 1, steps), np.zeros(4))
