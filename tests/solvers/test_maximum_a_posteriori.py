"""MaximumAPosteriori against closed formulas, SciPy and a Markov chain."""

import functools
import json

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
import tensorflow_probability as tfp

import keras_sip
from keras_sip import GaussianPrior, MaximumAPosteriori, Status
from keras_sip.simulators.measured_form import measured_leakage

RNG = np.random.default_rng(5)
MATRIX = RNG.standard_normal((7, 5))
MIXING = np.array([[1.0, 0.5, -0.3, 0.2], [0.2, 2.0, 0.4, -0.5], [-0.4, 0.3, 1.5, 0.8]])


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Linear(keras_sip.Simulator):
    """y = unit * A x."""

    x_shape, y_shape = (5,), (7,)

    def __init__(self, dtype="float64", unit=1.0):
        self.dtype, self.unit = dtype, unit

    def forward(self, x, context=None):
        return self.unit * tf.matmul(x, tf.constant(MATRIX.T, x.dtype))


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Curved(keras_sip.Simulator):
    """Smooth and nonlinear: three unknowns, four sensors."""

    x_shape, y_shape, dtype = (3,), (4,), "float64"

    def forward(self, x, context=None):
        mixed = tf.linalg.matmul(x, tf.constant(MIXING, x.dtype))
        return mixed + 0.3 * tf.sin(2 * mixed)

    def sample(self, batch_size, seed):
        x = 0.5 + keras_sip.ops.random_fields.normal([batch_size, 3], seed, dtype="float64")
        return {"x": x, "y": self.forward(x)}


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Mapped(keras_sip.SimulatorWrapper):
    """P'(x') = P(A x')."""

    def __init__(self, simulator, matrix):
        super().__init__(simulator)
        self.matrix = np.asarray(matrix)

    def forward(self, x, context=None):
        return self.physical.forward(x @ tf.constant(self.matrix.T, x.dtype), context)


def linear_problem(rank, noise=0.1, examples=6):
    """(prior, y, mean, covariance of the posterior) by the closed formula, NumPy."""
    factor, mean = RNG.standard_normal((rank, 5)), RNG.standard_normal(5)
    x = mean + RNG.standard_normal((examples, rank)) @ factor
    y = x @ MATRIX.T + noise * RNG.standard_normal((examples, 7))
    covariance = factor.T @ factor
    gain = covariance @ MATRIX.T @ np.linalg.inv(MATRIX @ covariance @ MATRIX.T + noise**2 * np.eye(7))
    expected = mean + (y - mean @ MATRIX.T) @ gain.T
    return GaussianPrior(mean, factor), y, expected, covariance - gain @ MATRIX @ covariance


@pytest.mark.parametrize("rank", [5, 2])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_posterior_of_a_linear_process_is_the_closed_formula(rank, dtype):
    prior, y, mean, covariance = linear_problem(rank)
    y, context = y.astype(dtype), {"noise_level": np.full(6, 0.1, dtype)}
    solver = MaximumAPosteriori(prior=prior)
    x0 = np.zeros((6, 5), dtype)
    tolerance = {"float64": 1e-9, "float32": 1e-4}[dtype]
    posterior = solver.posterior(Linear(dtype), x0, y, context)
    stddev = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((posterior.mean() - mean) / stddev, 0, atol=100 * tolerance)
    np.testing.assert_allclose(posterior.mean(), mean, rtol=1e-3, atol=tolerance)
    np.testing.assert_allclose(posterior.stddev() / stddev, 1, rtol=tolerance)
    # One step gets there from anywhere.
    one = solver.solve(Linear(dtype), x0, y, context)
    np.testing.assert_allclose(one.x, mean, rtol=1e-3, atol=10 * tolerance)
    result = solver.refine(Linear(dtype), x0, y, context, steps=5)
    assert np.all(result.status == Status.CONVERGED)


