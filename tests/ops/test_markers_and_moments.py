"""Centre of mass, cross product and random markers."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops import moments, random_markers


def test_centre_of_mass_is_scipys():
    density = np.random.default_rng(0).uniform(size=(2, 5, 7, 1))
    scipy_ndimage = pytest.importorskip("scipy.ndimage")
    expected = [2.0 * (np.array(scipy_ndimage.center_of_mass(example[..., 0])) + 0.5) for example in density]
    np.testing.assert_allclose(moments.centre_of_mass(tf.constant(density), 2.0), expected, rtol=1e-13)


def test_centre_of_nothing_is_the_middle_and_differentiable():
    density = tf.zeros([1, 4, 6, 1], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(density)
        centre = moments.centre_of_mass(density, 2.0)
    np.testing.assert_array_equal(centre, [[4.0, 6.0]])
    assert np.all(np.isfinite(tape.gradient(centre, density)))


def test_cross_product_is_numpys():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
    a[:, 2] = b[:, 2] = 0
    np.testing.assert_allclose(moments.cross(a[:, :2], b[:, :2]), np.cross(a, b)[:, 2], rtol=1e-14)


def test_markers_are_blobs_inside_their_boxes():
    cells = 32
    markers = random_markers.random_markers((256, cells, cells, 1), 3, noise_scale=10 / 128 * cells).numpy()[..., 0]
    assert set(np.unique(markers)) == {0.0, 1.0}
    shares = markers.mean(axis=(1, 2))
    # One cell is a share of 0.001.
    assert 0.049 < shares.min() < 0.055 and 0.145 < shares.max() <= 0.15
    assert shares.mean() == pytest.approx(0.1, abs=4 * 0.1 / np.sqrt(12 * 256))
    for axis in (1, 2):
        occupied = markers.any(axis=axis)
        width = cells - occupied[:, ::-1].argmax(1) - occupied.argmax(1)
        assert width.max() <= 56 / 128 * cells


def test_markers_depend_on_the_seed_alone(mode):
    draw = mode(lambda seed: random_markers.random_markers((4, 16, 16, 1), seed, noise_scale=2.0))
    same, again, other = (draw(tf.constant(seed, tf.int64)).numpy() for seed in ([0, 1], [0, 1], [0, 2]))
    assert np.array_equal(same, again)
    assert not np.array_equal(same, other)
    # Rounding of the noise could only swap two cells of one rank.
    assert np.mean(same != random_markers.random_markers((4, 16, 16, 1), 1, noise_scale=2.0)) < 0.01
