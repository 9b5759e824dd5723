"""The paper's damped inverse: amplify what is signal, leave what is noise."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_number
from keras_sip.solvers.spectral_inverse import SpectralInverse

# exp(-x)/2 is 0 in float64 from here on: neither signal nor noise explains the mode.
UNLIKELY = 744.4
# Its square, and that times a mode's power, is a number of float32.
LARGEST_ROOT = 1e12
# A probability between 1/2 and this one is no reason to amplify.
SURE = 0.68


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DampedSpectralInverse(SpectralInverse):
    """Each mode of the residual times e^(a K): a = 1 inverts it, a = 0 leaves it, a = -1 damps it further.

    The action a comes from the probability p that the mode's size |r| is signal:

        p = S / (S + N),   S = exp(-(|r| / A)^2 / 2) / 2,   N = exp(-(|r| / sigma)^2 / 2) / 2;
        a = 2 p - 1 where p <= 1/2 or p >= 0.68, else 0;   p = 0 where S and N both vanish (in float64).

    A = amplitude * x_scale * |T| is the size that the signal has in y where x is off by `amplitude` in each mode, and
    sigma the noise (`SpectralInverse`). Likelihoods are compared as logarithms and exponents clamped: only modes with
    A > sigma are amplified, and |U_k| is at most 39 times the amplitude.

    Direct: one step, no simulation but P(x0).

    Scale law: any common factor of x (with `x_scale`) and any unit of y.

    Source: the paper, Section 4 "Heat equation"; formulas and constants of its released settings, where A is 64 |T| for
    Fourier sums over 64 x 64 cells, that is 1 in each orthonormal mode.

    Args:
        noise: Noise in each cell of the residual over the residual's root mean square.
        amplitude: Expected size of each orthonormal mode of x - x0, in units of x_scale.
    """

    amplitude: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "amplitude", check_number("amplitude", self.amplitude, exclusive=True))

    def share(self, modes):
        """e^((a - 1) K)."""
        dtype = modes.per_unit.dtype
        with np.errstate(divide="ignore", over="ignore"):
            per_signal = tf.constant(1.0 / (self.amplitude * modes.signal), dtype)
        # Probabilities in single precision, in half the time: a mode that is signal for sure still gets all of e^K.
        per_noise = tf.cast(1.0 / tf.square(modes.noise), tf.float32)
        per_signal = tf.square(tf.cast(tf.minimum(per_signal / modes.per_unit, LARGEST_ROOT), tf.float32))
        # 1 - p, from the difference of the likelihoods' logarithms.
        improbable = tf.sigmoid(0.5 * modes.power * (per_signal - per_noise))
        improbable = tf.where(improbable > 1.0 - SURE, tf.maximum(improbable, 0.5), improbable)
        unexplained = modes.power * tf.minimum(per_signal, per_noise) > 2.0 * UNLIKELY
        improbable = tf.maximum(improbable, tf.cast(unexplained, tf.float32))
        return tf.cast(tf.exp(tf.constant(-2.0 * modes.exponent, tf.float32) * improbable), dtype)