def test_samples_have_the_covariance_of_the_closed_formula():
    prior, y, mean, covariance = linear_problem(5)
    posterior = MaximumAPosteriori(prior=prior).posterior(
        Linear(), np.zeros((6, 5)), y, {"noise_level": np.full(6, 0.1)}
    )
    samples = np.asarray(posterior.sample(20_000, seed=1))
    np.testing.assert_array_equal(samples, posterior.sample(20_000, seed=1))
    unit = np.sqrt(np.diag(covariance))
    received = np.cov(((samples[:, 2] - mean[2]) / unit).T)
    # Five standard errors of a covariance of 20,000 samples.
    np.testing.assert_allclose(received, covariance / np.outer(unit, unit), atol=5 * np.sqrt(2 / 20_000))
    low, high = posterior.quantile_of_samples([0.025, 0.975], num=20_000)
    np.testing.assert_allclose((high - low) / unit, 2 * 1.96, rtol=0.05)


def test_levels_of_noise_may_differ_between_data():
    prior, y, _, _ = linear_problem(5)
    level = 0.05 + RNG.random((6, 7))
    level[:, 3] = 1e6  # a sensor that does not work
    result = MaximumAPosteriori(prior=prior).solve(Linear(), np.zeros((6, 5)), y, {"noise_level": level})
    precision = np.linalg.inv(prior.factor.T @ prior.factor)
    for i in range(6):
        weighted = MATRIX.T / level[i] ** 2
        expected = prior.mean + np.linalg.solve(precision + weighted @ MATRIX, weighted @ (y[i] - MATRIX @ prior.mean))
        np.testing.assert_allclose(result.x[i], expected, rtol=1e-8, atol=1e-8)


def test_no_noise_means_exact_data():
    prior, _, _, _ = linear_problem(5)
    x = RNG.standard_normal((6, 5))
    result = MaximumAPosteriori(prior=prior).solve(
        Linear(), np.zeros((6, 5)), x @ MATRIX.T, {"noise_level": np.zeros(6)}
    )
    np.testing.assert_allclose(result.x, x, atol=1e-7)


def curved_problem(noise=0.05, examples=8):
    sample = Curved().sample(examples, (0, 3))
    y = np.asarray(sample["y"]) + noise * RNG.standard_normal((examples, 4))
    return sample["x"], y, {"noise_level": np.full(examples, noise)}


def scipy_minimum(prior, y, noise, start):
    """Of the sum over residuals of data and prior, from the start."""
    root = np.linalg.inv(prior.factor.T)

    def residuals(x):
        r = (np.asarray(Curved().forward(tf.constant(x[None])))[0] - y) / noise
        return np.concatenate([r, root @ (x - prior.mean)])

    return scipy.optimize.least_squares(residuals, start, xtol=1e-14, ftol=1e-14, gtol=1e-12).x


def test_nonlinear_minimum_is_scipy_s():
    prior = GaussianPrior.measured(Curved())
    x, y, context = curved_problem()
    result = MaximumAPosteriori(prior=prior).refine(Curved(), x, y, context, steps=40)
    expected = np.stack([scipy_minimum(prior, y[i], 0.05, np.asarray(x[i])) for i in range(8)])
    np.testing.assert_allclose(result.x, expected, atol=1e-6)
    assert np.all(result.status == Status.CONVERGED)


def test_trust_region_comes_back_from_where_gauss_newton_diverges():
    # exp is steep on one side and flat on the other: from -4 Gauss-Newton's step is e^4 long.
    simulator = keras_sip.from_function(tf.exp, (1,), dtype="float64")
    prior = GaussianPrior([0.0], [[2.0]])
    y = np.exp([[0.5], [1.0], [-1.0]])
    x0 = np.full((3, 1), -4.0)
    plain = keras_sip.GaussNewton().solve(simulator, x0, y)
    assert np.all(plain.x > 10)
    result = MaximumAPosteriori(prior=prior, max_steps=20, noise=1e-3).solve(simulator, x0, y)
    np.testing.assert_allclose(result.x, np.log(y), atol=1e-4)


