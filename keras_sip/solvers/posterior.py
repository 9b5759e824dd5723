"""Posterior: the Gaussian of x given y, a tensorflow-probability distribution that is never dense in fields."""

import tensorflow as tf
import tensorflow_probability as tfp

from keras_sip.ops import random_fields, spectral_bases
from keras_sip.priors import Whitened


class Posterior(tfp.distributions.Distribution):
    """x | y ~ N(mean, F^T (I + G G^T)^-1 F + R),   R the covariance of what the prior's components leave out.

    Batch shape `[B]`, event shape `x_shape`; `mean`, `variance`, `stddev` and `sample` as of every
    tensorflow-probability distribution, `quantile_of_samples` by samples.

    Args:
        mean: `[B, *x_shape]`.
        cholesky: Of I + G G^T `[B, k, k]`, float64: G = J F^T / sigma.
        share_of_rest: What y leaves of the variance of each mode of the rest, `[B, *modes]`, float64; None is all.
        prior: The `GaussianPrior`.
    """

    def __init__(self, mean, cholesky, share_of_rest=None, *, prior, name="Posterior"):
        parameters = dict(locals())
        share_of_rest = None if isinstance(share_of_rest, tuple) else share_of_rest
        self._mean_x, self._cholesky, self.prior, self._share_of_rest = mean, cholesky, prior, share_of_rest
        super().__init__(
            dtype=mean.dtype,
            reparameterization_type=tfp.distributions.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @property
    def tensors(self):
        """(mean, cholesky, share_of_rest or ()): what a graph can return; `Posterior(*tensors, prior=prior)` is it."""
        return self._mean_x, self._cholesky, () if self._share_of_rest is None else self._share_of_rest

    def quantile_of_samples(self, probabilities, num=1000, seed=0):
        """Quantiles of each component by samples, `[len(probabilities), B, *x_shape]`."""
        samples = self.sample(num, seed=seed)
        return tfp.stats.percentile(samples, 100.0 * tf.convert_to_tensor(probabilities, self.dtype), axis=0)

    def _event_shape(self):
        return tf.TensorShape(self.prior.x_shape)

    def _event_shape_tensor(self):
        return tf.constant(self.prior.x_shape, tf.int32)

    def _batch_shape(self):
        return self._mean_x.shape[:1]

    def _batch_shape_tensor(self):
        return tf.shape(self._mean_x)[:1]

    def _mean(self):
        return self._mean_x

    def _mode(self):
        return self._mean_x

    def _variance(self):
        variance = 0.0
        if self.prior.num_components:
            factor = tf.constant(self.prior.factor.reshape(-1, self.prior.size), tf.float64)
            copies = tf.broadcast_to(factor, [tf.shape(self._cholesky)[0], *factor.shape])
            rows = tf.linalg.triangular_solve(self._cholesky, copies)
            variance = tf.reshape(tf.reduce_sum(tf.square(rows), axis=1), [-1, *self.prior.x_shape])
        return tf.cast(variance + self._variance_of_rest(), self.dtype)

    def _variance_of_rest(self):
        if self._share_of_rest is None:
            return tf.constant(self.prior.variance_of_rest)
        spectrum = self._share_of_rest * tf.constant(self.prior.floored_spectrum)
        variance = spectral_bases.pointwise_variance(spectrum, self.prior.x_shape, self.prior.basis)
        return tf.square(tf.constant(self.prior.scale)) * variance

    def _stddev(self):
        return tf.sqrt(self._variance())

    def _sample_n(self, n, seed=None):
        # An int is all that the samples depend on, as everywhere in the package.
        if not isinstance(seed, int):
            seed = tf.cast(tfp.random.sanitize_seed(seed), tf.int64)
        batch, size = tf.shape(self._mean_x)[0], self.prior.num_components
        first, second = tf.unstack(random_fields.split_seed(seed, 2))
        white = random_fields.normal(tf.stack([n * batch, max(size, 1)]), first, dtype="float64")[:, :size]
        white = tf.transpose(tf.reshape(white, [n, batch, size]), [1, 2, 0])
        # L^-T, whose square is (L L^T)^-1.
        components = tf.linalg.triangular_solve(self._cholesky, white, adjoint=True) if size else white
        components = tf.cast(tf.reshape(tf.transpose(components, [2, 0, 1]), [-1, size]), self.dtype)
        field = ()
        if self.prior.spectrum is not None:
            field = random_fields.normal(tf.stack([n * batch, *self.prior.x_shape]), second, dtype=self.dtype.name)
            field = tf.ensure_shape(field, [None, *self.prior.x_shape])
            if self._share_of_rest is not None:
                share = tf.tile(tf.cast(tf.sqrt(self._share_of_rest), self.dtype), [n] + [1] * len(self.prior.x_shape))
                field = spectral_bases.spectral_filter(field, share, self.prior.basis)
        changes = self.prior.root(Whitened(components, field))
        return self._mean_x + tf.reshape(changes, tf.stack([n, batch, *self.prior.x_shape]))
