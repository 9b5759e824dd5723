"""What a trained network, and a solver after it, say of an observation: x, refined answers and error bars."""

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_sip._on_use import posteriors
from keras_sip.data import unless_bad, without_bad_examples
from keras_sip.errors import check_positive_int
from keras_sip.simulators.base import split_observation
from keras_sip.solvers.base import SolverResult, Status
from keras_sip.solvers.maximum_a_posteriori import posterior_solver
from keras_sip.training.network import ScaledNetwork
from keras_sip.training.physics import ScaledPhysics

if TYPE_CHECKING:
    from keras_sip.solvers.posterior import Posterior


class Answers:
    """Answers in physical units to observations in the simulator's precision; NaN where one is not finite.

    Args:
        physics: Simulator and solver.
        network: From an observation to x in units of x_scale.
    """

    def __init__(self, physics: ScaledPhysics, network: ScaledNetwork):
        self._physics, self._network = physics, network
        # As graphs: thousands of small operations, slow one by one.
        self._refined = tf.function(self._refined_by_solver, reduce_retracing=True, autograph=False)
        self._posterior = tf.function(self._posterior_tensors, reduce_retracing=True, autograph=False)
        self._deviation = tf.function(self._posterior_deviation, reduce_retracing=True, autograph=False)

    def predicted(self, observation: Any, *, training: bool = False) -> tf.Tensor:
        """The network's x `[B, *x_shape]`."""
        observation, good = without_bad_examples(observation)
        z, _ = self._network(observation, training=training)
        return unless_bad(good, self._physics.to_physical(z))

    def refined(self, observation: Any, max_steps: int) -> SolverResult:
        """The network's answer after at most `max_steps` steps of the solver."""
        return self._refined(observation, tf.constant(check_positive_int("max_steps", max_steps)))

    def refined_with_deviation(self, observation: Any, max_steps: int) -> tuple[SolverResult, tf.Tensor]:
        """The same, and the standard deviation of each component of x given y, P linearised at the answer."""
        self._solver_of_posterior()
        result = self.refined(observation, max_steps)
        return result, self._deviation(observation, result.x)

    def posterior(self, observation: Any, max_steps: int) -> "Posterior":
        """The `Posterior` around what is found from the network's answer in at most `max_steps` steps."""
        check_positive_int("max_steps", max_steps)
        solver = self._solver_of_posterior()
        tensors = self._posterior(observation, tf.constant(max_steps))
        return posteriors.Posterior(*tensors, prior=solver.prior_of_posterior(self._physics.simulator))

    def _solver_of_posterior(self):
        solver = posterior_solver(self._physics.solver)
        solver.check(self._physics.simulator)
        return solver

    def _refined_by_solver(self, observation, steps):
        physics = self._physics
        observation, good = without_bad_examples(observation)
        y_target, context = split_observation(observation)
        z, _ = self._network(observation, training=False)
        result = physics.compiled(physics.refine, physics.solver)(z, y_target, context, steps)
        return result._replace(
            x=unless_bad(good, physics.to_physical(result.x)),
            update=physics.to_physical(result.update),
            y=unless_bad(good, result.y),
            status=tf.where(good, result.status, int(Status.NON_FINITE)),
            objective=unless_bad(good, result.objective),
        )

    def _posterior_tensors(self, observation, steps):
        observation, good = without_bad_examples(observation)
        y_target, context = split_observation(observation)
        z, _ = self._network(observation, training=False)
        mean, *others = self._physics.posterior(z, y_target, context, steps).tensors
        return unless_bad(good, mean), *others

    def _posterior_deviation(self, observation, x):
        physics = self._physics
        (observation, x), good = without_bad_examples((observation, x))
        y_target, context = split_observation(observation)
        posterior = physics.posterior(physics.from_physical(x), y_target, context, 0)
        return unless_bad(good, posterior.stddev() + tf.zeros_like(x))
