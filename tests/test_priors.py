"""GaussianPrior against dense NumPy computations of the same Gaussian."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import keras_sip
from keras_sip.priors import GaussianPrior, Whitened

RNG = np.random.default_rng(3)


def own_fields(shape, examples=200):
    """Correlated fields of two unlike channels."""
    white = RNG.standard_normal((examples, *shape))
    smooth = white + np.roll(white, 1, axis=1) + 0.5 * np.roll(white, 1, axis=2)
    return 3.0 + smooth * np.array([1e-3, 40.0])


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Fields(keras_sip.Simulator):
    dtype = "float64"

    def __init__(self, shape=(6, 5, 2)):
        self.x_shape = self.y_shape = tuple(shape)

    def forward(self, x, context=None):
        return x


def dense(prior, product):
    """The matrix of a product, column by column."""
    units = tf.reshape(tf.eye(prior.size, dtype=tf.float64), [-1, *prior.x_shape])
    return np.asarray(product(units)).reshape(prior.size, prior.size).T


def parts(whitened):
    """The coordinates that there are, float64 NumPy."""
    return [np.asarray(part, np.float64) for part in tf.nest.flatten(whitened)]


@pytest.fixture(scope="module", params=["fourier", "sine", "cosine", "low rank", "vector", "dense"])
def prior(request):
    if request.param == "dense":
        x = RNG.standard_normal((300, 5)) @ RNG.standard_normal((5, 5)) * [1e-6, 1.0, 1e6, 1.0, 1.0]
        return GaussianPrior.measured(Fields((5,)), x=x)
    if request.param == "vector":
        return GaussianPrior.measured(Fields((70,)), x=RNG.standard_normal((100, 70)) @ np.tri(70), components=3)
    x = own_fields((6, 5, 2))
    if request.param == "low rank":
        return GaussianPrior.measured(Fields(), x=x, components=4, spectrum=False)
    return GaussianPrior.measured(Fields(), x=x, components=4, basis=request.param)


def test_products_are_those_of_one_covariance(prior):
    covariance = dense(prior, prior.covariance)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(covariance / scale, covariance.T / scale, atol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), prior.stddev.ravel(), rtol=1e-12)
    inverse = dense(prior, prior.precision)
    # Of a pseudo-inverse, and of an inverse: C C^+ C = C; to the rounding of a condition below 1e7.
    np.testing.assert_allclose(covariance @ inverse @ covariance / scale, covariance / scale, atol=1e-8)


def test_root_and_transposes_agree(prior):
    v = tf.constant(RNG.standard_normal((3, *prior.x_shape)))
    z = prior.white(3, 8, dtype="float64")
    for product, transposed in [(prior.root, prior.root_transposed), (prior.whiten_transposed, None)]:
        there = np.sum(v * product(z))
        if transposed is None:
            back = prior.whiten(v)
            zero = prior.whiten(tf.zeros_like(v))
            back = Whitened(*(a - b for a, b in zip(parts(back), parts(zero), strict=True)))
        else:
            back = transposed(v)
        back = sum(np.sum(a * b) for a, b in zip(parts(back), parts(z), strict=True))
        np.testing.assert_allclose(there, back, rtol=1e-8)


def test_whitening_is_undone_and_measures_the_distance_from_the_mean(prior):
    x = prior.sample(4, 5, dtype="float64")
    z = prior.whiten(x)
    scale = prior.stddev
    np.testing.assert_allclose(prior.unwhiten(z) / scale, x / scale, atol=1e-9)
    square = sum(np.sum(np.square(part).reshape(4, -1), axis=1) for part in parts(z))
    d = (np.asarray(x) - prior.mean).reshape(4, -1)
    np.testing.assert_allclose(square, np.sum(d * (d @ dense(prior, prior.precision)), axis=1), rtol=1e-6)


def test_density_is_that_of_scipy(prior):
    x = prior.sample(4, 5, dtype="float64")
    if not prior.has_full_rank:
        z = np.asarray(prior.whiten(x).components)
        root = (prior.factor / prior.scale).reshape(prior.num_components, -1)
        expected = scipy.stats.norm.logpdf(z).sum(1) - 0.5 * np.linalg.slogdet(root @ root.T)[1]
    else:
        # In units of the deviations, where the condition is moderate.
        unit = prior.stddev.ravel()
        covariance = dense(prior, prior.covariance) / np.outer(unit, unit)
        d = (np.asarray(x) - prior.mean).reshape(4, -1) / unit
        expected = scipy.stats.multivariate_normal.logpdf(d, cov=covariance) - np.sum(np.log(unit))
    np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-8)


def test_samples_have_the_prior_s_mean_and_deviation(prior):
    x = np.asarray(prior.sample(4000, 1, dtype="float64"))
    # Five standard errors of 4000 samples.
    np.testing.assert_allclose((x.mean(0) - prior.mean) / prior.stddev, 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(x.std(0) / prior.stddev, 1, atol=5 / np.sqrt(8000))


def test_single_precision_agrees_with_double(prior):
    x = prior.sample(4, 5, dtype="float64")
    single = np.asarray(prior.sample(4, 5), np.float64)
    # A mean far above the deviation takes digits of it.
    assert np.all(np.abs(single - x) <= 4e-7 * np.abs(prior.mean) + 1e-5 * prior.scale)
    z32, z64 = prior.whiten(tf.cast(x, tf.float32)), prior.whiten(x)
    # A digit of x is lost for each power of ten between the smallest and the largest deviation.
    for a, b in zip(parts(z32), parts(z64), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2)


def test_graph_and_xla_draw_what_eager_execution_draws(prior):
    expected = prior.sample(2, (4, 2))
    compiled = tf.function(lambda seed: prior.sample(2, seed), jit_compile=True)(tf.constant([4, 2]))
    np.testing.assert_allclose((compiled - expected) / prior.stddev, 0, atol=1e-5)


def test_copies_pickles_and_json_keep_every_bit(prior):
    text = json.dumps(keras.saving.serialize_keras_object(prior))
    for other in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior)), prior_of(text)):
        assert other == prior
        assert hash(other) == hash(prior)
    assert prior != prior.without_rest() or prior.spectrum is None


def prior_of(text):
    return keras.saving.deserialize_keras_object(json.loads(text))


def test_projection_drops_what_the_components_leave_out():
    prior = GaussianPrior.measured(Fields(), x=own_fields((6, 5, 2)), components=4)
    kept = prior.unwhiten(Whitened(tf.constant(RNG.standard_normal((2, 4)))))
    np.testing.assert_allclose(prior.project(kept), kept, rtol=1e-10)
    # By least squares in units of each channel's deviation.
    x = own_fields((6, 5, 2), 1)
    basis = (prior.factor / prior.scale).reshape(4, -1).T
    weights = np.linalg.lstsq(basis, ((x - prior.mean) / prior.scale).reshape(-1))[0]
    expected = prior.mean + (basis @ weights).reshape(prior.x_shape) * prior.scale
    np.testing.assert_allclose(prior.project(tf.constant(x))[0] / prior.scale, expected / prior.scale, atol=1e-10)


def test_measured_components_are_those_of_numpy():
    x = own_fields((6, 5, 2), 100)
    prior = GaussianPrior.measured(Fields(), x=x, components=3, spectrum=False)
    scaled = (x - x.mean(0)) / (x - x.mean(0)).reshape(-1, 2).std(0)
    _, singular, directions = np.linalg.svd(scaled.reshape(100, -1), full_matrices=False)
    np.testing.assert_allclose(prior.captured, np.sum(singular[:3] ** 2) / np.sum(singular**2), rtol=1e-10)
    received = (prior.factor / prior.scale).reshape(3, -1)
    expected = directions[:3] * singular[:3, None] / np.sqrt(99)
    np.testing.assert_allclose(np.abs(np.sum(received * expected, axis=1)), singular[:3] ** 2 / 99, rtol=1e-8)


def test_components_and_spectrum_together_have_the_measured_variance():
    x = own_fields((6, 5, 2), 2000)
    for components in (0, 2, 10):
        prior = GaussianPrior.measured(Fields(), x=x, components=components)
        # Shares of 120,000 numbers, and what the stationary rest has in common with the components.
        np.testing.assert_allclose(np.mean(np.square(prior.stddev / prior.scale)), 1.0, rtol=0.02)
        if components == 0:
            np.testing.assert_allclose(prior.stddev, prior.scale, rtol=1e-3)


def test_simulators_draw_their_own_examples_and_say_what_was_captured():
    prior = GaussianPrior.measured(keras_sip.RotatedSine(), examples=300)
    again = GaussianPrior.measured(keras_sip.RotatedSine(), examples=300)
    assert prior == again
    assert "dense, all components of 2 unknowns, 100.0 % of the variance of 300 examples" in repr(prior)
    fluid = GaussianPrior.measured(keras_sip.NavierStokes((8, 8)), examples=64, explained_variance=0.5)
    assert f"{100 * fluid.captured:.1f} %" in fluid.summary
    assert fluid.captured >= 0.5


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((10, 6, 5, 2)), {}, "10 equal ones, all zero"),
        (np.ones((10, 6, 5, 2)), {}, "10 equal ones"),
        (np.full((10, 6, 5, 2), np.nan), {}, "NaN or infinity in 10 of 10"),
        (np.ones((1, 6, 5, 2)), {}, "at least 2 examples"),
        (RNG.standard_normal((8, 6, 5, 2)), {"components": 8}, "at least 9 examples"),
        (RNG.standard_normal((8, 5, 6, 2)), {}, "shape"),
        (RNG.standard_normal((8, 6, 5, 2)), {"basis": "wavelet"}, "basis"),
        (RNG.standard_normal((8, 6, 5, 2)), {"explained_variance": 1.5}, "explained_variance"),
    ],
)
def test_unusable_examples_are_refused_with_a_remedy(x, options, message):
    with pytest.raises(ValueError, match=message) as error:
        GaussianPrior.measured(Fields(), x=x, **options)
    assert str(error.value).count("\n") >= 2


def test_a_prior_of_another_shape_and_a_simulator_without_samples_are_refused():
    prior = GaussianPrior(np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match=r"a prior of x of shape \(6, 5, 2\)"):
        prior.check(Fields())
    with pytest.raises(TypeError, match="x=array"):
        GaussianPrior.measured(Fields())
    with pytest.raises(ValueError, match="factor"):
        GaussianPrior(np.zeros(3), np.eye(4))
    with pytest.raises(ValueError, match="spectrum"):
        GaussianPrior(np.zeros((4, 4, 1)), np.zeros((0, 4, 4, 1)), spectrum=np.ones(3))


def test_dense_prior_is_the_same_gaussian(prior):
    whole = prior.dense()
    assert whole.spectrum is None
    covariance = dense(prior, prior.covariance)
    unit = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(dense(whole, whole.covariance) / unit, covariance / unit, atol=1e-10)
    np.testing.assert_array_equal(whole.mean, prior.mean)
    np.testing.assert_allclose(whole.stddev, prior.stddev, rtol=1e-8)
    assert whole.dense() is whole
