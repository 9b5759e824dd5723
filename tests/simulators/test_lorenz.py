"""Lorenz' system against SciPy, with order, symmetry, and the growth of errors that chaos is."""

import numpy as np
import pytest
import scipy.integrate

import keras_sip
from keras_sip.simulators.lorenz import SPREAD

SEED = (3, 4)


def reference(x, times):
    def rate(t, s):
        return [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]]

    return scipy.integrate.solve_ivp(rate, (0, times[-1]), x, t_eval=times, rtol=1e-12, atol=1e-12).y.T


def window_error(step_size):
    simulator = keras_sip.Lorenz(observed=(0, 1, 2), step_size=step_size, dtype="float64")
    x = np.array([[1.0, 2.0, 20.0], [-8.0, -3.0, 30.0]])
    expected = np.stack([reference(row, simulator.times) for row in x]) / SPREAD
    return np.max(np.abs(simulator.forward(x) - expected))


def test_observations_are_those_of_scipy_and_of_fourth_order():
    errors = [window_error(step) for step in (0.005, 0.0025)]
    assert errors[1] < 1e-6
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.3)


def test_the_other_wing_mirrors_this_one():
    """(u, v, w) -> (-u, -v, w) is a symmetry: u alone changes its sign."""
    simulator = keras_sip.Lorenz(dtype="float64")
    x = simulator.sample(4, SEED)["x"]
    np.testing.assert_array_equal(simulator.forward(x * [-1.0, -1.0, 1.0]), -simulator.forward(x))


def test_nearby_states_part_at_the_rate_of_the_largest_exponent():
    """0.906 in the mean over the attractor; 64 states over 10 time units."""
    simulator = keras_sip.Lorenz(window=10.0, num_times=1, observed=(0, 1, 2), dtype="float64")
    x = simulator.sample(64, SEED)["x"].numpy()
    apart = np.linalg.norm((simulator.forward(x + [1e-9, 0.0, 0.0]) - simulator.forward(x))[:, 0] * SPREAD, axis=1)
    assert np.mean(np.log(apart / 1e-9)) / 10 == pytest.approx(0.906, abs=0.1)


def test_samples_lie_on_the_attractor():
    x = keras_sip.Lorenz().sample(256, SEED)["x"].numpy()
    assert np.all(np.abs(x - [0.0, 0.0, 25.0]) < [22.0, 30.0, 27.0])
    np.testing.assert_allclose(np.std(x, axis=0), SPREAD, rtol=0.15)


@pytest.mark.parametrize("arguments", [{"observed": ()}, {"observed": (3,)}, {"observed": (0, 0)}, {"window": 0.0}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="Expected"):
        keras_sip.Lorenz(**arguments)
