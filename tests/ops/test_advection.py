"""MacCormack advection against exact transport, SciPy's interpolation, and its own bounds."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from keras_sip.ops import advection


def random_field(*shape, dtype="float64"):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def test_look_up_is_scipys_linear_interpolation():
    field, displacement = random_field(2, 6, 7, 3), 5 * random_field(2, 6, 7, 2)
    points = np.stack(np.meshgrid(np.arange(6), np.arange(7), indexing="ij"), -1) + displacement
    received = advection.sample_bilinear(tf.constant(field), tf.constant(displacement))
    for example in range(2):
        for channel in range(3):
            expected = scipy.ndimage.map_coordinates(
                field[example, ..., channel], np.moveaxis(points[example], -1, 0), order=1, mode="grid-wrap"
            )
            np.testing.assert_allclose(received[example, ..., channel], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("cells", [(1, 0), (-3, 2), (17, -9)])
def test_uniform_whole_cell_displacement_is_exact(cells):
    field = random_field(2, 8, 6, 1)
    displacement = np.zeros((2, 8, 6, 2)) + cells
    received = advection.maccormack(tf.constant(field), tf.constant(displacement))
    np.testing.assert_array_equal(received, np.roll(field, cells, (1, 2)))


def test_staggered_field_moves_with_a_uniform_velocity():
    velocity = random_field(2, 8, 6, 2)
    uniform = np.zeros_like(velocity) + [2.0, -1.0]
    received = advection.advect_staggered(tf.constant(velocity), tf.constant(uniform))
    np.testing.assert_array_equal(received, np.roll(velocity, (2, -1), (1, 2)))


def translated(cells, travel=0.37):
    """(advected, exact) for a smooth bump that a uniform velocity carries over `travel` of the domain, CFL 0.4."""
    steps = round(travel * cells / 0.4)
    shift = travel * cells / steps

    def bump(moved):
        x = (np.arange(cells) + 0.5) / cells - moved
        return np.exp(np.add.outer(np.cos(2 * np.pi * x), np.cos(2 * np.pi * x)))[None, ..., None]

    displacement = tf.fill([1, cells, cells, 2], np.float64(shift))
    step = tf.function(lambda field: advection.maccormack(field, displacement), autograph=False)
    field = tf.constant(bump(0.0))
    for _ in range(steps):
        field = step(field)
    return field.numpy(), bump(travel)


def test_smooth_transport_is_of_second_order():
    """2 in the mean; at the extrema, which the clamp cuts, less: 1.45 in the maximum norm."""
    errors = np.array([np.mean(np.abs(np.subtract(*translated(cells)))) for cells in (32, 64, 128)])
    # Between pairs of grids 1.9 to 2.1 here.
    assert np.mean(np.log2(errors[:-1] / errors[1:])) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("cfl", [0.3, 3.0, 40.0])
def test_clamp_admits_no_new_extremum(cfl):
    marker = (random_field(2, 16, 16, 1) > 0).astype("float64")
    moved = advection.maccormack(tf.constant(marker), tf.constant(cfl * random_field(2, 16, 16, 2)))
    assert moved.numpy().min() >= 0 and moved.numpy().max() <= 1


def test_clamp_is_to_the_four_values_around_the_back_traced_point():
    """A step from 0 to 1: uncorrected overshoot would be there, the clamp alone removes it."""
    field = np.zeros((1, 8, 8, 1))
    field[0, 3:6] = 1.0
    displacement = tf.constant(np.zeros((1, 8, 8, 2)) + [0.5, 0.0])
    once = advection.sample_bilinear(tf.constant(field), -displacement)
    unclamped = once + 0.5 * (field - advection.sample_bilinear(once, displacement))
    assert np.max(unclamped) > 1.1
    assert np.max(advection.maccormack(tf.constant(field), displacement)) == 1.0


def test_gradient_is_finite_and_right_at_rest_and_in_uniform_fields():
    """At rest the result is the field itself: the gradient of its sum with respect to the field is 1."""
    for value in (0.0, 0.7):
        field = tf.fill([1, 4, 4, 1], np.float64(value))
        displacement = tf.zeros([1, 4, 4, 2], tf.float64)
        with tf.GradientTape() as tape:
            tape.watch([field, displacement])
            total = tf.reduce_sum(advection.maccormack(field, displacement))
        by_field, by_displacement = tape.gradient(total, [field, displacement])
        np.testing.assert_allclose(tf.reduce_sum(by_field), 16.0, rtol=1e-12)
        np.testing.assert_array_equal(by_displacement, np.zeros_like(displacement))


def test_nan_velocity_is_seen_and_stays_in_its_example(check_examples_are_apart):
    field = tf.constant(random_field(3, 5, 4, 1))
    check_examples_are_apart(lambda d: advection.maccormack(field, d), random_field(3, 5, 4, 2))


@pytest.mark.parametrize("shape", [(2, 8, 8, 2), (1, 3, 5, 1), (2, 4, 16, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_materialized_field_is_the_field_bit_for_bit(shape, dtype):
    """Products with 0 and 1 and sums with 0 are exact, over the whole range of exponents."""
    field = np.random.default_rng(0).standard_normal(shape) * 10.0 ** np.random.default_rng(1).uniform(-30, 30, shape)
    field = tf.constant(field, dtype)
    for jit_compile in (False, True):
        written = tf.function(advection._materialized, jit_compile=jit_compile)(field)
        np.testing.assert_array_equal(written, field)
