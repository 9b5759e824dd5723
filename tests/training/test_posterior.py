"""Error bars of models: those of the solver, the same when served."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip import GaussianPrior, MaximumAPosteriori
from keras_sip.ops import random_fields
from keras_sip.solvers import noisy_refinement

MATRIX = np.array([[1.0, 0.5, -0.3, 0.2], [0.2, 2.0, 0.4, -0.5], [-0.4, 0.3, 1.5, 0.8]])
UNIT = np.array([1e-3, 1.0, 1e3])


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Sensors(keras_sip.Simulator):
    """Three unknowns of unlike units, seen by four sensors of known noise."""

    x_shape, y_shape, dtype = (3,), (4,), "float64"
    x_scale = UNIT.tolist()

    def forward(self, x, context=None):
        return (x / UNIT) @ tf.constant(MATRIX, x.dtype)

    def sample(self, batch_size, seed):
        first, second = tf.unstack(random_fields.split_seed(seed, 2))
        x = UNIT * random_fields.normal([batch_size, 3], first, dtype=self.dtype)
        noise = 0.1 * random_fields.normal([batch_size, 4], second, dtype=self.dtype)
        level = tf.fill([batch_size], tf.constant(0.1, self.dtype))
        return {"x": x, "y": self.forward(x) + noise, "context": {"noise_level": level}}


PRIOR = GaussianPrior(np.zeros(3), np.diag(UNIT), scale=UNIT)


@pytest.fixture(scope="module")
def model():
    return keras_sip.SIPModel(keras_sip.MLP(4, 3, hidden=(8,), seed=0), Sensors(), MaximumAPosteriori(prior=PRIOR))


@pytest.fixture(scope="module")
def observation():
    return keras_sip.evaluation_set(Sensors(), 5, seed=1)[0]


def test_posterior_of_a_model_is_the_closed_formula_in_physical_units(model, observation):
    process = MATRIX.T / UNIT
    covariance = np.linalg.inv(np.diag(1 / UNIT**2) + process.T @ process / 0.01)
    posterior = model.posterior(observation)
    np.testing.assert_allclose(posterior.mean(), observation["y"] @ process @ covariance / 0.01, rtol=1e-6)
    np.testing.assert_allclose(posterior.stddev(), np.tile(np.sqrt(np.diag(covariance)), (5, 1)), rtol=1e-6)
    assert posterior.sample(3, seed=0).shape == (3, 5, 3)


def test_refine_returns_error_bars_on_request(model, observation):
    y = np.array(observation["y"])
    y[3, 1] = np.nan
    result, stddev = model.refine({**observation, "y": y}, return_stddev=True)
    good = [0, 1, 2, 4]
    # P is linear: error bars are the same wherever it is linearised.
    expected = model.posterior(observation)
    np.testing.assert_allclose(result.x.numpy()[good], expected.mean().numpy()[good], rtol=1e-5)
    np.testing.assert_allclose(stddev.numpy()[good], expected.stddev().numpy()[good], rtol=1e-6)
    assert np.all(np.isnan(stddev[3]))
    assert len(result) == len(model.refine(observation))


def test_models_with_other_solvers_measure_a_prior(observation):
    network = keras_sip.MLP(4, 3, hidden=(8,), seed=0)
    model = keras_sip.SIPModel(network, Sensors(), keras_sip.LevenbergMarquardt())
    given = keras_sip.SIPModel(network, Sensors(), MaximumAPosteriori())
    np.testing.assert_array_equal(model.posterior(observation).stddev(), given.posterior(observation).stddev())


def test_posterior_of_a_process_that_is_diagonal_in_a_basis_is_the_solver_s():
    simulator = keras_sip.Degraded(keras_sip.Poisson((6, 7), dtype="float64"), noise=0.01)
    observation, _ = keras_sip.evaluation_set(simulator, 3, seed=1)
    network = keras_sip.UNet((6, 7, 1), 1, levels=1, filters=2, seed=0)
    model = keras_sip.SIPModel(network, simulator, MaximumAPosteriori())
    posterior = model.posterior(observation)
    y, context = keras_sip.split_observation(observation)
    expected = MaximumAPosteriori().posterior(simulator, np.zeros((3, 6, 7, 1)), y, context)
    np.testing.assert_allclose(posterior.mean(), expected.mean(), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(posterior.stddev(), expected.stddev(), rtol=1e-8)


def test_with_known_noise_refining_is_no_fit_of_noise():
    simulator = keras_sip.Degraded(keras_sip.Poisson((16, 16)), noise=0.1)
    observation, x = keras_sip.evaluation_set(simulator, 16, seed=1)
    network = keras_sip.UNet((16, 16, 1), 1, levels=2, filters=4, seed=0)
    # An exact inverse, which would explain the noise.
    model = keras_sip.SIPModel(network, simulator, keras_sip.AnalyticInverse())
    start, result = model(observation), model.refine(observation, 5)
    errors = [np.mean(simulator.distance(each, x)) for each in (start, result.x)]
    inverted = np.mean(simulator.distance(simulator.inverse(observation["y"], start, observation["context"]), x))
    assert errors[1] < 0.5 * min(errors[0], inverted)
    y, context = keras_sip.split_observation(observation)
    assert np.all(result.objective.numpy() <= simulator.objective(simulator(start), y, context).numpy())
    # An answer that explains y to its noise stays.
    exact = noisy_refinement.refine_noisy(simulator, x, y, context, steps=5)
    assert np.mean(simulator.distance(exact.x, x)) < 0.02


def test_exported_error_bars_are_those_of_the_model(model, observation, tmp_path):
    model.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served").signatures["uncertainty"]
    y = np.array(observation["y"])
    y[2, 0] = np.nan
    answer = served(y=tf.constant(y), context_noise_level=observation["context"]["noise_level"])
    posterior = model.posterior(observation)
    good = np.array([0, 1, 3, 4])
    np.testing.assert_allclose(answer["x"].numpy()[good], posterior.mean().numpy()[good], rtol=1e-8)
    np.testing.assert_allclose(answer["stddev"].numpy()[good], posterior.stddev().numpy()[good], rtol=1e-8)
    np.testing.assert_array_equal(answer["valid"], [True, True, False, True, True])
    assert np.all(np.isnan(answer["stddev"][2]))
    assert "uncertainty" in (tmp_path / "served" / "README.md").read_text()


def test_a_model_without_prior_or_samples_says_what_is_missing():
    simulator = keras_sip.from_function(tf.tanh, 3)
    model = keras_sip.SIPModel(keras_sip.MLP(3, 3, hidden=(4,), seed=0), simulator, keras_sip.GaussNewton())
    with pytest.raises(TypeError, match="prior=GaussianPrior.measured"):
        model.posterior(np.zeros((2, 3), "float32"))


def test_the_prior_is_saved_with_the_model(model, observation, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.solver.prior == PRIOR
    np.testing.assert_allclose(loaded.posterior(observation).mean(), model.posterior(observation).mean(), rtol=1e-10)
