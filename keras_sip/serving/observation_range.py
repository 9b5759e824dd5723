"""Whether an observation is like those of the training: a flag beside every served answer."""

import numpy as np
import tensorflow as tf

from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.base import Simulator

# Of them one half finds the directions, the other half how far observations lie.
EXAMPLES, AT_A_TIME = 512, 64
COMPONENTS = 16
# Times as far as the farthest of the half that the directions were not fitted to.
FAR = 2.0
SEED = 20_221_128


class ObservationRange(tf.Module):
    """In range are observations y whose two distances from a sample of them are at most twice the largest seen.

    With the sample's mean m, its first principal components v_j (16 at most) and their deviations s_j:

        d_1^2 = sum_j ((y - m) . v_j / s_j)^2    (Mahalanobis' distance in what varies most)
        d_2   = |y - m - sum_j ((y - m) . v_j) v_j|    (what the components leave out)

    m, v and s are of one half of the sample, the largest distances of the other half, so that they are those of
    observations never seen. Of 256 such an observation like them is farther than all with a probability of 2/257 at
    most, whatever their distribution (split conformal prediction; Vovk et al. 2005, Section 4.1), and twice as far
    hardly ever. The flag tells of observations that are nothing like the training's; it promises no right answer.

    Args:
        y: The sample `[N, *y_shape]`; examples with a non-finite entry are left out.
    """

    def __init__(self, y: np.ndarray):
        super().__init__()
        flat = np.asarray(y, "float64").reshape(len(y), -1)
        flat = flat[np.isfinite(flat).all(axis=1)]
        # y may come in units of 1e-21.
        unit = max(np.max(np.abs(flat), initial=0.0), np.finfo(y.dtype).tiny)
        fitted, held_out = np.array_split(flat / unit, 2)
        mean = fitted.mean(axis=0)
        _, singular, directions = np.linalg.svd(fitted - mean, full_matrices=False)
        deviations = singular / np.sqrt(max(len(fitted) - 1, 1))
        rounding = np.sqrt(np.finfo(y.dtype).eps)
        kept = np.flatnonzero(deviations > rounding * deviations.max(initial=0.0))[:COMPONENTS]
        directions, deviations = directions[kept], deviations[kept]
        along, rest = _distances(held_out - mean, directions, deviations)
        smallest = rounding * np.max(np.linalg.norm(held_out - mean, axis=1), initial=0.0) + np.finfo(y.dtype).tiny
        self._unit = float(unit)
        # Variables: a SavedModel holds one copy of them, for all signatures.
        constants = (mean, directions.T, 1 / deviations, FAR * np.array([along.max(), max(rest.max(), smallest)]))
        self._variables = [tf.Variable(value, trainable=False, dtype=y.dtype) for value in constants]

    def __call__(self, y: tf.Tensor) -> tf.Tensor:
        """Boolean `[B]`; False where y is not finite."""
        mean, directions, precisions, largest = self._variables
        away = tf.reshape(y, (-1, mean.shape[0])) / tf.constant(self._unit, y.dtype) - mean
        along = away @ directions
        rest = away - tf.matmul(along, directions, transpose_b=True)
        distances = tf.stack([tf.norm(along * precisions, axis=1), tf.norm(rest, axis=1)], axis=1)
        # NaN is not at most anything.
        return tf.reduce_all(distances <= largest, axis=1)


def observation_range(simulator: Simulator, observations: np.ndarray | None = None) -> ObservationRange | None:
    """That of `observations`, or of the simulator's samples; None where there are neither."""
    if observations is not None:
        return ObservationRange(np.asarray(observations, simulator.dtype))
    if not simulator.has(Ability.SAMPLE):
        return None
    # Seeds that no training and no evaluation set takes.
    parts = [simulator.sample(AT_A_TIME, (SEED, start)) for start in range(0, EXAMPLES, AT_A_TIME)]
    return ObservationRange(np.concatenate([part["y"].numpy() for part in parts]))


def _distances(away, directions, deviations):
    along = away @ directions.T
    rest = away - along @ directions
    return np.linalg.norm(along / deviations, axis=1), np.linalg.norm(rest, axis=1)
