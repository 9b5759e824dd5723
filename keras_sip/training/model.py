"""SIPModel: a network that answers inverse problems, trained by SIP updates with Keras' fit."""

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_sip.data import as_batches, as_observation, unpack
from keras_sip.errors import check_choice, check_positive_int, three_part
from keras_sip.ops import batched
from keras_sip.simulators.base import check_simulator_interface, split_observation
from keras_sip.training import methods, weight_problem
from keras_sip.training.checks import RaiseOnFailure, check_distribution, check_network
from keras_sip.training.metrics import SIPMetrics
from keras_sip.training.network import ScaledNetwork
from keras_sip.training.physics import ScaledPhysics

REDUCTIONS = ("sum", "mean")
# An extra simulation every so many steps is below 1 % of a step's cost.
DESCENT_EVERY = 50


@keras.saving.register_keras_serializable(package="keras_sip")
class SIPModel(keras.Model):
    """x = model(observation): a network around a simulator, trained to solve P(x) = y*.

    `compile`, `fit`, `evaluate`, `predict` and `save` are Keras' own. `fit` takes observations, or (observation, x); x
    feeds the metric `x_error` only, except with method "supervised". There is no loss to choose: it is the simulator's
    objective.

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

    Attributes:
        physics: The `ScaledPhysics` of simulator, x_scale and solver.
        scaled_network: The `ScaledNetwork`, from an observation to x in units of x_scale.
    """

    def __init__(
        self,
        network,
        simulator,
        solver=None,
        method="sip",
        *,
        batch_reduction="mean",
        x_scale=None,
        input_scale=None,
        name=None,
        **kwargs,
    ):
        check_simulator_interface(simulator)
        check_network(network, simulator)
        # Keras casts inputs to its compute dtype unless told otherwise; observations keep the simulator's precision.
        super().__init__(name=name, **{"dtype": network.dtype_policy, "autocast": False, **kwargs})
        self.network = network
        self.simulator = simulator
        self.method = methods.get(method)
        self.batch_reduction = check_choice("batch_reduction", batch_reduction, REDUCTIONS)
        self.physics = ScaledPhysics(simulator, x_scale, self.method.solver if solver is None else solver)
        self.scaled_network = ScaledNetwork(network, self.physics, input_scale)
        self.method.check(self.physics)
        self._measured = SIPMetrics()
        self._reported = {}
        self._phase = "train"
        self._refining = functools.cache(self._refining_function)
        # Built here: a model trained by train_step alone would be saved without its optimizer.
        self.built = True

    # What the user calls ------------------------------------------------------------------------------------------

    def call(self, observation, training=False):
        z, _ = self.scaled_network(as_observation(self.simulator, observation), training=training)
        return self.physics.to_physical(z)

    def compile(
        self,
        optimizer="adam",
        *,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
        evaluate_solver=False,
    ):
        """Choose the optimizer; the loss is the simulator's objective.

        Args:
            optimizer: A Keras optimizer or its name, or one of `keras_sip.optimizers`.
            run_eagerly, steps_per_execution, auto_scale_loss: As in Keras. Small networks need many steps per
                execution.
            jit_compile: XLA for the whole step. "auto": the whole step on GPUs. On CPUs, where convolutions are slower
                under XLA, for simulators that gain by it (`prefers_xla`): the whole step of networks of dense layers,
                of others the physics and the solver. With a solver that is no single program (`LBFGS`) and such a
                network, physics and objective alone, also on GPUs.
            evaluate_solver: Let `evaluate` run the solver too and report `failed`, `not_descending` and the like.
        """
        optimizer = keras.optimizers.get(optimizer)
        check_distribution(self.distribute_strategy, optimizer, jit_compile)
        replicas = self.distribute_strategy.num_replicas_in_sync
        # Kept as it was asked for: a model saved on a CPU may be loaded on a GPU.
        self._jit_compile_asked = jit_compile
        if jit_compile == "auto" and not run_eagerly:
            jit_compile = self.physics.compiles_whole_step(self.network, replicas, self.method.solver)
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
        self._evaluate_solver = evaluate_solver

    def fit(self, x=None, y=None, *, batch_size=None, sample_weight=None, callbacks=None, **kwargs):
        """Keras' fit; arrays are checked first and keep the simulator's precision.

        Args:
            x: Observations (y, or {"y", "context"}) as arrays, or a `tf.data.Dataset` of observations or pairs.
            y: True causes as arrays, or None.
            batch_size, sample_weight, callbacks, **kwargs: As in Keras.
        """
        if kwargs.get("validation_split"):
            raise ValueError(
                three_part(
                    "validation_data rather than validation_split",
                    f"validation_split={kwargs['validation_split']}",
                    "Split the arrays yourself and pass validation_data=(observation, x).",
                )
            )
        validation = kwargs.get("validation_data")
        if isinstance(validation, (tuple, list)):
            kwargs["validation_data"] = as_batches(self.simulator, *validation, batch_size=batch_size)
        shuffle = kwargs.pop("shuffle", True)
        data = as_batches(self.simulator, x, y, sample_weight, batch_size=batch_size, shuffle=shuffle)
        callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks or ())
        solver = self.method.solver or self.solver
        if solver is not None and solver.on_failure == "raise":
            callbacks.append(RaiseOnFailure())
        # Shuffled already where it should be; Keras would warn that it cannot shuffle a dataset.
        return super().fit(data, callbacks=callbacks, shuffle=False, **kwargs)

    def evaluate(self, x=None, y=None, *, batch_size=None, sample_weight=None, **kwargs):
        """Keras' evaluate; arrays are checked first and keep the simulator's precision."""
        x = as_batches(self.simulator, x, y, sample_weight, batch_size=batch_size)
        phase, self._phase = self._phase, "test"
        try:
            return super().evaluate(x, **kwargs)
        finally:
            self._phase = phase

    def predict(self, x, *, batch_size=None, **kwargs):
        """Keras' predict: x `[N, *x_shape]` of observations, arrays or a `tf.data.Dataset`."""
        return super().predict(as_batches(self.simulator, x, batch_size=batch_size), **kwargs)

    def refine(self, observation, max_steps=10):
        """The network's answer, improved by the solver; no example's objective gets worse.

        Where the problem is ill-posed, a lower objective in y can come with a larger error in x.

        Returns:
            A `SolverResult` in physical units, with y, objective and optimality.
        """
        check_positive_int("max_steps", max_steps)
        result = self._refining(max_steps)(as_observation(self.simulator, observation))
        to_physical = self.physics.to_physical
        return result._replace(x=to_physical(result.x), update=to_physical(result.update))

    def export(self, path, *, format="tf_saved_model", **options):
        """Write the model for serving: a SavedModel with the signatures infer, simulate and refine, or ONNX.

        Args:
            path: What does not exist yet: a folder, or with "onnx" a file.
            format: "tf_saved_model" or "onnx".
            **options: Those of `keras_sip.export_saved_model`: jit_compile, title, facts, measured.
        """
        # Imported here: `export` is built on the models.
        from keras_sip.serving.export import export

        export(self, path, format=format, **options)

    @property
    def solver(self):
        """The inverse solver, or None."""
        return self.physics.solver

    @property
    def x_scale(self):
        """Size of the components of x, by which the network's output is multiplied."""
        return self.physics.x_scale

    @property
    def input_scale(self):
        """Size of the network's inputs by channel, by which they are divided."""
        return np.asarray(self.scaled_network.input_scale)

    # What Keras calls -------------------------------------------------------------------------------------------------

    def train_step(self, data):
        batch, sample_weight, values = self._unpack(data)
        if self.method.needs_labels and batch.z_true is None:
            raise ValueError(
                three_part(
                    f"true causes for method '{type(self.method).__name__}'",
                    "observations only",
                    "Fit on (observation, x), or choose method='sip'.",
                )
            )
        due = (self.optimizer.iterations // self.method.optimizer_steps) % DESCENT_EVERY == 0
        report = self._take_step(self.physics, self.scaled_network, batch)
        values |= self._values(batch, report.z, report.y)
        values |= {"failed": report.failed, "update_norm": batched.rms(report.update)}
        if report.solver_steps is None:
            return self._record("train", values, sample_weight)
        values["solver_steps"] = report.solver_steps
        values["not_descending"] = tf.cond(
            due,
            lambda: self._not_descending(batch, report.z, report.y, report.update),
            lambda: tf.zeros_like(sample_weight),
        )
        return self._record("train", values, sample_weight, due={"not_descending": due})

    def test_step(self, data):
        batch, sample_weight, values = self._unpack(data)
        z, _ = self.scaled_network(batch.observation, training=False)
        if not self._evaluate_solver or self.solver is None:
            values |= self._values(batch, z, self.physics.simulate(z, batch.context))
            return self._record("test", values, sample_weight)
        y, result = self.physics.solve(z, batch.y_target, batch.context, self.method.solver)
        values |= self._values(batch, z, y)
        values |= {"failed": result.failed, "solver_steps": result.num_steps, "update_norm": batched.rms(result.update)}
        values["not_descending"] = self._not_descending(batch, z, y, result.update)
        return self._record("test", values, sample_weight)

    @property
    def metrics(self):
        return list(self._measured.trackers.values())

    def get_metrics_result(self):
        return self._measured.results(self._reported.get(self._phase, ("loss",)))

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
            "input_scale": self.input_scale.tolist(),
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
        }

    def compile_from_config(self, config):
        self.compile(**{**config, "optimizer": keras.saving.deserialize_keras_object(config["optimizer"])})

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _refining_function(self, max_steps):
        """The network and the solver after it, as a graph: thousands of small operations, slow one by one."""

        def refine(z, y_target, context):
            return self.physics.refine(z, y_target, context, max_steps)

        @tf.function(reduce_retracing=True)
        def answer(observation):
            y_target, context = split_observation(observation)
            z, _ = self.scaled_network(observation, training=False)
            return self.physics.compiled(refine, self.solver)(z, y_target, context)

        return answer

    def _unpack(self, data):
        """The batch for the method, the sample weights `[B]` with 0 for bad input, and the first metrics."""
        observation, x, sample_weight, good = unpack(self.simulator, data)
        weight = sample_weight
        if self.batch_reduction == "mean":
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            weight /= tf.cast(tf.shape(weight)[0] * replicas, weight.dtype)
        z_true = None if x is None else self.physics.from_physical(x)
        batch = methods.Batch(observation, *split_observation(observation), z_true, weight)
        return batch, sample_weight, {"bad_input": ~good}

    def _values(self, batch, z, y):
        """loss and, with labels, x_error, per example."""
        values = {"loss": self.physics.objective(y, batch.y_target, batch.context)}
        if batch.z_true is not None:
            values["x_error"] = self.physics.scaled.distance(z, batch.z_true)
        return values

    def _not_descending(self, batch, z, y, update):
        worse = self.physics.not_descending(z, y, update, batch.y_target, batch.context)
        return tf.cast(worse, z.dtype)

    def _record(self, phase, values, sample_weight, due=None):
        """Add `values` to the metrics, and return the results of these."""
        self._measured.update(values, sample_weight, due)
        self._reported[phase] = tuple(values)
        return self._measured.results(self._reported[phase])
