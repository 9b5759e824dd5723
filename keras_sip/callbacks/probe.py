"""What a model makes of a fixed set of examples, measured between training steps."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.data import as_observation
from keras_sip.ops import batched
from keras_sip.simulators.base import split_observation

if TYPE_CHECKING:
    from keras_sip.training.model import SIPModel

# Enough for shares and norms; solvers cost many simulations an example.
SOLVED_EXAMPLES = 32


class Measured(NamedTuple):
    """Numbers by tag, and arrays of the examples; `update` and `x_true` may be None."""

    scalars: dict
    y_target: np.ndarray
    x: np.ndarray
    y: np.ndarray
    x_true: Any
    update: Any


class Probe:
    """Measures a `SIPModel` on fixed examples without touching its metrics, which belong to the training epoch.

    Args:
        model: A `SIPModel`.
        evaluation: (observation, x), or observation.
    """

    def __init__(self, model: "SIPModel", evaluation: Any) -> None:
        self.model = model
        observation, x_true = evaluation if isinstance(evaluation, tuple) else (evaluation, None)
        self.observation = as_observation(model.simulator, observation)
        self.x_true = None if x_true is None else model.simulator.as_x(x_true)
        self._answer = tf.function(self._answered, autograph=False)
        self._solve = tf.function(self._solved, autograph=False)

    def measure(self) -> Measured:
        # As `evaluate` does: curves and the table of a model say the same.
        self.model.measure_statistics()
        y_target, _ = split_observation(self.observation)
        x, y, loss = self._answer(self.observation)
        scalars = {"loss/evaluation": float(np.mean(loss))}
        if self.x_true is not None:
            scalars["x_error/evaluation"] = float(np.mean(self.model.simulator.distance(x, self.x_true)))
        update = None
        if self.model.solver is not None:
            first = tf.nest.map_structure(lambda entry: entry[:SOLVED_EXAMPLES], self.observation)
            solved, update = self._solve(first)
            scalars |= {tag: float(np.mean(value)) for tag, value in solved.items()}
            update = update.numpy()
        x_true = None if self.x_true is None else self.x_true.numpy()
        return Measured(scalars, y_target.numpy(), x.numpy(), y.numpy(), x_true, update)

    def _answered(self, observation):
        y_target, context = split_observation(observation)
        x = self.model(observation, training=False)
        y = self.model.simulator.forward(x, context)
        return x, y, self.model.physics.loss(y, y_target, context)

    def _solved(self, observation):
        y_target, context = split_observation(observation)
        physics = self.model.physics
        z, _ = self.model.scaled_network(observation, training=False)
        _, downhill, _ = physics.adjoint(z, y_target, context)
        y, result = physics.solve(z, y_target, context, self.model.method.solver)
        return {
            "solver/failed": tf.cast(result.failed, tf.float32),
            "solver/not_descending": tf.cast(
                physics.not_descending(z, y, result.update, y_target, context), tf.float32
            ),
            "solver/steps": result.num_steps,
            "norm/update": batched.rms(result.update),
            "norm/gradient": batched.rms(downhill),
        }, result.update
