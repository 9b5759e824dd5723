"""The discrepancy principle: below the noise of y, a lower objective is a fit of noise."""

import numpy as np
import tensorflow as tf

from keras_sip.ops import batched
from keras_sip.simulators.abilities import Ability

# Random signs that tell how a simulator's own residual passes noise in y on; one is exact where entries do not mix.
PROBES = 4


def noise_objective(problem):
    """E 1/2 |e|^2 / m^2 `[B]` of the noise e that context["noise_level"] leaves in the residual, None where unknown.

    The level is one standard deviation of y for each example, or one for each datum. A residual of the simulator's own
    (sensor masks, weights) passes the noise on.

    Source: V. A. Morozov, Soviet Math. Dokl. 7 (1966); Engl, Hanke, Neubauer, Regularization of Inverse Problems,
    Section 4.3.

    Args:
        problem: An `InverseProblem` of unit m.
    """
    simulator, y, context = problem.simulator, problem.y_target, problem.context
    level = (context or {}).get("noise_level")
    if level is None or not simulator.is_least_squares:
        return None
    entries = level.shape[1:].num_elements()
    if entries not in (1, y.shape[1:].num_elements()):
        return None
    level = tf.reshape(level, [-1, *([1] * (y.shape.rank - 1) if entries == 1 else y.shape[1:])])
    level = tf.abs(tf.cast(level, y.dtype)) + tf.zeros_like(y)
    if not simulator.has(Ability.RESIDUAL):
        return _half_mean_square([level], problem.scale)
    signs = np.random.default_rng(29).choice([-1.0, 1.0], (PROBES, *y.shape[1:]))
    here = simulator.residual(y, y, context)
    moved = [simulator.residual(y + level * tf.constant(sign, y.dtype), y, context) - here for sign in signs]
    return _half_mean_square(moved, problem.scale)


def _half_mean_square(residuals, unit):
    return sum(0.5 * tf.square(batched.norm(residual) / unit) for residual in residuals) / len(residuals)