def test_updates_map_with_x_and_the_prior_and_do_not_depend_on_the_unit_of_y():
    prior, y, _, _ = linear_problem(5)
    prior = GaussianPrior(prior.mean, prior.factor)
    matrix = RNG.standard_normal((5, 5)) * [1e-4, 1.0, 1e4, 1.0, 10.0]
    inverse = np.linalg.inv(matrix)
    mapped = GaussianPrior(inverse @ prior.mean, prior.factor @ inverse.T)
    x0 = prior.sample(6, 3, dtype="float64")
    for options in ({}, {"anchor": "start"}, {"noise": 1e-3, "max_steps": 3}):
        expected = MaximumAPosteriori(prior=prior, **options).solve(Linear(), x0, y).update
        there = MaximumAPosteriori(prior=mapped, **options).solve(Mapped(Linear(), matrix), x0 @ inverse.T, y).update
        np.testing.assert_allclose(there @ matrix.T, expected, rtol=1e-6, atol=1e-8)
    x0, y = tf.cast(x0, tf.float32), y.astype("float32")
    expected = MaximumAPosteriori(prior=prior).solve(Linear("float32"), x0, y)
    for unit in (1e-25, 1e25):
        context = {"noise_level": np.full(6, 0.1 * unit, "float32")}
        known = MaximumAPosteriori(prior=prior).solve(
            Linear("float32"), x0, y, {"noise_level": np.full(6, 0.1, "float32")}
        )
        for extra, reference in ((None, expected), (context, known)):
            received = MaximumAPosteriori(prior=prior).solve(Linear("float32", unit), x0, np.float32(unit) * y, extra)
            np.testing.assert_allclose(received.update, reference.update, rtol=1e-3, atol=1e-4)


def test_anchored_at_the_start_what_y_does_not_see_stays():
    simulator = keras_sip.from_function(lambda x: x[:, :1], (2,), dtype="float64")
    prior = GaussianPrior(np.zeros(2), np.eye(2))
    x0, y = np.array([[0.0, 3.0]]), np.array([[1.0]])
    at_start = MaximumAPosteriori(prior=prior, anchor="start", noise=1e-3).solve(simulator, x0, y)
    at_prior = MaximumAPosteriori(prior=prior, noise=1e-3).solve(simulator, x0, y)
    np.testing.assert_allclose(at_start.x, [[1.0, 3.0]], atol=1e-4)
    np.testing.assert_allclose(at_prior.x, [[1.0, 0.0]], atol=1e-4)


def test_a_bad_example_does_not_change_the_others():
    prior, y, _, _ = linear_problem(5)
    solver = MaximumAPosteriori(prior=prior, max_steps=2)
    good = solver.solve(Linear(), np.ones((6, 5)), y)
    y[2, 0] = np.nan
    bad = solver.solve(Linear(), np.ones((6, 5)), y)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(bad.x.numpy()[others], good.x.numpy()[others])
    assert bad.status[2] == Status.NON_FINITE
    np.testing.assert_array_equal(bad.update[2], 0)


def test_eager_graph_and_xla_agree():
    prior = GaussianPrior.measured(Curved())
    x, y, context = curved_problem()
    solver = MaximumAPosteriori(prior=prior, max_steps=3)
    expected = solver.solve(Curved(), x + 0.3, y, context).x
    for jit_compile in (False, True):
        compiled = tf.function(lambda x: solver.solve(Curved(), x, y, context).x, jit_compile=jit_compile)
        np.testing.assert_allclose(compiled(x + 0.3), expected, rtol=1e-9)


def test_refinement_is_no_worse_and_does_not_fit_noise():
    prior = GaussianPrior.measured(Curved())
    x, y, context = curved_problem(noise=0.5)
    simulator = Curved()
    fitted = keras_sip.LevenbergMarquardt().refine(simulator, x, y, steps=30)
    for start in (x, fitted.x, x + 2.0):
        result = MaximumAPosteriori(prior=prior).refine(simulator, start, y, context, steps=10)
        before = simulator.objective(simulator.forward(start), y)
        # Half the squares of four data of the known noise.
        assert np.all(result.objective <= np.maximum(before, 1.05 * 0.5 * 4 * 0.25))
    np.testing.assert_allclose(result.y, simulator.forward(result.x))
    errors = [np.mean(np.square(found - x)) for found in (result.x, fitted.x)]
    assert errors[0] < errors[1]


