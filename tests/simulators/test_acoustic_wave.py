"""Acoustic waves: d'Alembert's solution, second order, energy, absorbing walls, derivatives."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.ops import derivatives
from numerics import central_difference, relative_error

SEED = (5, 6)


def records_error(cells):
    """Against d'Alembert's solution in the undisturbed medium, a wavelet of 5 cycles per length."""
    simulator = keras_sip.AcousticWave(
        cells,
        num_steps=2 * cells,
        steps_between=cells // 32,
        frequency=5.0,
        receivers=4,
        source_at=0.1,
        dtype="float64",
    )
    received = simulator.forward(np.zeros((1, cells, 1)))[0]
    distance = np.abs(simulator.receiver_cells - simulator.source_cell) * simulator.spacing
    expected = simulator.wavelet(simulator.times[:, None] - distance)
    return np.max(np.abs(received - expected))


def test_records_converge_to_those_of_dalembert_with_second_order():
    errors = [records_error(cells) for cells in (128, 256)]
    assert errors[1] < 0.03
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


def energies(simulator, x):
    """The energy that leapfrog steps conserve, of every pair of states, in the interior."""
    u = simulator.waves(tf.constant(x)).numpy()[:, 0]
    speed = np.exp(x[0, :, 0])
    kinetic = np.sum(np.square((u[1:] - u[:-1]) / simulator.dt / speed), axis=1)
    elastic = np.sum(np.diff(u[1:], axis=1) * np.diff(u[:-1], axis=1), axis=1) / simulator.spacing**2
    return simulator.times[1:], kinetic + elastic


def test_energy_is_kept_inside_and_leaves_through_the_walls():
    simulator = keras_sip.AcousticWave(
        64, num_steps=400, steps_between=1, source_at=0.5, frequency=8.0, dtype="float64"
    )
    x = 0.1 * np.sin(np.linspace(0, 20, 64))[None, :, None]
    time, energy = energies(simulator, x)
    # The pulse is over at 2.4 / frequency = 0.3; its front is at the walls at 0.5 / 1.1 = 0.45.
    inside = energy[(time > 0.32) & (time < 0.42)]
    assert np.ptp(inside) < 1e-7 * np.max(inside)
    # Reflections within the medium and short waves, which the grid slows down, are left.
    assert energy[-1] < 1e-2 * np.max(inside)


def test_a_slower_medium_is_heard_later():
    simulator = keras_sip.AcousticWave(64, receivers=4)
    slow, fast = (simulator.forward(np.full((1, 64, 1), x, "float32"))[0].numpy() for x in (-0.1, 0.1))
    last = -1
    arrival = [simulator.times[np.argmax(records[:, last])] for records in (slow, fast)]
    distance = (simulator.receiver_cells[last] - simulator.source_cell) * simulator.spacing
    expected = distance * (np.exp(0.1) - np.exp(-0.1))
    assert arrival[0] - arrival[1] == pytest.approx(expected, abs=2 * simulator.dt * simulator.steps_between)


def test_products_with_the_jacobian_are_right_eagerly_and_under_xla():
    simulator = keras_sip.AcousticWave(16, num_steps=24, receivers=3, dtype="float64")
    generator = np.random.default_rng(0)
    x, v = 0.1 * generator.standard_normal((2, 16, 1)), tf.constant(generator.standard_normal((2, 16, 1)))
    w = tf.constant(generator.standard_normal((2, *simulator.y_shape)))

    def products(x):
        _, product, transposed_product = derivatives.linearize(simulator.forward, x)
        return product(v), transposed_product(w)

    expected = central_difference(lambda x: simulator.forward(x).numpy(), x, v.numpy(), 1e-5)
    for compiled in (products, tf.function(products, jit_compile=True)):
        tangent, gradient = compiled(tf.constant(x))
        assert relative_error(tangent, expected) < 1e-8
        assert np.sum(gradient * v) == pytest.approx(np.sum(expected * w), rel=1e-7)


def test_samples_are_the_same_data_and_stable():
    sample = keras_sip.AcousticWave(64).sample(8, SEED)
    assert sample["y"].shape == (8, 100, 8) and np.max(np.abs(sample["y"])) < 2
    assert np.std(sample["x"]) == pytest.approx(0.1, rel=0.2)
    again = keras_sip.AcousticWave(64).sample(8, SEED)
    np.testing.assert_array_equal(again["x"], sample["x"])


@pytest.mark.parametrize("arguments", [{"courant": 1.5}, {"receivers": 65}, {"steps_between": 300}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="Expected"):
        keras_sip.AcousticWave(64, **arguments)
