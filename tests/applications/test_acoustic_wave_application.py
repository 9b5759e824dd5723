"""The acoustic application: inversions beside networks, and what they are compared by."""

import numpy as np
import pytest
import tensorflow as tf

import acoustic_wave
import keras_sip
from experiments.options import parse_options
from studies import waveform_inversion


def test_quality_is_the_textbooks():
    generator = np.random.default_rng(0)
    x_true = 0.2 * generator.standard_normal((2, 12, 12, 1))
    x = x_true + 0.01 * generator.standard_normal(x_true.shape)
    measured = waveform_inversion.quality(x, x_true, 2.0)
    speed, true = 2 * np.exp(x), 2 * np.exp(x_true)
    mean_square = np.mean(np.square(speed - true), axis=(1, 2, 3))
    assert measured["PSNR"] == pytest.approx(np.mean(10 * np.log10(np.ptp(true) ** 2 / mean_square)), rel=1e-4)
    assert measured["x error"] == pytest.approx(np.mean(np.abs(x - x_true)))
    assert 0.9 < measured["SSIM"] < waveform_inversion.quality(x_true, x_true, 2.0)["SSIM"] == pytest.approx(1.0)


def test_inversion_with_continuation_solves_for_the_records_as_they_are():
    """On a linear problem of full rank, where the last, unfiltered stage ends at the solution."""
    simulator = keras_sip.Poisson(8, spacing=1.0, dtype="float64")
    sample = simulator.sample(2, (0, 1))
    x0 = tf.zeros_like(sample["x"])
    solver = keras_sip.GaussNewton(cg_steps=30, cg_tolerance=1e-12)
    smooth = waveform_inversion.inverted(simulator, sample["y"], x0, [8.0], 2, solver)
    x = waveform_inversion.inverted(simulator, sample["y"], x0, [8.0, 0.0], 6, solver)
    np.testing.assert_allclose(x, sample["x"], atol=1e-6)
    assert np.max(np.abs(smooth - sample["x"])) > 1e-3


def test_networks_of_a_plane_are_given_every_shot_and_answer_on_its_grid():
    words = ["--dimensions", "2", "--resolution", "16", "--time-steps", "16", "--receivers", "4", "--shots", "2"]
    options = parse_options(acoustic_wave.PLANE, words)
    simulator = acoustic_wave.PLANE.simulator(options)
    network = acoustic_wave.PLANE.network(simulator, 0)
    assert network.input_shape == (None, 4, 4, 2) and network.output_shape == (None, 16, 16, 1)
    # From half a period of the peak on, whatever the sampling.
    period = 1 / (simulator.frequency * simulator.dt * simulator.steps_between)
    assert waveform_inversion.low_pass_widths(simulator) == [period, period / 2, period / 4, 0.0]
