"""check_calibration on posteriors that are right, too narrow, and of two answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip import GaussianPrior, MaximumAPosteriori
from keras_sip.ops import random_fields


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class NoisyLinear(keras_sip.Simulator):
    """y = A x + noise, x ~ N(0, 1): its posterior is a Gaussian. `stated` is the level that the context says."""

    x_shape, y_shape, dtype = (3,), (4,), "float64"
    matrix = np.array([[1.0, 0.5, -0.3, 0.2], [0.2, 2.0, 0.4, -0.5], [-0.4, 0.3, 1.5, 0.8]])

    def __init__(self, stated=0.5):
        self.stated = stated

    def forward(self, x, context=None):
        return x @ tf.constant(self.matrix, x.dtype)

    def sample(self, batch_size, seed):
        first, second = tf.unstack(random_fields.split_seed(seed, 2))
        x = random_fields.normal([batch_size, 3], first, dtype=self.dtype)
        noise = 0.5 * random_fields.normal([batch_size, 4], second, dtype=self.dtype)
        level = tf.fill([batch_size], tf.constant(self.stated, self.dtype))
        return {"x": x, "y": self.forward(x) + noise, "context": {"noise_level": level}}


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Square(NoisyLinear):
    """y = x^2: the sign of x is not to be seen."""

    x_shape, y_shape = (1,), (1,)

    def forward(self, x, context=None):
        return tf.square(x)

    def sample(self, batch_size, seed):
        x = random_fields.normal([batch_size, 1], seed, dtype=self.dtype)
        level = tf.fill([batch_size], tf.constant(0.01, self.dtype))
        return {"x": x, "y": self.forward(x), "context": {"noise_level": level}}


PRIOR = GaussianPrior(np.zeros(3), np.eye(3))


def test_a_right_posterior_covers_what_it_says():
    report = keras_sip.check_calibration(
        MaximumAPosteriori(prior=PRIOR), 600, simulator=NoisyLinear(), print_report=False
    )
    assert report.passed
    for level, share in report.coverage.items():
        # Four standard errors of 600 examples of three unknowns, were they one each.
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 600)
    assert report["ranks"].verdict.value == "ok"
    assert report.ranks.shape == (600, 3)
    np.testing.assert_array_equal(report.minima, 1)
    assert abs(report.spread - 1) < 0.1


def test_understated_noise_is_found_and_said():
    report = keras_sip.check_calibration(
        MaximumAPosteriori(prior=PRIOR), 300, simulator=NoisyLinear(stated=0.1), print_report=False
    )
    assert not report.passed
    assert report.coverage[0.95] < 0.6
    assert report.spread > 2
    assert "noise_level" in report["coverage"].remedy
    assert report.rank_probability < 1e-6


def test_overstated_noise_is_a_note():
    report = keras_sip.check_calibration(
        MaximumAPosteriori(prior=PRIOR), 300, simulator=NoisyLinear(stated=2.0), print_report=False
    )
    assert report.passed
    assert report.coverage[0.5] > 0.6
    assert "too large" in report["coverage"].remedy


def test_two_answers_are_counted():
    solver = MaximumAPosteriori(prior=GaussianPrior([0.0], [[1.0]]))
    report = keras_sip.check_calibration(solver, 64, simulator=Square(), print_report=False)
    x = np.asarray(keras_sip.evaluation_set(Square(), 64, 0)[1])[:8, 0]
    # Where x is far from 0, both signs are answers.
    np.testing.assert_array_equal(report.minima[np.abs(x) > 0.3], 2)
    assert "more than one" in report["one answer"].measured


def test_figure_shows_coverage_and_ranks():
    pytest.importorskip("matplotlib")
    report = keras_sip.check_calibration(
        MaximumAPosteriori(prior=PRIOR), 40, simulator=NoisyLinear(), print_report=False
    )
    shares, histogram = report.figure().axes
    assert shares.get_xlabel() == "stated coverage"
    assert histogram.get_ylabel() == "count"


def test_a_solver_needs_its_simulator():
    with pytest.raises(ValueError, match="simulator=simulator"):
        keras_sip.check_calibration(MaximumAPosteriori(prior=PRIOR), 40)
