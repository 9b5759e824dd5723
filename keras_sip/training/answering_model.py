"""AnsweringModel: a network that answers inverse problems, with what a solver and a prior add to its answers."""

import os
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_sip.data import as_observation, as_observations, with_steps
from keras_sip.kernel_errors import explaining_kernel_errors
from keras_sip.networks.precision import with_precision
from keras_sip.simulators.base import Simulator, check_simulator_interface
from keras_sip.simulators.constrained import Constrained
from keras_sip.solvers.base import InverseSolver, SolverResult
from keras_sip.training.answers import Answers
from keras_sip.training.batch_statistics import MeasuredStatistics
from keras_sip.training.checks import check_network
from keras_sip.training.network import ScaledNetwork
from keras_sip.training.physics import ScaledPhysics

if TYPE_CHECKING:
    from keras_sip.solvers.posterior import Posterior

Format = Literal["tf_saved_model", "onnx", "litert"]


class AnsweringModel(keras.Model):
    """x = model(observation): the half of `SIPModel` that answers; how it is trained is said there.

    The network works in units near 1: its input is divided by `input_scale`, its output multiplied by `x_scale`. A
    non-finite observation is answered with NaN, and nothing else of its batch is touched.

    Args:
        network: A built Keras model from `simulator.network_input(observation)` to x.
        simulator: A `Simulator`.
        solver: An `InverseSolver`; "auto", the choice of `auto_solver`; None where nothing is to be refined.
        x_scale, input_scale, x_bijector, precision: As in `SIPModel`.

    Attributes:
        physics: The `ScaledPhysics` of simulator, x_scale and solver.
        scaled_network: The `ScaledNetwork`, from an observation to x in units of x_scale.
    """

    def __init__(
        self,
        network: keras.Model,
        simulator: Simulator,
        solver: InverseSolver | Literal["auto"] | None = None,
        *,
        x_scale: Any = None,
        input_scale: Any = None,
        x_bijector: Any = None,
        precision: Literal["float32", "mixed_bfloat16", "auto"] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        check_simulator_interface(simulator)
        # Saved with the simulator, and so no argument of a model that is loaded.
        simulator = simulator if x_bijector is None else Constrained(simulator, x_bijector)
        check_network(network, simulator)
        network = network if precision is None else with_precision(network, precision)
        # Keras casts inputs to its compute dtype unless told otherwise; observations keep the simulator's precision.
        super().__init__(name=name, **{"dtype": network.dtype_policy, "autocast": False, **kwargs})
        self.network = network
        self.simulator = simulator
        self.physics = ScaledPhysics(simulator, x_scale, solver)
        self.scaled_network = ScaledNetwork(network, self.physics, input_scale)
        self._answers = Answers(self.physics, self.scaled_network)
        self._statistics: MeasuredStatistics | None = None

    def call(self, observation, training=False):
        return self._answers.predicted(as_observation(self.simulator, observation), training=training)

    def predict(self, x: Any, *, batch_size: int | None = None, **kwargs: Any) -> np.ndarray:
        """Keras' predict: x `[N, *x_shape]` of observations, arrays or a dataset; NaN where one is not finite."""
        data = as_observations(self.simulator, x, batch_size=batch_size)
        return super().predict(self._ending(data, kwargs.get("steps")), **kwargs)

    def refine(
        self, observation: Any, max_steps: int = 10, *, return_stddev: bool = False
    ) -> SolverResult | tuple[SolverResult, tf.Tensor]:
        """The network's answer, improved by the solver; no example's objective gets worse.

        Where the problem is ill-posed, a lower objective in y can come with a larger error in x. An observation that
        is not finite is answered with NaN.

            result, stddev = model.refine(observation, return_stddev=True)

        Args:
            observation: y, or {"y", "context"}.
            max_steps: Of the solver.
            return_stddev: Also return the standard deviation of each component of x: that of the posterior with P
                linearised at the answer. What it takes and is worth: see `posterior`.

        Returns:
            A `SolverResult` in physical units, with y and, in float64, the objective; with `return_stddev` a pair of it
            and of the deviations `[B, *x_shape]`.
        """
        self.measure_statistics()
        observation = as_observation(self.simulator, observation)
        with explaining_kernel_errors(self.simulator):
            if return_stddev:
                return self._answers.refined_with_deviation(observation, max_steps)
            return self._answers.refined(observation, max_steps)

    def posterior(self, observation: Any, max_steps: int = 10) -> "Posterior":
        """What x may be, given the observation: a tensorflow-probability distribution around the refined answer.

            posterior = model.posterior(observation)
            x, error_bar = posterior.mean(), posterior.stddev()

        By the model's solver where it is a `MaximumAPosteriori`, else by one with a prior measured on the simulator's
        samples. The noise of y should be known: `context["noise_level"]`. `keras_sip.check_calibration` says whether
        error bars are right. An observation that is not finite has a mean of NaN.

        Args:
            observation: y, or {"y", "context"}.
            max_steps: Of the search for the most probable x, which starts at the network's answer.

        Returns:
            A `Posterior` in physical units.
        """
        self.measure_statistics()
        return self._answers.posterior(as_observation(self.simulator, observation), max_steps)

    def export(self, path: str | os.PathLike, *, format: Format = "tf_saved_model", **options: Any) -> None:
        """Write the model for serving: a SavedModel (signatures infer, simulate, refine, uncertainty), ONNX or LiteRT.

        Args:
            path: What does not exist yet: a folder, or with "onnx" and "litert" a file.
            format: "tf_saved_model", "onnx" or "litert".
            **options: Those of `keras_sip.export_saved_model`: jit_compile, title, facts, measured, observations,
                sign_with.
        """
        # Imported here: `export` is built on the models.
        from keras_sip.serving.export import export

        export(self, path, format=format, **options)

    def measure_statistics(self) -> None:
        """Measure batch norm's statistics with the weights of the moment, if training has changed these since.

        `evaluate`, `predict` and `refine` do it, and `fit` when it ends.
        """
        if self._statistics is not None:
            self._statistics.refresh(self)

    @property
    def solver(self) -> InverseSolver | None:
        """The inverse solver, or None."""
        return self.physics.solver

    @property
    def x_scale(self) -> np.ndarray:
        """Size of the components of x, by which the network's output is multiplied."""
        return self.physics.x_scale

    @property
    def input_scale(self) -> Any:
        """Size of the network's inputs by channel, by which they are divided; of several inputs a dict."""
        return self.scaled_network.input_scale

    def _ending(self, data, steps):
        """Data to evaluate or predict on, with batch norm's statistics made ready for it."""
        self.measure_statistics()
        return with_steps(data, steps, name="steps", steps_per_execution=self.steps_per_execution)
