"""Coupled oscillators against SciPy, with order, energy and momentum of the published settings."""

import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf

import keras_sip

SEED = (3, 5)


def scipy_end(simulator, initial, controls):
    """The end of one path by SciPy's adaptive steps, restarted at each jump of the force; from -dH/dq written out."""
    state = np.array(initial, np.float64)
    for control in controls:

        def rate(t, s, control=control):
            cubic = 4 * simulator.coupling * (s[0] - s[1]) ** 3
            forces = control * np.array(simulator.actuators)
            return [s[2], s[3], -s[0] - cubic - forces[0], -s[1] + cubic - forces[1]]

        path = scipy.integrate.solve_ivp(rate, (0, simulator.step_size), state, rtol=1e-12, atol=1e-13)
        state = path.y[:, -1]
    return state


def test_it_is_that_of_scipy_and_of_fourth_order():
    """Halving the step with the same force in both halves divides the error by 2^4."""
    coarse = keras_sip.Oscillators(12, step_size=0.4, dtype="float64")
    fine = keras_sip.Oscillators(24, step_size=0.2, dtype="float64")
    sample = coarse.sample(3, SEED)
    context, x = sample["context"], sample["x"].numpy()
    expected = [scipy_end(coarse, *row) for row in zip(context["initial_state"], x, strict=True)]
    errors = [np.max(np.abs(y - expected)) for y in (sample["y"], fine.forward(np.repeat(x, 2, axis=1), context))]
    assert errors[1] < 1e-2
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.3)


def test_without_a_force_energy_is_kept_to_the_order_of_the_steps():
    simulator = keras_sip.Oscillators(target="initial", dtype="float64")
    sample = simulator.sample(16, SEED)
    end = simulator.forward(np.zeros((16, 96)), sample["context"])
    energy = simulator.energy(sample["y"])
    # 12 units of time in steps of 0.125: the error per unit of time is of the size of 0.125^4 = 2.4e-4 over 5!.
    np.testing.assert_allclose(simulator.energy(end), energy, rtol=1e-4)
    assert np.max(np.abs(end - sample["y"])) > 0.5


def test_a_force_does_the_work_that_the_energy_gains():
    """dH/dt = -u sum_i actuators_i p_i: the rates are those of H, to rounding."""
    simulator = keras_sip.Oscillators(actuators=(0.5, 0.0, 3.0), dtype="float64")
    state = 2 * simulator.sample(16, SEED)["context"]["initial_state"] - 1
    control = tf.linspace(tf.constant(-1.0, tf.float64), 1.0, 16)
    with tf.GradientTape() as tape:
        tape.watch(state)
        energy = simulator.energy(state)
    gained = np.sum(tape.gradient(energy, state) * simulator.rate(state, control), axis=1)
    work = -control * (np.asarray(state[:, 3:]) @ np.array(simulator.actuators))
    np.testing.assert_allclose(gained, work, atol=1e-13)


def test_the_published_problem_is_to_be_back_at_the_start():
    simulator = keras_sip.Oscillators(target="initial")
    sample = simulator.sample(64, SEED)
    assert simulator.network_input({"y": sample["y"], "context": sample["context"]}).shape == (64, 4)
    np.testing.assert_array_equal(sample["y"], sample["context"]["initial_state"])
    assert 0 <= np.min(sample["y"]) and np.max(sample["y"]) <= 1
    effort = simulator.distance(tf.fill([64, 96], 0.5), sample["x"])
    np.testing.assert_allclose(effort, 0.5, rtol=1e-6)


def test_without_initial_states_it_says_so():
    with pytest.raises(ValueError, match="initial_state"):
        keras_sip.Oscillators().forward(np.zeros((1, 96), np.float32))
