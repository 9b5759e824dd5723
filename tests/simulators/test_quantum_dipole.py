"""The dipole in a box: unitary steps, known eigenstates, and the Schroedinger equation by matrix exponentials."""

import numpy as np
import pytest
import scipy.linalg

import keras_sip

SEED = (3, 5)


def hamiltonian(simulator):
    """H as a matrix of second differences with walls."""
    spacing = simulator.width / (simulator.points + 1)
    off = -np.ones(simulator.points - 1) / spacing**2
    return np.diag(np.full(simulator.points, 2 / spacing**2)) + np.diag(off, 1) + np.diag(off, -1)


def as_complex(y):
    return np.asarray(y)[..., 0] + 1j * np.asarray(y)[..., 1]


def test_eigenstates_are_those_of_the_matrix():
    simulator = keras_sip.QuantumDipole(dtype="float64")
    values, vectors = np.linalg.eigh(hamiltonian(simulator))
    np.testing.assert_allclose(simulator.energies, values, rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(simulator.eigenstates * vectors.T, axis=1)), 1.0, rtol=1e-10)


def test_without_a_field_the_ground_state_turns_its_phase():
    simulator = keras_sip.QuantumDipole(dtype="float64")
    psi = as_complex(simulator.forward(np.zeros((1, 384))))[0]
    turned = np.exp(-1j * simulator.energies[0] * 384 * simulator.step_size) * simulator.eigenstates[0]
    np.testing.assert_allclose(psi, turned, atol=1e-10)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-4), ("float64", 1e-12)])
def test_every_field_keeps_the_norm(dtype, tolerance):
    """384 products of unitary matrices; their rounding adds up."""
    y = keras_sip.QuantumDipole(dtype=dtype).sample(4, SEED)["y"]
    np.testing.assert_allclose(np.sum(np.square(y), axis=(1, 2)), 1.0, atol=tolerance)


def test_steps_are_of_second_order():
    """Against exp(-i dt (H + u s)) of each piece of constant field; halving dt divides the error by 4."""
    coarse = keras_sip.QuantumDipole(8, points=6, step_size=0.02, dtype="float64")
    fine = keras_sip.QuantumDipole(16, points=6, step_size=0.01, dtype="float64")
    x = 3.0 * coarse.sample(2, SEED)["x"].numpy()
    energy = hamiltonian(coarse)
    expected = []
    for fields in x:
        psi = coarse.eigenstates[0].astype(complex)
        for field in fields:
            psi = scipy.linalg.expm(-1j * 0.02 * (energy + np.diag(field * coarse.positions))) @ psi
        expected.append(psi)
    runs = (coarse.forward(x), fine.forward(np.repeat(x, 2, axis=1)))
    errors = [np.max(np.abs(as_complex(y) - expected)) for y in runs]
    assert errors[1] < 1e-3
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


def test_the_objective_is_the_infidelity_whatever_the_phase():
    simulator = keras_sip.QuantumDipole(16, dtype="float64")
    y, y_target = simulator.sample(5, SEED)["y"], simulator.sample(5, (9, 9))["y"]
    a, b = as_complex(y_target), as_complex(y)
    infidelity = 1 - np.abs(np.sum(np.conj(a) * b, axis=1)) ** 2
    np.testing.assert_allclose(simulator.objective(y, y_target), infidelity, atol=1e-12)
    turned = np.stack([np.real(1j * b), np.imag(1j * b)], axis=-1)
    np.testing.assert_allclose(simulator.objective(turned, y), 0.0, atol=1e-12)


def test_targets_of_the_published_problem_are_of_unit_norm_in_two_states():
    simulator = keras_sip.QuantumDipole(target="excited", dtype="float64")
    y = simulator.sample(32, SEED)["y"].numpy()
    parts = y[..., 0] @ simulator.eigenstates.T
    np.testing.assert_allclose(np.sum(parts[:, 1:3] ** 2, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(y[..., 1], 0.0)
    assert np.std(parts[:, 1]) > 0.5
