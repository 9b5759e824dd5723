"""The flag of observations unlike those of a sample, against what the distances are by hand."""

import numpy as np
import pytest

from keras_sip.serving.observation_range import FAR, ObservationRange


@pytest.mark.parametrize("dtype, unit", [("float32", 1e-21), ("float64", 1.0)])
def test_the_border_is_twice_the_largest_distance_of_the_half_not_fitted_to(dtype, unit):
    # Along the first axis, of deviation 3, and nothing across it but a little.
    generator = np.random.default_rng(0)
    y = generator.normal(size=(400, 2)) * [3.0, 1e-9]
    fitted, held_out = y[:200], y[200:]
    mean, deviation = fitted.mean(axis=0), fitted.std(axis=0, ddof=1)
    border = FAR * np.max(np.abs(held_out[:, 0] - mean[0]) / deviation[0])
    in_range = ObservationRange((y * unit).astype(dtype))
    along = np.array([0.99, 1.01, -0.99, -1.01]) * border * deviation[0] + mean[0]
    points = np.stack([along, np.full(4, mean[1])], axis=1)
    np.testing.assert_array_equal(in_range((points * unit).astype(dtype)), [True, False, True, False])
    across = np.stack([np.full(2, mean[0]), [mean[1], mean[1] + 1.0]], axis=1)
    np.testing.assert_array_equal(in_range((across * unit).astype(dtype)), [True, False])


def test_hardly_any_of_more_than_a_thousand_like_them_is_flagged():
    # Heavy tails: Student's t with 3 degrees of freedom in 40 dimensions, on 16 directions and the rest.
    generator = np.random.default_rng(1)
    y = generator.standard_t(3, size=(4096, 40)).astype("float32")
    in_range = ObservationRange(y[:512])
    # Without the factor of two the bound is 2/257; with it less, of which this has seen 0.0006.
    assert np.mean(~in_range(y[512:]).numpy()) < 2 / 257


def test_a_sample_without_any_spread_flags_what_differs():
    in_range = ObservationRange(np.ones((8, 3)))
    np.testing.assert_array_equal(in_range(np.array([[1.0, 1, 1], [1, 1, 1.1]])), [True, False])
