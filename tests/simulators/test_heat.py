"""Heat against an analytic Gaussian, scipy.fft, another simulation library, and the laws of diffusion."""

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import tensorflow as tf

import keras_sip
from numerics import relative_error

FIXTURE = Path(__file__).parents[1] / "fixtures" / "heat.npz"
RESOLUTIONS = [(9,), (8,), (12, 9), (7, 10), (4, 6, 5)]
BOUNDARIES = ["periodic", "insulated"]


def white_noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_temperature_is_that_of_another_simulation_library():
    fixture = np.load(FIXTURE)
    y = keras_sip.Heat((64, 64))(fixture["x"][..., None])
    assert relative_error(y[..., 0], fixture["y"]) < 1e-12


@pytest.mark.parametrize("spacing, diffusion", [(1.0, 8.0), (0.5, 0.3), (2.0, 0.0)])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_periodic_temperature_is_that_of_scipy(resolution, spacing, diffusion):
    x = white_noise(2, *resolution, 1)
    axes = range(1, 1 + len(resolution))
    frequencies = np.meshgrid(*(scipy.fft.fftfreq(cells, spacing) for cells in resolution), indexing="ij")
    decay = np.exp(-4 * np.pi**2 * diffusion * sum(q**2 for q in frequencies))
    expected = scipy.fft.ifftn(scipy.fft.fftn(x, axes=axes) * decay[..., None], axes=axes).real
    y = keras_sip.Heat(resolution, diffusion=diffusion, spacing=spacing)(x)
    assert relative_error(y, expected) < 1e-14 * 10  # a dozen roundings


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_insulated_temperature_is_that_of_a_periodic_one_of_twice_the_size(resolution):
    """Walls that no heat passes are mirrors."""
    x = white_noise(2, *resolution, 1)
    mirrored = x
    for axis in range(1, 1 + len(resolution)):
        mirrored = np.concatenate([mirrored, np.flip(mirrored, axis)], axis)
    settings = {"diffusion": 0.4, "spacing": 0.7}
    expected = keras_sip.Heat(mirrored.shape[1:-1], **settings)(mirrored)
    y = keras_sip.Heat(resolution, boundary="insulated", **settings)(x)
    inner = (slice(None), *(slice(cells) for cells in resolution))
    assert relative_error(y, expected.numpy()[inner]) < 1e-13


@pytest.mark.parametrize("dimensions, cells", [(1, 65), (2, 64), (3, 33)])
def test_gaussian_stays_a_gaussian(dimensions, cells):
    """exp(-r^2 / (2 s^2)) becomes (s^2 / (s^2 + 2 nu t))^(d/2) exp(-r^2 / (2 (s^2 + 2 nu t)))."""
    spacing, width, diffusion = 0.5, 1.0, 0.3
    offset = (np.arange(cells) - cells // 2) * spacing
    squared = sum(a**2 for a in np.meshgrid(*[offset] * dimensions, indexing="ij"))[None, ..., None]
    variance = width**2 + 2 * diffusion
    expected = (width**2 / variance) ** (dimensions / 2) * np.exp(-squared / (2 * variance))
    y = keras_sip.Heat((cells,) * dimensions, spacing=spacing, diffusion=diffusion)(np.exp(-squared / (2 * width**2)))
    # A Gaussian of 2 cells' width is resolved to exp(-2 pi^2 s^2 / (2 dx)^2) = 3e-9, and 8 widths away it is 1e-14.
    assert np.max(np.abs(y - expected)) < 1e-8


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_each_wave_decays_at_its_own_rate_exactly(resolution, boundary):
    spacing, diffusion = 0.5, 0.02
    simulator = keras_sip.Heat(resolution, spacing=spacing, diffusion=diffusion, boundary=boundary)
    # One wave along the first axis, 2 along the last, in periods or half periods of the domain.
    numbers = [0] * len(resolution)
    numbers[0], numbers[-1] = 1, 2
    places = np.meshgrid(*((np.arange(cells) + 0.5) / cells for cells in resolution), indexing="ij")
    half_turns = 2 if boundary == "periodic" else 1
    wave = np.prod([np.cos(np.pi * half_turns * k * s) for k, s in zip(numbers, places, strict=True)], axis=0)
    squared = sum((half_turns * k / (2 * cells * spacing)) ** 2 for k, cells in zip(numbers, resolution, strict=True))
    y = simulator(wave[None, ..., None]).numpy()[0, ..., 0]
    np.testing.assert_allclose(y, np.exp(-4 * np.pi**2 * squared * diffusion) * wave, rtol=0, atol=1e-14)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_two_times_one_after_the_other_are_their_sum(resolution, boundary):
    x = white_noise(2, *resolution, 1)

    def heat(diffusion):
        return keras_sip.Heat(resolution, diffusion=diffusion, boundary=boundary)

    assert relative_error(heat(0.5)(heat(0.2)(x)), heat(0.7)(x)) < 1e-13


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_heat_is_conserved_to_rounding(resolution, boundary):
    x = 1 + white_noise(3, *resolution, 1)
    y = keras_sip.Heat(resolution, diffusion=1e4, boundary=boundary)(x).numpy()
    axes = tuple(range(1, x.ndim))
    np.testing.assert_allclose(y.mean(axes), x.mean(axes), rtol=0, atol=1e-14)
    # Nothing else is left after so long.
    assert np.max(y.max(axes) - y.min(axes)) < 1e-14


@pytest.mark.parametrize("resolution", [(9,), (12, 9)])
def test_projection_sets_the_mean_to_that_of_the_observation_and_nothing_else(resolution):
    simulator = keras_sip.Heat(resolution)
    x_true, x = white_noise(2, *resolution, 1), 5 + white_noise(2, *resolution, 1, seed=1)
    projected = simulator.project(tf.constant(x), simulator(x_true)).numpy()
    axes = tuple(range(1, x.ndim))
    np.testing.assert_allclose(projected.mean(axes), x_true.mean(axes), atol=1e-14)
    np.testing.assert_allclose(
        projected - projected.mean(axes, keepdims=True), x - x.mean(axes, keepdims=True), atol=1e-14
    )


def test_samples_are_the_paper_s():
    simulator = keras_sip.Heat((64, 64))
    sample = simulator.sample(256, (0, 0))
    assert sample["x"].dtype == sample["y"].dtype == tf.float64
    # The mean was measured as 0.083 there; that of one field scatters by 0.05.
    assert np.mean(sample["x"]) == pytest.approx(0.083, abs=5 * 0.05 / np.sqrt(256))
    assert np.array_equal(sample["y"], simulator(sample["x"]))
    assert simulator.x_scale == 1.0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"resolution": (8, 0)}, "`resolution` to be an integer of at least 1"),
        ({"resolution": (8, 8), "diffusion": -1.0}, "`diffusion` to be a finite number at least 0"),
        ({"resolution": (8, 8), "spacing": 0.0}, "`spacing` to be a finite number above 0"),
        ({"resolution": (8, 8), "boundary": "dirichlet"}, "one of 'periodic', 'insulated'"),
        ({"resolution": (8, 8), "dtype": "float16"}, "one of 'float32', 'float64'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_sip.Heat(**arguments)
