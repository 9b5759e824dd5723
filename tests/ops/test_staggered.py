"""Staggered operators against dense NumPy computations and what is known of them exactly."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops import staggered

SPACING = 0.5


def random_velocity(*resolution, dtype="float64", batch=3):
    return np.random.default_rng(0).normal(size=(batch, *resolution, 2)).astype(dtype)


@pytest.mark.parametrize("dtype, limit", [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("resolution", [(16, 16), (9, 12), (8, 7)])
def test_projection_leaves_no_divergence(resolution, dtype, limit):
    velocity = random_velocity(*resolution, dtype=dtype)
    free = staggered.make_divergence_free(tf.constant(velocity), SPACING)
    assert free.dtype == dtype
    # In units of the velocity over the width of a cell.
    scale = np.sqrt(np.mean(velocity**2)) / SPACING
    assert np.max(np.abs(staggered.divergence(free, SPACING))) < limit * scale
    assert np.max(np.abs(staggered.divergence(velocity, SPACING))) > 0.1 * scale


def test_projection_is_the_least_squares_one():
    """Of all divergence-free velocities the nearest: v minus its part in the range of the dense gradient matrix."""
    resolution = (5, 6)
    velocity = random_velocity(*resolution, batch=1)
    unit_pressures = tf.constant(np.eye(30).reshape(30, *resolution, 1))
    gradients = staggered.pressure_gradient(unit_pressures, SPACING).numpy().reshape(30, -1).T
    pressure = np.linalg.lstsq(gradients, velocity.ravel(), rcond=None)[0]
    expected = velocity.ravel() - gradients @ pressure
    received = staggered.make_divergence_free(tf.constant(velocity), SPACING)
    np.testing.assert_allclose(received.numpy().ravel(), expected, rtol=0, atol=1e-13)


def test_pressure_gradient_is_minus_the_transposed_divergence():
    velocity, pressure = random_velocity(6, 7), random_velocity(6, 7)[..., :1]
    flow_work = np.sum(velocity * staggered.pressure_gradient(tf.constant(pressure), SPACING))
    pressure_work = np.sum(pressure * staggered.divergence(tf.constant(velocity), SPACING))
    assert flow_work == pytest.approx(-pressure_work, rel=1e-12)


def test_interpolations_to_faces_and_centres_are_of_second_order():
    errors = []
    for cells in (16, 32):
        width = 1 / cells
        centre, face = (np.arange(cells) + 0.5) * width, np.arange(cells) * width

        def field(x, y):
            return np.stack([np.sin(2 * np.pi * x)[:, None] * np.cos(2 * np.pi * y)] * 2, -1)[None]

        at_centres = field(centre, centre)
        at_faces = np.stack([field(face, centre)[..., 0], field(centre, face)[..., 0]], -1)
        to_faces = np.abs(staggered.to_faces(tf.constant(at_centres)) - at_faces).max()
        to_centres = np.abs(staggered.to_centres(tf.constant(at_faces)) - at_centres).max()
        first, second = staggered.velocity_at_faces(tf.constant(at_faces))
        other = np.abs(first[..., 1] - field(face, centre)[..., 0]).max()
        another = np.abs(second[..., 0] - field(centre, face)[..., 0]).max()
        errors.append([to_faces, to_centres, other, another])
    # The next term of the error is smaller by the square of the spacing, (2 pi / 16)^2 / 10.
    np.testing.assert_allclose(np.log2(np.divide(*errors)), 2, atol=0.05)


def test_diffusion_is_the_matrix_exponential():
    """A plane wave of the grid decays as exp(amount * eigenvalue of the five-point Laplacian)."""
    angle = 2 * np.pi * np.add.outer(2 * np.arange(8) / 8, np.arange(10) / 10)
    wave = np.cos(angle)[None, ..., None]
    eigenvalue = -4 * (np.sin(2 * np.pi / 8) ** 2 + np.sin(np.pi / 10) ** 2) / SPACING**2
    received = staggered.diffuse(tf.constant(wave), 0.03, SPACING)
    np.testing.assert_allclose(received, np.exp(0.03 * eigenvalue) * wave, rtol=0, atol=1e-14)


def test_nan_stays_in_its_example(check_examples_are_apart):
    check_examples_are_apart(
        lambda v: staggered.make_divergence_free(staggered.to_faces(v), SPACING), random_velocity(4, 4)
    )