# Fields ---------------------------------------------------------------------------------------------------------------


def dense(shape, product):
    """The matrix of a linear map of fields `[B, *shape]`."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.asarray(product(tf.constant(units))).reshape(len(units), -1).T


def field_posterior(simulator, prior, y, level):
    """(mean, stddev) of the closed formula with the prior's dense covariance."""
    process, covariance = dense(simulator.x_shape, simulator.forward), dense(simulator.x_shape, prior.covariance)
    noise = level**2 * np.eye(len(process))
    gain = covariance @ process.T @ np.linalg.inv(process @ covariance @ process.T + noise)
    mean = prior.mean.reshape(-1)
    mean = mean + (np.asarray(y).reshape(len(y), -1) - mean @ process.T) @ gain.T
    shape = (-1, *simulator.x_shape)
    return mean.reshape(shape), np.sqrt(np.diag(covariance - gain @ process @ covariance)).reshape(simulator.x_shape)


@pytest.fixture(scope="module")
def poisson():
    simulator = keras_sip.Poisson((6, 7), dtype="float64")
    y = np.asarray(simulator.sample(4, (1, 1))["y"])
    level = 0.01 * np.std(y)
    return simulator, y + level * RNG.standard_normal(y.shape), level


def test_a_process_that_is_diagonal_in_a_basis_is_found_and_solved_mode_by_mode(poisson):
    simulator, y, level = poisson
    best, *others = measured_leakage(simulator)
    assert best.basis == "sine"
    assert best.leakage < 1e-12
    assert all(other.leakage > 0.2 for other in others)
    solver, context = MaximumAPosteriori(), {"noise_level": np.full(4, level)}
    x0 = np.zeros((4, 6, 7, 1))
    mean, stddev = field_posterior(simulator, solver.form_of(simulator).prior, y, level)
    np.testing.assert_allclose(solver.solve(simulator, x0, y, context).x, mean, atol=1e-10)
    posterior = solver.posterior(simulator, x0, y, context)
    np.testing.assert_allclose(posterior.mean(), mean, atol=1e-10)
    np.testing.assert_allclose(posterior.stddev()[1], stddev, rtol=1e-8)
    samples = posterior.sample(4000, seed=3)
    np.testing.assert_allclose(np.std(samples, axis=0) / stddev, 1, atol=5 / np.sqrt(8000))


def test_periodic_and_asymmetric_processes_are_diagonal_in_the_fourier_basis():
    class Trail(keras_sip.SpectralSimulator):
        def transfer_function(self, frequencies):
            return 1 / (1.2 - np.exp(-2j * np.pi * frequencies[0])) + 0.0 * frequencies[1]

        def sample(self, batch_size, seed):
            x = keras_sip.ops.random_fields.normal([batch_size, *self.x_shape], seed, dtype=self.dtype)
            return {"x": x, "y": self.forward(x)}

    simulator = Trail((6, 5), channels=2, dtype="float64")
    best = measured_leakage(simulator)[0]
    assert best.basis == "fourier"
    np.testing.assert_allclose(best.transfer, simulator.diagonal_form.transfer[0], rtol=1e-8)
    solver = MaximumAPosteriori()
    y = np.asarray(simulator.sample(2, (0, 5))["y"])
    mean, stddev = field_posterior(simulator, solver.form_of(simulator).prior, y, 0.3)
    posterior = solver.posterior(simulator, np.zeros_like(y), y, {"noise_level": np.full(2, 0.3)})
    np.testing.assert_allclose(posterior.mean(), mean, atol=1e-10)
    np.testing.assert_allclose(posterior.stddev()[0], stddev, rtol=1e-8)


