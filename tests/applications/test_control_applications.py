"""The three problems of the half-inverse gradients: their published sizes and settings."""

import types

import keras
import pytest

import laplacian
import oscillators
import quantum_dipole

OPTIONS = types.SimpleNamespace(resolution=[8, 8], lanczos_steps=30, steps=1)


@pytest.mark.parametrize(
    "application, weights, batch, truncation, adam_rate",
    [
        (oscillators, 2_956, 128, 1e-6, 3e-4),
        (quantum_dipole, 9_484, 16, 1e-5, 5e-4),
        (laplacian, 41_408, 64, 1e-5, 3e-4),
    ],
)
def test_networks_and_settings_are_the_published_ones(application, weights, batch, truncation, adam_rate):
    experiment = application.EXPERIMENT
    simulator = experiment.simulator(OPTIONS)
    assert experiment.network(simulator, 0).count_params() == weights
    assert experiment.batch == batch
    variants = experiment.variants
    half_inverse, adam = (variants[name].optimizer(OPTIONS) for name in ("half_inverse", "adam"))
    assert (half_inverse.power, half_inverse.truncation) == (0.5, truncation)
    assert isinstance(adam, keras.optimizers.Adam)
    assert float(adam.learning_rate) == pytest.approx(adam_rate)
    assert {"adam", "sip", "sip_generic", "half_inverse", "natural_gradient"} <= set(variants)


@pytest.mark.parametrize("application", [oscillators, quantum_dipole, laplacian])
def test_every_method_goes_with_the_simulator(application):
    experiment = application.EXPERIMENT
    simulator = experiment.simulator(OPTIONS)
    for name in experiment.variants:
        assert experiment.build_model(name, simulator, OPTIONS, 0).name == name
