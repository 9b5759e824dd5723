"""SIPModel: a network that answers inverse problems, trained by SIP updates with Keras' fit."""

from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_sip.data import as_batches, fit_data
from keras_sip.errors import check_choice
from keras_sip.kernel_errors import explaining_kernel_errors
from keras_sip.simulators.base import Simulator
from keras_sip.solvers.base import InverseSolver
from keras_sip.training import methods, metrics, weight_problem
from keras_sip.training.answering_model import AnsweringModel
from keras_sip.training.batch_statistics import MeasuredStatistics
from keras_sip.training.checks import RaiseOnFailure, check_distribution, check_fit
from keras_sip.training.executions import Executions
from keras_sip.training.network import updates_of
from keras_sip.training.xla_trial import XlaTrial

REDUCTIONS = ("sum", "mean")
# An extra simulation every so many steps is below 1 % of a step's cost.
DESCENT_EVERY = 50


@keras.saving.register_keras_serializable(package="keras_sip")
class SIPModel(AnsweringModel):
    """x = model(observation): a network around a simulator, trained to solve P(x) = y*.

    `compile`, `fit`, `evaluate`, `predict` and `save` are Keras' own; `predict`, `refine`, `posterior` and `export` are
    those of `AnsweringModel`. `fit` takes observations, or (observation, x); x feeds the metric `x_error` only, except
    with method "supervised" and `SupervisedThenSIP`. There is no loss to choose: it is the simulator's objective.

    The network works in units near 1: its input is divided by `input_scale`, its output multiplied by `x_scale`.

    A non-finite observation is replaced by zeros before the network, has weight 0 and is counted in `bad_input`.

    Metrics: see `keras_sip.training.metrics.MEASURED`. `evaluate` does not run the solver unless
        `compile(evaluate_solver=True)`.

    Args:
        network: A built Keras model from `simulator.network_input(observation)` to x.
        simulator: A `Simulator`.
        solver: An `InverseSolver`; "auto", the choice of `auto_solver`; None for methods that need none.
        method: "sip", "adjoint", "supervised", or a `TrainingMethod`.
        batch_reduction: "mean" or "sum" of the examples' objectives over the batch; rates of SGD depend on it.
        x_scale: Size of the components of x, broadcast against `[B, *x_shape]`. None takes the simulator's; 1 is off.
        input_scale: Size of the network's inputs by channel. None measures it on the simulator's samples, where it has
            them; 1 is off (the paper's setting).
        x_bijector: g of a positive or bounded x = g(u), a `tfp.bijectors.Bijector`: short for the simulator
            `Constrained(simulator, x_bijector)`. Data, answers and posteriors of the model are then those of u;
            `model.simulator.to_physical(u)` is x, `model.simulator.from_physical(x)` the label of an x.
        precision: Of the network: None as it was built, else that of `with_precision`, whose copy is then `network`.

    Attributes:
        physics: The `ScaledPhysics` of simulator, x_scale and solver.
        scaled_network: The `ScaledNetwork`, from an observation to x in units of x_scale.
    """

    def __init__(
        self,
        network: keras.Model,
        simulator: Simulator,
        solver: InverseSolver | Literal["auto"] | None = None,
        method: str | methods.TrainingMethod = "sip",
        *,
        batch_reduction: Literal["sum", "mean"] = "mean",
        x_scale: Any = None,
        input_scale: Any = None,
        x_bijector: Any = None,
        precision: Literal["float32", "mixed_bfloat16", "auto"] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        method = methods.get(method)
        solver = method.solver if solver is None else solver
        units = {"x_scale": x_scale, "input_scale": input_scale, "x_bijector": x_bijector}
        super().__init__(network, simulator, solver, **units, precision=precision, name=name, **kwargs)
        self.method = method
        self.batch_reduction = check_choice("batch_reduction", batch_reduction, REDUCTIONS)
        self.method.check(self.physics)
        self._measured, self._phase = metrics.SIPMetrics(), "train"
        # Built here: a model trained by train_step alone would be saved without its optimizer.
        self.built = True

    # What the user calls ------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        *,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | Literal["auto"] = "auto",
        auto_scale_loss: bool = True,
        evaluate_solver: bool = False,
        batch_statistics: Literal["measured", "moving"] = "measured",
    ):
        """Choose the optimizer; the loss is the simulator's objective.

        Args:
            optimizer: A Keras optimizer or its name, or one of `keras_sip.optimizers`.
            run_eagerly, steps_per_execution, auto_scale_loss: As in Keras. Small networks need many steps per
                execution.
            jit_compile: XLA for the whole step; "auto" decides as `ScaledPhysics` says.
            evaluate_solver: Let `evaluate` run the solver too and report `failed`, `not_descending` and the like.
            batch_statistics: What batch norm uses in inference: "measured", on the first batches that `fit` trains on,
                with the weights of the moment; "moving", Keras' moving averages.
        """
        optimizer = keras.optimizers.get(optimizer)
        check_distribution(self.distribute_strategy, optimizer, jit_compile)
        replicas = self.distribute_strategy.num_replicas_in_sync
        # Kept as it was asked for: a model saved on a CPU may be loaded on a GPU.
        self._jit_compile_asked = jit_compile
        if jit_compile == "auto" and not run_eagerly:
            jit_compile = self._whole_step if _compiles(optimizer) else False
        self._take_step = weight_problem.training_step(
            self.physics, self.scaled_network, self.method, optimizer, replicas
        )
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        # Variables made during the first step would have it traced twice.
        self.optimizer.build(self.trainable_variables)
        self.scaled_network.optimizer = self.optimizer
        self.physics.compile_alone(self._jit_compile_asked == "auto" and not (self.jit_compile or run_eagerly))
        self._executions = Executions(self)
        self._evaluate_solver = evaluate_solver
        self._batch_statistics = check_choice("batch_statistics", batch_statistics, ("measured", "moving"))

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        batch_size: int | None = None,
        sample_weight: Any = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Keras' fit; arrays are checked first and keep the simulator's precision.

        Args:
            x: Observations (y, or {"y", "context"}) as arrays of any kind, or a dataset (`tf.data`, `PyDataset`) of
                batches: observation, (observation, x) or (observation, x, sample_weight).
            y: True causes as arrays, or None.
            batch_size, sample_weight, callbacks, **kwargs: As in Keras. Endless data need `steps_per_epoch`.
        """
        check_fit(kwargs)
        options = {**kwargs, "batch_size": batch_size}
        together = {"steps_per_execution": self.steps_per_execution}
        data, options = fit_data(self.simulator, x, y, sample_weight, options, **together)
        callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks or ())
        measured = self._batch_statistics == "measured"
        self._statistics = MeasuredStatistics.of_fit(self, data, callbacks) if measured else None
        trial = XlaTrial.of_fit(self, data) if self._jit_compile_asked == "auto" else None
        callbacks = [self._statistics, *callbacks, RaiseOnFailure.of_fit(self), trial]
        with explaining_kernel_errors(self.simulator), self._executions.of_fit(x, data, options) as data:
            return super().fit(data, callbacks=[each for each in callbacks if each is not None], **options)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        *,
        batch_size: int | None = None,
        sample_weight: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> dict | list:
        """Keras' evaluate, on what `fit` takes: {name: value}, or the values of `metrics_names`, NaN without labels."""
        data = as_batches(self.simulator, x, y, sample_weight, batch_size=batch_size)
        data = self._ending(data, kwargs.get("steps"))
        phase, self._phase = self._phase, "test"
        try:
            with explaining_kernel_errors(self.simulator):
                measured = super().evaluate(data, return_dict=True, **kwargs)
        finally:
            self._phase = phase
        return measured if return_dict else [measured.get(name, np.nan) for name in self.metrics_names]

    def prefer_xla(self, faster: bool) -> None:
        """Compile as for a simulator that is, or is not, faster under XLA; a fit that goes on takes it up."""
        self.physics.prefers_xla = faster
        if faster:
            self.jit_compile = self._whole_step is True and _compiles(self.optimizer)
            self.physics.compile_alone(not self.jit_compile)
            self.make_train_function(force=True)

    @property
    def training_steps(self) -> int:
        """Training steps taken with this optimizer."""
        return int(updates_of(self.optimizer)) // self.method.optimizer_steps

    # What Keras calls -------------------------------------------------------------------------------------------------

    def train_step(self, data):
        batch, sample_weight, bad = methods.as_batch(self.physics, data, self.batch_reduction)
        if batch.z_true is None:
            # Asked while the step is traced, when the count has a value only outside of the graph.
            with tf.init_scope():
                self.method.check_unlabelled(self.training_steps)
        step = tf.convert_to_tensor(updates_of(self.optimizer)) // self.method.optimizer_steps
        batch = batch._replace(step=step)
        due = {"not_descending": step % DESCENT_EVERY == 0}
        report = self._take_step(self.physics, self.scaled_network, batch)
        values = metrics.of_training(self.physics, batch, report, due)
        return self._measured.record("train", bad | values, sample_weight, due)

    def test_step(self, data):
        batch, sample_weight, bad = methods.as_batch(self.physics, data, self.batch_reduction)
        z, _ = self.scaled_network(batch.observation, training=False)
        if self._evaluate_solver and self.solver is not None:
            values = metrics.of_solving(self.physics, batch, z, self.method.solver)
        else:
            values = metrics.of_prediction(self.physics, batch, z, self.physics.simulate(z, batch.context))
        return self._measured.record("test", bad | values, sample_weight)

    @property
    def metrics(self):
        return list(self._measured.trackers.values())

    @property
    def metrics_names(self):
        """Names of the values of `evaluate`."""
        return [name for name in metrics.MEASURED if self._evaluate_solver or name not in metrics.OF_SOLVER]

    def get_metrics_result(self):
        return self._measured.reported(self._phase)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "network": serialize(self.network),
            "simulator": serialize(self.simulator),
            "solver": None if self.solver is None else serialize(self.solver),
            "method": serialize(self.method),
            "batch_reduction": self.batch_reduction,
            "x_scale": self.x_scale.tolist(),
            "input_scale": tf.nest.map_structure(np.ndarray.tolist, self.input_scale),
        }

    @classmethod
    def from_config(cls, config):
        config = {**config, "method": methods.moved_to_solver(config["method"], config["solver"])}
        nested = ("network", "simulator", "solver", "method")
        restored = {name: keras.saving.deserialize_keras_object(config[name]) for name in nested if config[name]}
        return cls(**{**config, **restored})

    def get_compile_config(self):
        if not self.compiled:
            return {}
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self.steps_per_execution,
            "jit_compile": self._jit_compile_asked,
            "evaluate_solver": self._evaluate_solver,
            "batch_statistics": self._batch_statistics,
        }

    def compile_from_config(self, config):
        self.compile(**{**config, "optimizer": keras.saving.deserialize_keras_object(config["optimizer"])})

    # Helpers ----------------------------------------------------------------------------------------------------------

    @property
    def _whole_step(self):
        replicas = self.distribute_strategy.num_replicas_in_sync
        return self.physics.compiles_whole_step(self.network, replicas, self.method.solver)


def _compiles(optimizer):
    """Whether the optimizer's own arithmetic is as good under XLA."""
    return getattr(optimizer, "compiles", True)
