"""Wave packets against SciPy's Gaussian pulse, with energy, shifts and local minima."""

import numpy as np
import pytest
import scipy.signal

import keras_sip

SEED = (3, 4)


def pulse(simulator, position, frequency):
    """SciPy's pulse is given by the bandwidth at which its spectrum is down by 6 dB."""
    reference = 10 ** (-6 / 20)
    bandwidth = np.sqrt(-2 * np.log(reference)) / (np.pi * frequency * simulator.width)
    _, quadrature = scipy.signal.gausspulse(simulator.times - position, frequency, bandwidth, retquad=True)
    return quadrature


def test_the_signal_is_scipys_gaussian_pulse():
    simulator = keras_sip.WavePacket(dtype="float64")
    x = np.array([[0.3, 7.0], [0.61, 11.5]])
    np.testing.assert_allclose(simulator.forward(x), [pulse(simulator, *row) for row in x], atol=1e-13)


def test_energy_is_that_of_the_integral():
    """w sqrt(pi) / 2 (1 - exp(-(2 pi f w)^2)) wherever the packet is; sums over a smooth signal converge at once."""
    simulator = keras_sip.WavePacket(width=0.05, dtype="float64")
    x = np.array([[0.4, 6.0], [0.5, 9.0], [0.6, 12.0]])
    energy = np.mean(np.square(simulator.forward(x)), axis=1)
    expected = 0.05 * np.sqrt(np.pi) / 2 * (1 - np.exp(-((2 * np.pi * x[:, 1] * 0.05) ** 2)))
    np.testing.assert_allclose(energy, expected, rtol=1e-12)


def test_a_packet_moved_by_whole_samples_is_the_signal_moved():
    simulator = keras_sip.WavePacket(64, dtype="float64")
    here, moved = simulator.forward(np.array([[0.5, 8.0], [0.5 + 3 / 64, 8.0]]))
    np.testing.assert_allclose(moved[3:], here[:-3], atol=1e-14)


def test_the_objective_has_a_minimum_for_every_period_that_still_overlaps():
    simulator = keras_sip.WavePacket(dtype="float64")
    positions = np.linspace(0.2, 0.8, 2401)
    x = np.stack([positions, np.full_like(positions, 10.0)], axis=1)
    y_target = simulator.forward(np.array([[0.5, 10.0]]))
    objective = np.asarray(simulator.objective(simulator.forward(x), np.repeat(y_target, len(x), axis=0)))
    minima = 1 + np.flatnonzero((objective[1:-1] < objective[:-2]) & (objective[1:-1] < objective[2:]))
    # Shifts by whole periods of 0.1, up to three widths of 0.08: two to each side, a little nearer than the period.
    assert len(minima) >= 5
    np.testing.assert_allclose(
        positions[minima][np.abs(positions[minima] - 0.5) < 0.25], [0.3, 0.4, 0.5, 0.6, 0.7], atol=0.02
    )
    assert positions[np.argmin(objective)] == pytest.approx(0.5)


def test_samples_fill_their_ranges_and_distances_are_in_units_of_them():
    simulator = keras_sip.WavePacket(positions=(0.3, 0.7), frequencies=(4.0, 8.0))
    x = simulator.sample(512, SEED)["x"].numpy()
    assert np.all((x >= [0.3, 4.0]) & (x <= [0.7, 8.0]))
    # Of a uniform distribution of width 1; 512 draws.
    np.testing.assert_allclose(np.std(x / [0.4, 4.0], axis=0), 1 / np.sqrt(12), rtol=0.1)
    moved = x + np.float32([0.04, 0.4])
    np.testing.assert_allclose(simulator.distance(moved, x), 0.1, rtol=1e-4)


@pytest.mark.parametrize("arguments", [{"positions": (0.8, 0.2)}, {"frequencies": (6.0, 100.0)}, {"width": 0.0}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="Expected"):
        keras_sip.WavePacket(**arguments)