def test_no_basis_is_taken_where_all_leak():
    class Product(keras_sip.Poisson):
        def forward(self, x, context=None):
            y = super().forward(x)
            return y + y**2

    simulator = Product((6, 6))
    assert measured_leakage(simulator)[0].leakage > 0.1
    assert MaximumAPosteriori().form_of(simulator) is None


def test_conjugate_gradients_find_what_the_components_leave_out(poisson):
    simulator, y, level = poisson
    prior = GaussianPrior.measured(simulator, components=8, basis="cosine")
    mean, _ = field_posterior(simulator, prior, y, level)
    x0, context = np.zeros((4, 6, 7, 1)), {"noise_level": np.full(4, level)}
    without = MaximumAPosteriori(prior=prior, spectral=False).solve(simulator, x0, y, context)
    solver = MaximumAPosteriori(prior=prior, spectral=False, rest_steps=8)
    one = solver.solve(simulator, x0, y, context)
    # CG goes on in the steps after the first, and ends at the minimum with the whole covariance.
    many = solver.refine(simulator, x0, y, context, steps=20)
    errors = [np.max(np.abs(result.x - mean)) for result in (without, one, many)]
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 1e-5 * errors[0]
    assert np.all(many.status == Status.CONVERGED)


def test_answers_use_the_whole_covariance_where_training_takes_components(poisson):
    simulator, y, level = poisson
    prior = GaussianPrior.measured(simulator, components=8, basis="cosine")
    mean, stddev = field_posterior(simulator, prior, y, level)
    x0, context = np.zeros((4, 6, 7, 1)), {"noise_level": np.full(4, level)}
    solver = MaximumAPosteriori(prior=prior, spectral=False)
    np.testing.assert_allclose(solver.refine(simulator, x0, y, context, steps=3).x, mean, atol=1e-8)
    posterior = solver.posterior(simulator, x0, y, context)
    assert posterior.prior == solver.prior_of_posterior(simulator)
    np.testing.assert_allclose(posterior.mean(), mean, atol=1e-8)
    np.testing.assert_allclose(posterior.stddev()[2], stddev, rtol=1e-7)
    # A step of training, and an answer of components alone, end where these end.
    low_rank = solver.with_options(largest_dense=0)
    np.testing.assert_allclose(
        low_rank.refine(simulator, x0, y, context, steps=1).x, solver.solve(simulator, x0, y, context).x, atol=1e-8
    )


def test_refining_a_flow_finds_what_components_leave_out():
    simulator = keras_sip.DarcyFlow((6, 5), dtype="float64")
    x = np.asarray(simulator.sample(4, (0, 7))["x"])
    y = simulator(x)
    prior = GaussianPrior.measured(simulator, components=6)
    # What a network leaves: all scales a little wrong.
    x0 = x + 0.2 * np.asarray(prior.root(prior.white(4, 3, "float64")))
    errors = []
    for solver in (MaximumAPosteriori(prior=prior), MaximumAPosteriori(prior=prior, largest_dense=0)):
        refine = tf.function(functools.partial(solver.refine, simulator, steps=5), autograph=False)
        errors.append(np.mean(simulator.distance(refine(x0, y).x, x)))
    start = np.mean(simulator.distance(x0, x))
    assert errors[0] < 0.1 * start < errors[1]


def test_error_bars_of_a_nonlinear_field_hold_the_truth_as_often_as_they_say():
    simulator = keras_sip.Degraded(keras_sip.DarcyFlow((9, 8)), noise=0.05)
    observation, x = keras_sip.evaluation_set(simulator, 96, seed=4)
    y, context = keras_sip.split_observation(observation)
    solver = MaximumAPosteriori()
    start = np.zeros_like(x)
    compiled = tf.function(lambda: solver.posterior(simulator, start, y, context, steps=8).tensors, autograph=False)
    posterior = keras_sip.Posterior(*compiled(), prior=solver.prior_of_posterior(simulator))
    away = np.abs(np.asarray(x) - posterior.mean()) / posterior.stddev()
    assert 0.87 <= np.mean(away <= 1.645) <= 0.93
    # Not because they are those of the prior.
    assert np.mean(posterior.stddev()) < 0.6 * np.mean(solver.prior_of_posterior(simulator).stddev)


