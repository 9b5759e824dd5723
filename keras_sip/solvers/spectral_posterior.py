"""The posterior where P is linear and diagonal in a spectral basis and the prior stationary in it: mode by mode."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_sip._on_use import posteriors
from keras_sip.ops import batched, spectral_bases
from keras_sip.priors import GaussianPrior
from keras_sip.simulators.measured_form import LARGEST_LEAKAGE, measured_leakage
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.solvers.whitened_problem import noise_deviation


@dataclasses.dataclass(frozen=True, eq=False)
class SpectralPosterior:
    """min |r / sigma|^2 + |x - x_0|^2_{C^-1}:  x_q = x_0q - conj(T_q) C_q / (|T_q|^2 C_q + sigma^2) r(x_0)_q.

    Args:
        basis: In which P is diagonal.
        transfer: T, a spectrum.
        prior: Without components, its rest in the basis.
    """

    basis: str
    transfer: np.ndarray
    prior: GaussianPrior

    def mean_like(self, x):
        """m for each example of x."""
        return tf.zeros_like(x) + tf.constant(self.prior.mean, x.dtype)

    def minimum(self, problem, start, noise, here=None):
        """The x above, exact for a linear P; noise of no known level is relative to the residual at `here`."""
        residual = problem.residual(start)
        variance = self._variance_of_noise(problem, residual if here is None else problem.residual(here), noise)
        return start + self._change(problem, residual, variance, 1.0)

    def change(self, problem, x, noise):
        """dx of `noisy_refinement.refine_noisy`, the prior s times as wide."""
        residual = problem.residual(x)
        variance = self._variance_of_noise(problem, residual, noise)
        square = tf.reduce_sum(tf.square(residual), axis=list(range(1, residual.shape.rank)), keepdims=True)
        signal = np.square(np.abs(self.transfer)) * self.prior.floored_spectrum * self._scale_square()
        many = spectral_bases.multiplicity(self.prior.x_shape, self.basis)
        unit = batched.expand(1.0 / problem.scale, residual)
        expected = tf.square(unit * float(np.sqrt(np.sum(many * signal)))) / variance
        width = width_of_error(square / variance, float(self.prior.size), expected)
        return self._change(problem, residual, variance, width)

    def _change(self, problem, residual, variance, width):
        """From where the residual was taken to the minimum; `width` `[B, 1, ...]`, a factor on the covariance."""
        signal = self.prior.floored_spectrum * self._scale_square()
        # T in the unit of the problem: r / m = T (x - x*) / m.
        modes = spectral_bases.modes(residual, self.basis)
        unit = batched.expand(1.0 / problem.scale, residual)
        transfer = np.broadcast_to(self.transfer, signal.shape)
        # In units of the largest factor, squares stay representable.
        largest = max(float(np.max(np.abs(transfer))), np.finfo(residual.dtype.as_numpy_dtype).tiny)
        relative = tf.constant(np.square(np.abs(transfer / largest)) * signal, residual.dtype)
        damping = tf.square(tf.sqrt(variance) / (unit * largest))
        gain = width * tf.constant(signal, residual.dtype) / (width * relative + damping)
        directed = modes * tf.cast(gain, modes.dtype) * tf.constant(np.conj(transfer / largest), modes.dtype)
        change = spectral_bases.field_of_modes(directed, self.basis, self.prior.x_shape)
        return -change / (unit * largest)

    def posterior(self, problem, noise):
        """A `Posterior` without components, the rest's spectrum as y leaves it."""
        mean = self.minimum(problem, self.mean_like(problem.y_target), noise)
        residual = problem.residual(mean)
        variance = self._variance_of_noise(problem, residual, noise) * tf.square(
            batched.expand(problem.scale, residual)
        )
        transfer = np.broadcast_to(self.transfer, self.prior.floored_spectrum.shape)
        signal = self.prior.floored_spectrum * self._scale_square()
        explained = np.square(np.abs(transfer)) * signal
        share = tf.cast(variance, tf.float64) / (tf.constant(explained) + tf.cast(variance, tf.float64))
        cholesky = tf.zeros([tf.shape(mean)[0], 0, 0], tf.float64)
        return posteriors.Posterior(mean, cholesky, share, prior=self.prior)

    def _scale_square(self):
        """Of the prior's unit, a spectrum of one number for each channel."""
        channels = np.reshape(self.prior.scale, [-1, self.prior.x_shape[-1]])[0]
        shape = [-1] + [1] * (len(self.prior.x_shape) - 1) if self.basis == "fourier" else [-1]
        return np.square(channels).reshape(shape)

    @staticmethod
    def _variance_of_noise(problem, residual, noise):
        """sigma^2 `[B, 1, ...]` in the unit of the problem; of noise that differs between data the mean."""
        square = tf.square(noise_deviation(problem, residual, noise))
        return tf.reduce_mean(square, axis=list(range(1, residual.shape.rank)), keepdims=True)


def width_of_error(square, data, expected):
    """s `[B, ...]`: by how much |r|^2 / sigma^2 exceeds the number of data, over what the whole prior makes of it."""
    return tf.clip_by_value((square - data) / tf.where(expected > 0, expected, tf.ones_like(expected)), 0.0, 1.0)


def measured(simulator, prior=None):
    """The `SpectralPosterior` of a simulator, measured once; None where no basis makes P diagonal.

    Args:
        simulator: With `sample`.
        prior: A `GaussianPrior` without components in the basis, or None, which measures one. Another prior is not
            stationary there: None.
    """
    if isinstance(simulator, Nondimensional):
        scale = np.unique(simulator.scale)
        found = measured(simulator.physical, prior)
        if found is None or scale.size > 1:
            return None
        return dataclasses.replace(found, transfer=found.transfer * scale, prior=found.prior.rescaled(scale))
    if not simulator.has("sample"):
        return None
    if not hasattr(simulator, "_measured_leakage"):
        simulator._measured_leakage = measured_leakage(simulator)
    best = simulator._measured_leakage[:1]
    if not best or best[0].leakage > LARGEST_LEAKAGE:
        return None
    basis, _, transfer = best[0]
    if prior is None:
        if not hasattr(simulator, "_measured_stationary_prior"):
            with tf.init_scope():
                simulator._measured_stationary_prior = GaussianPrior.measured(simulator, components=0, basis=basis)
        prior = simulator._measured_stationary_prior
    if prior.num_components or prior.spectrum is None or prior.basis != basis:
        return None
    channel_axis = 0 if basis == "fourier" else transfer.ndim
    return SpectralPosterior(basis, np.expand_dims(transfer, channel_axis), prior)
