"""The damping of a trust region against SciPy's bracketing."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from keras_sip.ops.trust_region import damping_for_radius, solve_positive


def length(damping, squares, slopes):
    return np.linalg.norm(slopes / (squares + damping))


@pytest.mark.parametrize("spread", [0, 4, 12])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_step_has_the_length_of_the_radius(spread, jit_compile):
    """Singular values over many decades, radii from hardly to much shorter than the free step."""
    generator = np.random.default_rng(spread)
    squares = 10.0 ** -generator.uniform(0, 2 * spread, (40, 5))
    slopes = generator.standard_normal((40, 5)) * np.sqrt(squares)
    free = np.linalg.norm(slopes / squares, axis=1)
    radius = free * 10.0 ** -generator.uniform(0, 8, 40)
    solve = tf.function(damping_for_radius, jit_compile=jit_compile, autograph=False)
    damping = solve(*map(tf.constant, (squares, slopes, radius))).numpy()
    for row in range(40):
        assert length(damping[row], squares[row], slopes[row]) == pytest.approx(radius[row], rel=1e-8)
        expected = scipy.optimize.brentq(
            lambda d, row=row: np.log(length(d, squares[row], slopes[row]) / radius[row]),
            0,
            1e3 * np.linalg.norm(slopes[row]) / radius[row],
            xtol=1e-300,
            rtol=1e-14,
        )
        assert damping[row] == pytest.approx(expected, rel=1e-6)


def test_free_step_within_the_radius_is_not_damped():
    squares, slopes = tf.constant([[1.0, 4.0]], tf.float64), tf.constant([[1.0, 4.0]], tf.float64)
    assert damping_for_radius(squares, slopes, tf.constant([1.5], tf.float64))[0] == 0


def test_slow_example_leaves_the_others_bit_identical():
    squares = tf.constant([[1.0, 0.5], [1.0, 1e-12]], tf.float64)
    slopes = tf.constant([[0.3, 0.4], [0.3, 1e-6]], tf.float64)
    radius = tf.constant([0.2, 1e-3], tf.float64)
    both = damping_for_radius(squares, slopes, radius)
    alone = damping_for_radius(squares[:1], slopes[:1], radius[:1])
    assert both[0] == alone[0]


@pytest.mark.parametrize("size", [1, 7, 20])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_damped_systems_are_solved_as_by_numpy(size, jit_compile):
    generator = np.random.default_rng(size)
    columns = generator.standard_normal((4, 3, size))  # singular but for the damping
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    matrix = np.einsum("bmi,bmj->bij", columns, columns) + 1e-3 * np.eye(size)
    right = generator.standard_normal((4, size))
    solve = tf.function(solve_positive, jit_compile=jit_compile, autograph=False)
    received = solve(tf.constant(matrix), tf.constant(right)).numpy()
    # A condition of up to 2e4.
    np.testing.assert_allclose(received, np.linalg.solve(matrix, right[:, :, None])[:, :, 0], rtol=1e-9, atol=1e-9)