def test_measured_priors_are_used_in_the_units_of_the_network():
    simulator = Curved()
    scaled = keras_sip.Nondimensional(simulator, [1.0, 10.0, 1e-3])
    x, y, context = curved_problem()
    solver = MaximumAPosteriori(max_steps=3)
    expected = solver.solve(simulator, x, y, context)
    received = solver.solve(scaled, x / scaled.scale, y, context)
    np.testing.assert_allclose(received.update * scaled.scale, expected.update, rtol=1e-8, atol=1e-10)
    field = keras_sip.Poisson((6, 7), dtype="float64")
    wrapped = keras_sip.Nondimensional(field, 30.0)
    y = field.sample(2, (0, 2))["y"]
    expected = solver.solve(field, np.zeros((2, 6, 7, 1)), y)
    np.testing.assert_allclose(30 * solver.solve(wrapped, np.zeros((2, 6, 7, 1)), y).x, expected.x, rtol=1e-8)


def test_configuration_and_prior_survive_json():
    solver = MaximumAPosteriori(prior=GaussianPrior([1.0, 2.0], np.eye(2)), noise=0.1, max_steps=3)
    text = json.dumps(keras.saving.serialize_keras_object(solver))
    assert keras.saving.deserialize_keras_object(json.loads(text)) == solver
    assert solver.with_options(noise=0.2) != solver


def test_means_and_deviations_are_those_of_a_long_markov_chain():
    prior = GaussianPrior(np.zeros(2), [[1.0, 0.2], [0.0, 0.7]])
    simulator = keras_sip.from_function(
        lambda x: tf.stack([tf.exp(0.4 * x[:, 0]), x[:, 0] * x[:, 1] + x[:, 1], tf.sin(x[:, 1])], axis=1),
        (2,),
        dtype="float64",
    )
    noise, truth = 0.05, np.array([[0.8, -0.4]])
    y = np.asarray(simulator.forward(tf.constant(truth))) + noise * np.array([[0.5, -1.0, 0.3]])
    posterior = MaximumAPosteriori(prior=prior).posterior(
        simulator, np.zeros((1, 2)), y, {"noise_level": np.full(1, noise)}, steps=30
    )

    def log_prob(x):
        misfit = tf.reduce_sum(tf.square((simulator.forward(x) - y) / noise), axis=1)
        return -0.5 * misfit + prior.log_prob(x)

    @tf.function(jit_compile=True)
    def chain():
        kernel = tfp.mcmc.HamiltonianMonteCarlo(log_prob, step_size=0.04, num_leapfrog_steps=6)
        start = tf.constant(truth) + tf.zeros((64, 1), tf.float64)
        return tfp.mcmc.sample_chain(800, start, kernel=kernel, num_burnin_steps=200, trace_fn=None, seed=(0, 1))

    states = chain().numpy().reshape(-1, 2)
    np.testing.assert_allclose(posterior.stddev()[0], states.std(0), rtol=0.1)
    # In units of the deviation: the mean of a skewed posterior is not its mode.
    np.testing.assert_allclose((posterior.mean()[0] - states.mean(0)) / states.std(0), 0, atol=0.1)


def test_what_cannot_work_is_refused_with_a_remedy():
    other = GaussianPrior(np.zeros(3), np.eye(3))
    cases = [
        (ValueError, "a prior of x of shape", lambda: MaximumAPosteriori(prior=other).check(Linear())),
        (TypeError, "without `sample` and prior=None", lambda: MaximumAPosteriori().check(Linear())),
        (TypeError, "GaussianPrior or None", lambda: MaximumAPosteriori(prior=3.0)),
        (ValueError, "anchor", lambda: MaximumAPosteriori(anchor="mean")),
        (ValueError, "noise", lambda: MaximumAPosteriori(noise=-1.0)),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message) as error:
            call()
        assert str(error.value).count("\n") >= 2
