"""Burgers' equation against the Cole-Hopf solution, with order, invariants, and the meaning of the force."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip

SEED = (3, 4)


def cole_hopf(positions, time, viscosity, amplitude=0.6):
    """u = -2 nu d(log phi)/dr with phi = 1 + a exp(-nu k^2 t) cos(k r), a solution of the heat equation; k = 2 pi."""
    k = 2 * np.pi
    decayed = amplitude * np.exp(-viscosity * k**2 * time)
    return 2 * viscosity * k * decayed * np.sin(k * positions) / (1 + decayed * np.cos(k * positions))


def solution_error(cells):
    simulator = keras_sip.Burgers(cells, viscosity=0.05, duration=0.5, num_steps=4 * cells, dtype="float64")
    x = cole_hopf(simulator.positions, 0.0, 0.05)[None, :, None]
    expected = cole_hopf(simulator.positions, 0.5, 0.05)
    return np.max(np.abs(simulator.forward(x)[0, :, 0] - expected))


def test_states_converge_to_the_cole_hopf_solution_with_second_order():
    errors = [solution_error(cells) for cells in (32, 64)]
    assert errors[1] < 1e-3
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


def test_transport_makes_neither_momentum_nor_energy_and_viscosity_takes_energy():
    x = keras_sip.Burgers(24, dtype="float64").sample(4, SEED)["x"] + 0.2
    inviscid = keras_sip.Burgers(24, viscosity=0.0, dtype="float64").rate(x)
    size = np.sum(np.abs(inviscid), axis=1)
    assert np.max(np.abs(np.sum(inviscid, axis=1)) / size) < 1e-13
    assert np.max(np.abs(np.sum(x * inviscid, axis=1)) / size) < 1e-13
    viscous = keras_sip.Burgers(24, dtype="float64")
    u, slope = x.numpy(), (np.roll(x, -1, axis=1) - x.numpy()) / viscous.spacing
    # d/dt sum u^2 / 2 = -nu sum (du/dr)^2.
    loss = np.sum(u * viscous.rate(x), axis=1)
    np.testing.assert_allclose(loss, -viscous.viscosity * np.sum(slope**2, axis=1), rtol=1e-10)


def test_steps_written_out_and_in_a_loop_are_the_same():
    """Four steps of a long loop against one call with four, of the same length."""
    short, long = (keras_sip.Burgers(16, duration=0.01 * n, num_steps=n, dtype="float64") for n in (4, 8))
    x = short.sample(2, SEED)["x"]
    np.testing.assert_allclose(short.forward(short.forward(x)), long.forward(x), atol=1e-14)


def test_a_force_changes_the_mean_by_its_scale():
    simulator = keras_sip.Burgers(16, force_scale=0.5, dtype="float64")
    x = np.concatenate([simulator.sample(2, SEED)["x"][..., :1], np.full((2, 16, 1), 0.3)], axis=-1)
    before, after = np.mean(x[..., 0], axis=1), np.mean(simulator.forward(x), axis=(1, 2))
    np.testing.assert_allclose(after - before, 0.15, rtol=1e-12)
    without = keras_sip.Burgers(16, dtype="float64").forward(x[..., :1])
    np.testing.assert_allclose(simulator.forward(x * [1.0, 0.0]), without, atol=1e-15)


def test_samples_have_the_stated_size():
    sample = keras_sip.Burgers(32, force_scale=1.0, deviation=0.2).sample(8, SEED)
    assert sample["x"].shape == (8, 32, 2) and sample["y"].shape == (8, 32, 1)
    np.testing.assert_allclose(np.std(sample["x"], axis=1), 0.2, rtol=1e-4)
    # The two channels are drawn apart.
    assert np.max(np.abs(tf.reduce_mean(sample["x"][..., 0] * sample["x"][..., 1], axis=1))) < 0.039
