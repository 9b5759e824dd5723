"""A user's own convolution, by its transfer function alone."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

import keras_sip
from numerics import relative_error
from problems import MotionBlur


class Blur(keras_sip.SpectralSimulator):
    def __init__(self, resolution, *, width, **options):
        super().__init__(resolution, **options)
        self.width = width

    def transfer_function(self, frequencies):
        return np.exp(-2 * (np.pi * self.width) ** 2 * sum(q**2 for q in frequencies))


class Broken(keras_sip.SpectralSimulator):
    """Returns what it is told to."""

    def __init__(self, transfer, **options):
        super().__init__((4, 6), **options)
        self.transfer = transfer

    def transfer_function(self, frequencies):
        return self.transfer


def random_field(*shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("basis, mode", [("fourier", "wrap"), ("cosine", "reflect")])
def test_blur_of_a_smooth_kernel_is_that_of_scipy(basis, mode):
    field = random_field(2, 24, 31, 1)
    received = Blur((24, 31), width=1.5, spacing=0.75, basis=basis, dtype="float64")(field)
    expected = [scipy.ndimage.gaussian_filter(example[..., 0], 2.0, mode=mode, truncate=8) for example in field]
    # A Gaussian of two cells, sampled in space there and in frequency here: they differ by its 2 exp(-2 pi^2) aliases.
    assert relative_error(received[..., 0], expected) < 1e-6


def test_sines_vanish_beyond_the_edge():
    """An odd extension about the ghost cells, whose values are 0, makes the sine basis periodic."""
    field = random_field(1, 7, 1)
    extended = np.concatenate([np.zeros((1, 1, 1)), field, np.zeros((1, 1, 1)), -field[:, ::-1]], axis=1)
    received = Blur(7, width=1.0, basis="sine", dtype="float64")(field)
    expected = Blur(16, width=1.0, dtype="float64")(extended)
    assert relative_error(received, expected[:, 1:8]) < 1e-13


def test_complex_transfer_function_is_an_asymmetric_kernel():
    field = random_field(2, 6, 4, 2)
    kernel = np.exp(-np.arange(200.0)).reshape(-1, 1)
    kernel /= kernel.sum()
    wrapped = np.zeros((6, 1))
    np.add.at(wrapped, np.arange(200) % 6, kernel)
    expected = sum(weight * np.roll(field, shift, axis=1) for shift, weight in enumerate(wrapped[:, 0]))
    assert relative_error(MotionBlur((6, 4), channels=2, dtype="float64")(field), expected) < 1e-13


@pytest.mark.parametrize(
    "transfer, options",
    [
        (np.ones((4, 6)), {}),
        (np.full((4, 4), np.inf), {}),
        (np.ones((4, 6), complex), {"basis": "sine"}),
        (1.0, {}),
    ],
)
def test_transfer_function_of_wrong_shape_or_kind_is_refused(transfer, options):
    simulator = Broken(transfer, **options)
    with pytest.raises(ValueError, match="`transfer_function` to return finite numbers of shape"):
        simulator.forward(tf.zeros((1, 4, 6, 1)))


def test_missing_transfer_function_and_unknown_basis_are_named():
    with pytest.raises(NotImplementedError, match="to define `transfer_function.self, frequencies"):
        keras_sip.SpectralSimulator((4, 4))(random_field(1, 4, 4, 1))
    with pytest.raises(ValueError, match="one of 'fourier', 'sine', 'cosine'"):
        keras_sip.SpectralSimulator((4, 4), basis="wavelet")


@pytest.mark.parametrize("basis", ["fourier", "sine", "cosine"])
@pytest.mark.parametrize("resolution", [(9,), (6, 5), (4, 3, 5)])
def test_form_is_the_simulator_mode_by_mode_and_white_noise_has_its_mode_size(basis, resolution):
    form = Blur(resolution, width=0.3, basis=basis, dtype="float64").diagonal_form
    field = tf.constant(random_field(2000, *resolution, 1))
    modes = form.to_modes(field)
    assert relative_error(form.from_modes(modes), field) < 1e-13
    power = np.mean(np.abs(modes) ** 2, axis=0)
    assert np.expand_dims(power.squeeze(form.channel_axis), form.channel_axis).shape == form.transfer.shape
    # Mean squares of 2000 numbers scatter by sqrt(2 / 2000) = 3 %.
    np.testing.assert_allclose(power, form.mode_size**2, rtol=0.2)


class Hidden(keras_sip.SimulatorWrapper):
    """Poisson's equation by a wrapper with an own `forward`, which so says nothing of its modes."""

    def forward(self, x, context=None):
        return self.physical.forward(x, context)


def test_a_form_is_measured_where_none_is_said_and_inverts_like_the_true_one():
    poisson = keras_sip.Poisson((6, 7), dtype="float64")
    hidden = Hidden(poisson)
    assert hidden.diagonal_form is None
    form = keras_sip.DiagonalForm.measured(hidden)
    np.testing.assert_allclose(form.transfer, poisson.diagonal_form.transfer, rtol=1e-9)
    assert form[3:] == poisson.diagonal_form[3:]
    hidden.diagonal_form = form
    y = np.asarray(poisson.sample(2, (0, 1))["y"])
    solver = keras_sip.DampedSpectralInverse()
    received, expected = (solver.solve(simulator, np.zeros_like(y), y).x for simulator in (hidden, poisson))
    np.testing.assert_allclose(received, expected, rtol=1e-9, atol=1e-9 * np.max(np.abs(expected)))


def test_no_form_is_measured_where_every_basis_leaks_or_there_are_no_fields():
    assert keras_sip.DiagonalForm.measured(keras_sip.DarcyFlow((4, 4))) is None
    assert keras_sip.DiagonalForm.measured(keras_sip.RotatedSine()) is None
