"""Small eigenproblems and singular values against NumPy, eager and under XLA, and where they are hard."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops.eigen import orthogonal_columns, symmetric_eigen

both_ways = pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])


def compiled(function, matrix, jit_compile):
    results = tf.function(function, jit_compile=jit_compile, autograph=False)(tf.constant(matrix))
    return [result.numpy() for result in results]


def random_symmetric(size):
    matrix = np.random.default_rng(size).standard_normal((6, size, size))
    matrix += np.swapaxes(matrix, 1, 2)
    matrix[0] = 0.0
    matrix[1] = np.eye(size)
    matrix[2] = -np.diag(np.arange(size, 0.0, -1))
    return matrix


@both_ways
@pytest.mark.parametrize("size", [1, 2, 5])
def test_eigenpairs_are_those_of_numpy(size, jit_compile):
    """XLA's own eigh stops at 1e-9 of the norm; ours must not."""
    matrix = random_symmetric(size)
    values, vectors = compiled(symmetric_eigen, matrix, jit_compile)
    assert np.max(np.abs(values - np.linalg.eigvalsh(matrix))) < 1e-13
    assert np.max(np.abs(vectors @ (values[:, :, None] * np.swapaxes(vectors, 1, 2)) - matrix)) < 1e-13
    assert np.max(np.abs(np.swapaxes(vectors, 1, 2) @ vectors - np.eye(size))) < 1e-13


def test_large_matrices_go_to_the_library():
    matrix = random_symmetric(40)
    values, _ = symmetric_eigen(tf.constant(matrix))
    assert np.max(np.abs(values - np.linalg.eigvalsh(matrix))) < 1e-11


@pytest.mark.parametrize("small", [1e-3, 1e-12])
def test_small_eigenvalue_of_a_graded_matrix_keeps_its_own_rounding(small):
    """lambda = det / the other one; eigh would be wrong by the rounding of the large one, 1e-11 here."""
    matrix = np.array([[[1e5, 0.3 * small], [0.3 * small, small]]])
    values, _ = symmetric_eigen(tf.constant(matrix))
    expected = (1e5 * small - (0.3 * small) ** 2) / 1e5
    assert values.numpy()[0, 0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_two_by_two_neither_overflows_nor_underflows(scale):
    values, _ = symmetric_eigen(tf.constant(scale * np.array([[[1.0, 0.5], [0.5, -1.0]]])))
    assert values.numpy()[0] / scale == pytest.approx([-np.sqrt(1.25), np.sqrt(1.25)], rel=1e-14)


@both_ways
@pytest.mark.parametrize("rows, size", [(3, 1), (2, 2), (5, 3), (2, 5), (6, 6)])
def test_columns_are_those_of_the_singular_value_decomposition(rows, size, jit_compile):
    """XLA's own svd leaves 1e-7 of the largest value in float64, all of a small one."""
    generator = np.random.default_rng(rows)
    left = np.linalg.qr(generator.standard_normal((4, rows, rows)))[0]
    right = np.linalg.qr(generator.standard_normal((4, size, size)))[0]
    rank = min(rows, size)
    singular_values = np.geomspace(1.0, 1e-5, rank)
    matrix = left[:, :, :rank] @ (singular_values[:, None] * np.swapaxes(right, 1, 2)[:, :rank])
    columns, basis = compiled(orthogonal_columns, matrix, jit_compile)
    received = -np.sort(-np.linalg.norm(columns, axis=1))
    assert received[:, :rank] == pytest.approx(np.tile(singular_values, (4, 1)), rel=1e-9)
    assert np.all(received[:, rank:] < 1e-14)
    assert np.max(np.abs(columns @ np.swapaxes(basis, 1, 2) - matrix)) < 1e-14
    assert np.max(np.abs(np.swapaxes(basis, 1, 2) @ basis - np.eye(size))) < 1e-13


def test_small_singular_values_of_scaled_columns_keep_their_own_rounding():
    """B D with a well-conditioned B: the product of the singular values is |det B| times that of the scales."""
    generator = np.random.default_rng(1)
    well = np.eye(3) + 0.3 * generator.standard_normal((3, 3))
    scales = np.array([1.0, 1e-9, 1e-18])
    columns, _ = orthogonal_columns(tf.constant((well * scales)[None]))
    product = np.prod(np.linalg.norm(columns[0], axis=0) / scales)
    assert product == pytest.approx(abs(np.linalg.det(well)), rel=1e-13)


@both_ways
@pytest.mark.parametrize("function, size", [(symmetric_eigen, 2), (symmetric_eigen, 3), (orthogonal_columns, 3)])
def test_non_finite_example_gets_nan_and_leaves_the_others_bit_identical(function, size, jit_compile):
    matrix = random_symmetric(size)
    spoiled = matrix.copy()
    spoiled[4, 0, 0] = np.nan
    expected, received = compiled(function, matrix, jit_compile), compiled(function, spoiled, jit_compile)
    others = [0, 1, 2, 3, 5]
    for before, after in zip(expected, received, strict=True):
        assert np.array_equal(before[others], after[others])
        assert np.all(np.isnan(after[4]))
