"""Acoustic waves in the plane: the analytic solution, second order, reciprocity, absorption, derivatives; low-pass."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

import keras_sip
from keras_sip.ops import derivatives
from numerics import central_difference, relative_error

SEED = (5, 6)


def green(simulator, time, distance):
    """The wave of a shot in an unbounded plane: (1 / 2 pi) integral of g(t - r cosh(a) / c) da, as far as g was."""
    last = np.arccosh(np.maximum(time * simulator.background / distance, 1.0))
    angles = last * (np.arange(2000)[:, None, None] + 0.5) / 2000
    values = simulator.wavelet(time - distance * np.cosh(angles) / simulator.background)
    return np.mean(values, axis=0) * last / (2 * np.pi)


def records_error(cells):
    """Until the first wave comes back from a wall, with a wavelet of 5 cycles per width."""
    simulator = keras_sip.AcousticSurvey(
        (cells, cells),
        num_steps=int(0.6 * cells / 0.4),
        steps_between=cells // 24,
        frequency=5.0,
        shots=1,
        receivers=4,
        depth=cells // 2,
        absorbing=0,
        dtype="float64",
    )
    records = simulator.forward(np.zeros((1, cells, cells, 1)))[0, ..., 0].numpy()
    distance = np.abs(simulator.receiver_cells - simulator.source_cells[0]) * simulator.spacing
    expected = green(simulator, simulator.times[:, None], distance)
    return np.max(np.abs(records - expected)) / np.max(np.abs(expected))


def test_records_converge_to_the_analytic_ones_with_second_order():
    errors = [records_error(cells) for cells in (48, 96)]
    assert errors[1] < 0.05
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.25)


def small(**options):
    given = {"num_steps": 60, "steps_between": 2, "shots": 3, "receivers": 3, "absorbing": 6, "dtype": "float64"}
    return keras_sip.AcousticSurvey((12, 9), **{**given, **options})


def random_x(simulator, batch=1, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((batch, *simulator.x_shape))


def test_source_and_receiver_may_change_places():
    simulator = small()
    records = simulator.forward(random_x(simulator)).numpy()
    assert np.max(np.abs(records)) > 1e-3
    np.testing.assert_allclose(records, np.swapaxes(records, 2, 3), atol=1e-13)


def test_walls_absorb_what_a_far_larger_surrounding_would_let_go():
    x = random_x(small())
    # The waves of 60 steps of 0.4 cells do not come back from 40 cells off.
    unbounded, absorbed, reflected = (small(absorbing=cells).forward(x).numpy() for cells in (40, 12, 0))
    largest = np.max(np.abs(unbounded))
    assert np.max(np.abs(absorbed - unbounded)) < 0.05 * largest
    assert np.max(np.abs(reflected - unbounded)) > 0.3 * largest


def test_products_with_the_jacobian_are_right_and_xla_agrees():
    simulator = keras_sip.AcousticSurvey(
        (5, 4), num_steps=8, steps_between=2, shots=2, receivers=3, absorbing=2, dtype="float64"
    )
    x = random_x(simulator, batch=2)
    generator = np.random.default_rng(1)
    v, w = (tf.constant(generator.standard_normal((2, *shape))) for shape in (simulator.x_shape, simulator.y_shape))

    @tf.function(jit_compile=True, autograph=False)
    def products(x):
        y, product, transposed_product = derivatives.linearize(simulator.forward, x)
        return y, product(v), transposed_product(w)

    y, tangent, gradient = products(tf.constant(x))
    assert relative_error(y, simulator.forward(x)) < 1e-13
    expected = central_difference(lambda x: simulator.forward(x).numpy(), x, v.numpy(), 1e-5)
    assert relative_error(tangent, expected) < 1e-8
    assert np.sum(gradient * v) == pytest.approx(np.sum(expected * w), rel=1e-7)


def test_samples_get_faster_with_depth_and_stay_stable():
    sample = keras_sip.AcousticSurvey((16, 16), num_steps=80, shots=2, receivers=8).sample(16, SEED)
    x = sample["x"].numpy()
    assert sample["y"].shape == (16, 20, 8, 2) and np.max(np.abs(sample["y"])) < 1
    # The trend is 0.2 from top to bottom; 16 fields of deviation 0.1.
    assert np.mean(x[:, :, 8:]) - np.mean(x[:, :, :8]) == pytest.approx(0.1, abs=0.06)
    assert np.max(np.abs(x)) < 0.35


@pytest.mark.parametrize("arguments", [{"courant": 0.8}, {"receivers": 13}, {"depth": 9}, {"steps_between": 61}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="Expected"):
        small(**arguments)


def test_a_low_pass_is_scipys_gaussian_filter_of_records():
    simulator = keras_sip.LowPassed(small(), width=3.0)
    y = np.random.default_rng(0).standard_normal((2, *simulator.y_shape))
    expected = scipy.ndimage.gaussian_filter1d(y, 3.0, axis=1, mode="constant", truncate=9.5)
    np.testing.assert_allclose(simulator.filtered(y), expected, atol=1e-12)
    x = random_x(simulator)
    np.testing.assert_allclose(simulator.forward(x), simulator.filtered(simulator.physical.forward(x)), atol=1e-15)
    # Each example its own width, where the context says so; 0 is none.
    both = simulator.filtered(y, {"low_pass": np.array([3.0, 0.0])})
    np.testing.assert_allclose(both, [expected[0], y[1]], atol=1e-12)
    with pytest.raises(ValueError, match="shape"):
        keras_sip.LowPassed(keras_sip.WavePacket(), width=1.0)
