import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops import batched

DTYPES = ("float32", "float64")


def random_batch(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 7), (3, 5, 4, 2), (3,)])
def test_reductions_leave_the_batch_axis(mode, shape, dtype):
    a, b = random_batch(*shape, dtype=dtype), random_batch(*shape, dtype=dtype, seed=1)
    flat_a, flat_b = a.reshape(3, -1).astype("float64"), b.reshape(3, -1).astype("float64")
    # Sums of at most 40 numbers near 1: their rounding is far below 100 units in the last place.
    tolerance = 100 * np.finfo(dtype).eps
    dot = mode(batched.dot)(tf.constant(a), tf.constant(b))
    np.testing.assert_allclose(dot, np.sum(flat_a * flat_b, axis=1), rtol=0, atol=tolerance * 10)
    np.testing.assert_allclose(mode(batched.norm)(tf.constant(a)), np.linalg.norm(flat_a, axis=1), rtol=tolerance)
    np.testing.assert_array_equal(mode(batched.max_abs)(tf.constant(a)), np.abs(a.reshape(3, -1)).max(axis=1))
    assert dot.dtype == dtype


@pytest.mark.parametrize("magnitude", [1e-30, 1e-25, 1.0, 1e25, 1e36])
def test_norm_neither_overflows_nor_underflows_in_float32(mode, magnitude):
    batch = (magnitude * random_batch(2, 64)).astype("float32")
    expected = np.linalg.norm(batch.astype("float64"), axis=1)
    np.testing.assert_allclose(mode(batched.norm)(tf.constant(batch)), expected, rtol=1e-6)


def test_norm_of_zero_is_zero_and_of_infinity_infinite(mode):
    batch = tf.constant([[0.0, 0.0], [np.inf, 1.0], [-np.inf, np.inf]])
    np.testing.assert_array_equal(mode(batched.norm)(batch), [0, np.inf, np.inf])


def test_norm_and_max_abs_show_a_nan(mode):
    # Long enough for vectorised loops; XLA's own maximum drops the NaN there.
    batch = random_batch(3, 5000, dtype="float32")
    batch[1, 777] = np.nan
    for function in (batched.norm, batched.max_abs):
        np.testing.assert_array_equal(np.isnan(mode(function)(tf.constant(batch))), [False, True, False])


def test_all_finite_finds_nan_and_infinity(mode):
    batch = random_batch(4, 5, 6)
    batch[1, 2, 3], batch[2, 0, 0], batch[3, 4, 5] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(mode(batched.all_finite)(tf.constant(batch)), [True, False, False, False])


def test_safe_scale_is_one_where_one_cannot_divide(mode):
    batch = tf.constant([[3.0, -4.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [1e-40, 0.0]], tf.float32)
    np.testing.assert_array_equal(mode(batched.safe_scale)(batch), [4, 1, 1, 1, 1])


def test_expand_broadcasts_a_number_per_example():
    batch = tf.ones([3, 4, 5, 1])
    scaled = batched.expand(tf.constant([1.0, 2.0, 3.0]), batch) * batch
    np.testing.assert_array_equal(scaled[:, 3, 4, 0], [1, 2, 3])


def test_where_example_selects_whole_examples_of_nested_structures(mode):
    a = {"field": tf.ones([2, 3, 4]), "numbers": (tf.constant([1, 2]), tf.ones([2, 1]))}
    b = {"field": tf.fill([2, 3, 4], np.float32(np.nan)), "numbers": (tf.constant([3, 4]), tf.zeros([2, 1]))}
    chosen = mode(batched.where_example)(tf.constant([True, False]), a, b)
    np.testing.assert_array_equal(chosen["field"], [np.ones([3, 4]), np.full([3, 4], np.nan)])
    np.testing.assert_array_equal(chosen["numbers"][0], [1, 4])
    np.testing.assert_array_equal(chosen["numbers"][1], [[1], [0]])


def test_examples_are_apart(check_examples_are_apart):
    for reduction in (batched.norm, batched.max_abs):
        check_examples_are_apart(reduction, random_batch(3, 33))
