"""What a trained network and a solver after it say of an observation: refined answers and error bars, as graphs."""

from typing import Any

import tensorflow as tf

from keras_sip.data import unless_bad, without_bad_examples
from keras_sip.simulators.base import split_observation
from keras_sip.solvers.base import SolverResult, Status
from keras_sip.training.network import ScaledNetwork
from keras_sip.training.physics import ScaledPhysics


def refined(physics: ScaledPhysics, network: ScaledNetwork, observation: Any, steps: tf.Tensor) -> SolverResult:
    """The network's answer after at most `steps` steps of the solver, in physical units; NaN for bad observations."""
    observation, good = without_bad_examples(observation)
    y_target, context = split_observation(observation)
    z, _ = network(observation, training=False)
    result = physics.compiled(physics.refine, physics.solver)(z, y_target, context, steps)
    return result._replace(
        x=unless_bad(good, physics.to_physical(result.x)),
        update=physics.to_physical(result.update),
        y=unless_bad(good, result.y),
        status=tf.where(good, result.status, int(Status.NON_FINITE)),
        objective=unless_bad(good, result.objective),
    )


def deviation(physics: ScaledPhysics, observation: Any, x: tf.Tensor) -> tf.Tensor:
    """Standard deviation of each component of x given y, P linearised at x, in physical units; NaN where x is."""
    (observation, x), good = without_bad_examples((observation, x))
    y_target, context = split_observation(observation)
    posterior = physics.posterior(physics.from_physical(x), y_target, context, 0)
    return unless_bad(good, posterior.stddev() + tf.zeros_like(x))


def posterior_tensors(
    physics: ScaledPhysics, network: ScaledNetwork, observation: Any, steps: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """The tensors of the `Posterior` found from the network's answer; the mean of a bad observation is NaN."""
    observation, good = without_bad_examples(observation)
    y_target, context = split_observation(observation)
    z, _ = network(observation, training=False)
    mean, *others = physics.posterior(z, y_target, context, steps).tensors
    return unless_bad(good, mean), *others
