"""Golub-Kahan bidiagonalisation against NumPy's singular values."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops.bidiagonalization import golub_kahan

EXAMPLES, ROWS, COLUMNS = 3, 7, 5


def matrices(rank=COLUMNS):
    generator = np.random.default_rng(6)
    left, right = (generator.standard_normal((EXAMPLES, size, rank)) for size in (ROWS, COLUMNS))
    return left @ np.swapaxes(right, 1, 2)


def bidiagonalized(matrix, steps, dtype="float64"):
    matrix = tf.constant(matrix, dtype)
    start = tf.constant(np.random.default_rng(7).standard_normal((EXAMPLES, COLUMNS)), dtype)
    alpha, beta, count = golub_kahan(
        lambda v: tf.linalg.matvec(matrix, v), lambda w: tf.linalg.matvec(matrix, w, transpose_a=True), start, steps
    )
    return alpha.numpy(), beta.numpy(), count.numpy()


def values(alpha, beta):
    return np.linalg.svd(np.diag(alpha) + np.diag(beta, 1), compute_uv=False)


@pytest.mark.parametrize("dtype, unit, rtol", [("float64", 1.0, 1e-11), ("float32", 1e-21, 1e-4)])
def test_all_steps_give_all_singular_values(dtype, unit, rtol):
    alpha, beta, count = bidiagonalized(unit * matrices(), COLUMNS, dtype)
    assert np.array_equal(count, [COLUMNS] * EXAMPLES)
    expected = np.linalg.svd(unit * matrices(), compute_uv=False)
    received = [values(a, b) for a, b in zip(alpha, beta, strict=True)]
    # Small ones carry the rounding of the largest.
    assert np.max(np.abs(received - expected)) < rtol * np.max(expected)


def test_deficient_rank_is_found():
    alpha, beta, count = bidiagonalized(matrices(rank=2), COLUMNS)
    expected = np.linalg.svd(matrices(rank=2), compute_uv=False)
    for example in range(EXAMPLES):
        # Two singular values, and the zero that the start has a part in.
        assert count[example] == 3
        received = values(alpha[example, :3], beta[example, :2])
        assert np.allclose(received[:2], expected[example, :2], rtol=1e-10)
        assert received[2] < 1e-12 * received[0]
        assert np.all(alpha[example, 3:] == 0)


def test_repeated_singular_values_appear_once():
    columns = np.linalg.qr(matrices())[0] * [3.0, 3.0, 3.0, 2.0, 2.0]
    alpha, beta, count = bidiagonalized(columns, COLUMNS)
    assert np.array_equal(count, [2] * EXAMPLES)
    received = [values(a[:2], b[:1]) for a, b in zip(alpha, beta, strict=True)]
    assert np.allclose(received, [3.0, 2.0], rtol=1e-12)


def test_one_example_does_not_touch_the_others():
    spoiled = matrices()
    spoiled[1] = np.nan
    for good, bad in zip(bidiagonalized(matrices(), 3), bidiagonalized(spoiled, 3), strict=True):
        assert np.array_equal(good[[0, 2]], bad[[0, 2]])
