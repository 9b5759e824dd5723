"""The damped and the Wiener inverse: another implementation, extremes, noise, and which has the least error."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from numerics import relative_error

FIXTURE = Path(__file__).parents[1] / "fixtures" / "heat.npz"
DAMPED, WIENER = keras_sip.DampedSpectralInverse(), keras_sip.WienerInverse()
over_solvers = pytest.mark.parametrize("solver", [DAMPED, WIENER], ids=["damped", "wiener"])


def fixture():
    with np.load(FIXTURE) as arrays:
        return {name: array[..., None] for name, array in arrays.items()}


def white_noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def near_solution():
    """(simulator, x0 that is 8e-4 off in every cell, y*, x*), 64 x 64 cells in float64."""
    simulator, x_true = keras_sip.Heat((64, 64)), fixture()["x"]
    x0 = x_true + 8e-4 * white_noise(*x_true.shape)
    x0 = simulator.project(tf.constant(x0), simulator(x_true))
    return simulator, x0, simulator(x_true), x_true


def mean_error(x, x_true):
    return float(np.mean(np.abs(x - x_true)))


# The damped inverse


def test_damped_update_is_that_of_another_implementation():
    arrays = fixture()
    result = DAMPED.solve(keras_sip.Heat((64, 64)), arrays["x_guess"], arrays["y"])
    assert relative_error(result.update, arrays["update"]) < 1e-6
    assert result.status == keras_sip.Status.MAX_STEPS


def test_damped_update_is_the_formula_in_numpy_complex_fft():
    simulator = keras_sip.Heat((10, 9), diffusion=2.0)
    x, x_true = white_noise(60, 10, 9), white_noise(60, 10, 9, seed=1)
    frequencies = np.meshgrid(np.fft.fftfreq(10), np.fft.fftfreq(9), indexing="ij")
    exponent = 4 * np.pi**2 * 2.0 * sum(q**2 for q in frequencies)
    modes = np.fft.fft2(x_true - x) * np.exp(-exponent)
    residual = np.fft.ifft2(modes).real
    sigma = 0.02 * np.sqrt(np.sum(residual**2, axis=(1, 2), keepdims=True))
    expected = 0.7 * np.sqrt(90) * np.exp(-exponent)
    signal, noise = (np.exp(-((np.abs(modes) / size) ** 2) / 2) / 2 for size in (expected, sigma))
    both = signal + noise
    probability = np.where(both > 0, signal / np.where(both > 0, both, 1), 0)
    action = np.where((probability <= 0.5) | (probability >= 0.68), 2 * probability - 1, 0)
    update = np.fft.ifft2(modes * np.exp(action * exponent)).real
    # All kinds of modes occur.
    assert (action > 0.9).any() and (action < -0.9).any() and ((action == 0) & (probability > 0.5)).any()

    solver = keras_sip.DampedSpectralInverse(noise=0.02, amplitude=0.7)
    received = solver.solve(simulator, x[..., None], simulator(x_true[..., None])).update
    # The probabilities are computed in single precision.
    assert relative_error(received[..., 0], update) < 1e-6


def test_one_update_from_nearby_stays_nearby():
    simulator, x0, y_target, x_true = near_solution()
    assert mean_error(x0, x_true) == pytest.approx(8e-4 * np.sqrt(2 / np.pi), rel=0.05)
    assert mean_error(DAMPED.solve(simulator, x0, y_target).x, x_true) < 1e-3


def test_rounding_of_a_coarse_observation_ruins_the_update_unless_it_is_taken_as_noise():
    simulator, x0, y_target, x_true = near_solution()
    coarse = tf.cast(tf.cast(y_target, tf.float32), tf.float64)
    assert mean_error(DAMPED.solve(simulator, x0, coarse).x, x_true) > 1.0
    noise = {"noise_level": [6e-8 * float(np.max(np.abs(y_target)))]}
    assert mean_error(DAMPED.solve(simulator, x0, coarse, noise).x, x_true) < 1e-3
    with pytest.raises(TypeError, match="dtype float64.*\nReceived dtype float32"):
        DAMPED.solve(simulator, x0, tf.cast(y_target, tf.float32))


# Extremes


@over_solvers
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("diffusion", [0.0, 1e-3, 1.0, 8.0, 300.0, 1e4])
def test_no_diffusion_and_no_residual_is_too_large_or_too_small(solver, diffusion, dtype):
    simulator = keras_sip.Heat((16, 12), diffusion=diffusion, dtype=dtype)
    sizes = np.array([0.0, 1e-30, 1e-12, 1.0, 1e12, 1e30]).reshape(-1, 1, 1, 1)
    y_target = (sizes * white_noise(6, 16, 12, 1)).astype(dtype)
    x0 = np.zeros_like(y_target)
    for noise in (0.0, 1e-6, 1.0):
        result = solver.with_options(noise=noise).solve(simulator, x0, y_target)
        assert np.all(result.status == keras_sip.Status.MAX_STEPS)
        assert np.all(np.isfinite(result.update))
        # What is amplified stands out of the noise, be it only rounding.
        floor = max(noise, 1e-5 if dtype == "float32" else 1e-12)
        assert np.all(np.abs(result.update) <= 1e3 * np.maximum(1.0, sizes) / floor)
    assert np.all(result.update[0] == 0)


@over_solvers
@pytest.mark.parametrize("diffusion, tolerance", [(0.0, 1e-13), (1e-6, 1e-4), (1e-3, 1e-2)])
def test_inverse_is_exact_in_the_limit_of_small_diffusion(solver, diffusion, tolerance):
    simulator = keras_sip.Heat((12, 9), diffusion=diffusion)
    x0, x_true = white_noise(2, 12, 9, 1), white_noise(2, 12, 9, 1, seed=1)
    result = solver.with_options(noise=1e-9).solve(simulator, x0, simulator(x_true))
    assert relative_error(result.x, x_true) < tolerance


@pytest.mark.parametrize("kind", ["damped", "wiener"])
def test_inverse_repeated_comes_closer_and_never_runs_away(kind):
    """The residual falls to the rounding of y*, and that is noise."""
    simulator = keras_sip.Heat((64, 64))
    examples = simulator.sample(64, (0, 0))["x"]
    solver = DAMPED if kind == "damped" else keras_sip.WienerInverse.measured(simulator, examples)
    x_true = fixture()["x"]
    y_target, x = simulator(x_true), np.zeros_like(x_true)
    errors = []
    for _ in range(30):
        x = solver.solve(simulator, x, y_target).x
        errors.append(mean_error(x, x_true))
    assert errors[-1] < 0.95 * errors[0]
    assert max(errors) <= 1.05 * errors[0]


@over_solvers
def test_updates_do_not_depend_on_the_unit_of_y(solver):
    units = [1e-25, 1e-10, 1.0, 1e10, 1e25]
    updates = []
    for unit in units:
        simulator = InUnits(unit)
        y_target = simulator(white_noise(2, 8, 6, 1, seed=1))
        updates.append(solver.solve(simulator, white_noise(2, 8, 6, 1), y_target).update)
    # Each unit rounds y anew, and the modes that are damped by e^-3 lose a digit of float32.
    assert all(relative_error(update, updates[2]) < 1e-4 for update in updates)


class InUnits(keras_sip.SpectralSimulator):
    """Diffusion in float32, seen in some unit."""

    x_scale = 1.0

    def __init__(self, unit):
        super().__init__((8, 6))
        self.unit = unit

    def transfer_function(self, frequencies):
        return self.unit * np.exp(-6 * sum(q**2 for q in frequencies))


@over_solvers
def test_updates_follow_the_unit_of_x(solver):
    """z = x / s, as SIPModel poses the problem to the solver."""
    simulator = keras_sip.Heat((8, 6))
    x0, y_target = white_noise(2, 8, 6, 1), simulator(white_noise(2, 8, 6, 1, seed=1))
    expected = solver.solve(simulator, x0, y_target).update

    class InUnitsOfX(keras_sip.Heat):
        x_scale = 5.0

        def transfer_function(self, frequencies):
            return super().transfer_function(frequencies) / 5.0

    received = solver.solve(InUnitsOfX((8, 6)), 5.0 * x0, y_target).update
    assert relative_error(received, 5.0 * expected) < 1e-6
    posed = keras_sip.Nondimensional(InUnitsOfX((8, 6)), x_scale=5.0)
    assert relative_error(solver.solve(posed, x0, y_target).update, expected) < 1e-6


# Noise


@over_solvers
def test_known_noise_level_damps_each_example_by_its_own(solver):
    simulator = keras_sip.Heat((32, 32))
    x_true = simulator.sample(1, (0, 0))["x"].numpy()
    levels = np.array([0.0, 1e-4, 1e-2])
    noise = levels.reshape(3, 1, 1, 1) * white_noise(3, 32, 32, 1)
    y_target = simulator(np.repeat(x_true, 3, axis=0)) + noise
    zero = np.zeros_like(y_target)

    def errors(context):
        x = solver.solve(simulator, zero, y_target, context).x
        return np.mean(np.abs(x - x_true), axis=(1, 2, 3))

    told, untold = errors({"noise_level": levels}), errors(None)
    assert told[0] == untold[0]
    assert np.all(np.diff(told) > 0)
    assert np.all(told < np.mean(np.abs(x_true - x_true.mean())))
    assert np.all(untold[1:] > 3 * told[1:])


def test_wiener_inverse_has_the_least_expected_error_of_all_linear_inverses():
    """Against the same inverse for other noise and signal, other powers of the gain, truncation and Tikhonov."""
    resolution, noise = (16, 12), 0.03
    simulator = keras_sip.Heat(resolution, diffusion=0.5)
    generator = np.random.default_rng(3)
    squared = sum(q**2 for q in np.meshgrid(np.fft.fftfreq(16), np.fft.rfftfreq(12), indexing="ij"))
    signal = 1 / (0.02 + squared)
    white = tf.constant(generator.standard_normal((400, *resolution, 1)))
    form = simulator.diagonal_form
    x = form.from_modes(form.to_modes(white) * form.expand(np.sqrt(signal)))
    y_target = simulator.forward(x) + noise * generator.standard_normal(x.shape)
    zero = tf.zeros_like(x)

    def error(update):
        return float(np.mean((update - x) ** 2))

    def filtered(gain):
        return error(form.from_modes(form.to_modes(y_target) * form.expand(gain)))

    power, transfer = float(noise**2), form.transfer[0]
    solver = keras_sip.WienerInverse(noise=0.0, signal=signal, noise_spectrum=power)
    best = error(solver.solve(simulator, zero, y_target).update)
    optimal = transfer * signal / (transfer**2 * signal + power)
    # 400 examples of 192 cells: errors scatter by less than 1 %, and near the optimum by far less.
    assert best == pytest.approx(filtered(optimal), rel=1e-9)
    expected = np.mean(np.square(1 - optimal * transfer) * signal + power * optimal**2)
    alternatives = [transfer * signal / (transfer**2 * signal + factor * power) for factor in (0.2, 0.5, 2, 5)]
    alternatives += [optimal * factor for factor in (0.8, 0.9, 1.1, 1.25)]
    alternatives += [optimal**exponent for exponent in (0.5, 0.8, 1.2)]
    alternatives += [np.where(transfer > cut, 1 / transfer, 0) for cut in (0.01, 0.03, 0.1, 0.3, 0.6)]
    alternatives += [transfer / (transfer**2 + damping) for damping in 10.0 ** np.arange(-5, 1)]
    assert all(filtered(gain) > best for gain in alternatives)
    assert best < 3 * expected


def test_measured_spectra_are_those_of_the_examples():
    simulator = keras_sip.Heat((8, 6), diffusion=0.5)
    x, noise = 3 * white_noise(500, 8, 6, 1), 0.1 * white_noise(500, 8, 6, 1, seed=1)
    solver = keras_sip.WienerInverse.measured(simulator, x, noise, noise=0.0)
    modes = np.fft.rfft2(x[..., 0]) / np.sqrt(48)
    np.testing.assert_allclose(solver.signal, np.mean(np.abs(modes) ** 2, axis=0), rtol=1e-12)
    # White noise of variance 0.01; 500 squares scatter by 6 %.
    np.testing.assert_allclose(solver.noise_spectrum, 0.01, rtol=0.3)
    y_target = simulator(x) + noise
    measured, told = (
        s.solve(simulator, np.zeros_like(x), y_target).update
        for s in (solver, keras_sip.WienerInverse(noise=0.0, signal=9.0, noise_spectrum=0.01))
    )
    assert relative_error(measured, told) < 0.1


def test_coloured_noise_is_damped_where_it_is():
    simulator = keras_sip.Heat((8, 6), diffusion=0.2)
    x_true = white_noise(2, 8, 6, 1)
    loud = np.zeros((8, 4))
    loud[2, 1] = 1e6
    solver = keras_sip.WienerInverse(noise=1e-9, noise_spectrum=loud)
    modes = simulator.diagonal_form.to_modes
    update = modes(solver.solve(simulator, np.zeros_like(x_true), simulator(x_true)).update)
    expected = modes(tf.constant(x_true)).numpy()
    expected[:, :, 2, 1] = 0
    assert relative_error(np.abs(update - expected) + 1, np.ones((1,))) < 1e-3


# Refusals


def test_simulator_without_a_spectrum_is_refused_naming_the_class_to_derive_from():
    for simulator in (keras_sip.from_function(tf.tanh, 3), keras_sip.Nondimensional(Channels(), x_scale=[1.0, 2.0])):
        with pytest.raises(TypeError, match="Derive it from SpectralSimulator and define `transfer_function"):
            DAMPED.check(simulator)


class Channels(keras_sip.SpectralSimulator):
    def __init__(self):
        super().__init__((4, 4), channels=2)

    def transfer_function(self, frequencies):
        return 1 / (1 + sum(q**2 for q in frequencies))


@pytest.mark.parametrize("name", ["signal", "noise_spectrum"])
@pytest.mark.parametrize("values", [-1.0, [[1.0, -1e-9]], float("nan")])
def test_spectrum_that_is_none_is_refused(name, values):
    with pytest.raises(ValueError, match=f"`{name}` to be a power spectrum"):
        keras_sip.WienerInverse(**{name: values})


def test_spectrum_of_another_grid_is_refused():
    solver = keras_sip.WienerInverse(signal=np.ones((8, 5)))
    solver.check(keras_sip.Heat((8, 8)))
    with pytest.raises(ValueError, match=r"`signal` to be a number or of shape \(8, 4\)"):
        solver.check(keras_sip.Heat((8, 6)))


@over_solvers
def test_negative_noise_level_is_refused(solver):
    simulator, field = keras_sip.Heat((4, 4)), np.ones((2, 4, 4, 1))
    with pytest.raises(ValueError, match=r"`context\['noise_level'\]`.*at least 0.*\nReceived a smallest one of -0.1"):
        solver.solve(simulator, field, field, {"noise_level": [0.1, -0.1]})


def test_array_spectra_survive_json_and_can_be_compared():

    solver = keras_sip.WienerInverse(signal=np.ones((3, 2)), noise_spectrum=0.5)
    text = json.dumps(keras.saving.serialize_keras_object(solver))
    assert keras.saving.deserialize_keras_object(json.loads(text)) == solver
    assert solver != keras_sip.WienerInverse(signal=2 * np.ones((3, 2)), noise_spectrum=0.5)
    assert hash(solver) == hash(keras_sip.WienerInverse(signal=np.ones((3, 2)), noise_spectrum=0.5))
