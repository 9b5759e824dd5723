"""SIPModel: a network that answers inverse problems, trained by SIP updates with Keras' fit."""

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_sip.data import from_arrays, without_bad_examples
from keras_sip.errors import check_choice, check_positive_int, three_part
from keras_sip.ops import batched
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.base import (
    SCALE_SAMPLES,
    check_simulator_interface,
    join_observation,
    root_mean_square,
    split_observation,
)
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.training import methods, weight_problem
from keras_sip.training.checks import RaiseOnFailure, check_distribution, check_network, checked_solver
from keras_sip.training.metrics import SIPMetrics

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
        self._physics = Nondimensional(simulator, x_scale)
        self.solver = None if solver is None else checked_solver(solver, self._physics)
        self._input_scale = _measured_input_scale(simulator) if input_scale is None else input_scale
        self.method.check(self)
        self._measured = SIPMetrics()
        self._reported = {}
        self._phase = "train"
        self._refining = functools.cache(self._refining_function)
        # Built here: a model trained by train_step alone would be saved without its optimizer.
        self.built = True

    # What the user calls ------------------------------------------------------------------------------------------

    def call(self, observation, training=False):
        z, _ = self.predict_scaled(self._as_observation(observation), training=training)
        return self._physics.to_physical(z)

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
        self._compile_physics = jit_compile == "auto" and self.simulator.prefers_xla
        # Kept as it was asked for: a model saved on a CPU may be loaded on a GPU.
        self._jit_compile_asked = jit_compile
        if jit_compile == "auto" and not run_eagerly:
            jit_compile = self._whole_step_under_xla()
        self._take_step = weight_problem.training_step(self, self.method, optimizer)
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        # Variables made during the first step would have it traced twice.
        self.optimizer.build(self.trainable_variables)
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
            kwargs["validation_data"] = self._as_dataset(*validation, batch_size=batch_size)
        shuffle = kwargs.pop("shuffle", True)
        data = self._as_dataset(x, y, sample_weight, batch_size=batch_size, shuffle=shuffle)
        callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks or ())
        if self.solver is not None and self.solver.on_failure == "raise":
            callbacks.append(RaiseOnFailure())
        # Shuffled already where it should be; Keras would warn that it cannot shuffle a dataset.
        return super().fit(data, callbacks=callbacks, shuffle=False, **kwargs)

    def evaluate(self, x=None, y=None, *, batch_size=None, sample_weight=None, **kwargs):
        """Keras' evaluate; arrays are checked first and keep the simulator's precision."""
        x = self._as_dataset(x, y, sample_weight, batch_size=batch_size)
        phase, self._phase = self._phase, "test"
        try:
            return super().evaluate(x, **kwargs)
        finally:
            self._phase = phase

    def predict(self, x, *, batch_size=None, **kwargs):
        """Keras' predict: x `[N, *x_shape]` of observations, arrays or a `tf.data.Dataset`."""
        return super().predict(self._as_dataset(x, batch_size=batch_size), **kwargs)

    def refine(self, observation, max_steps=10):
        """The network's answer, improved by the solver; no example's objective gets worse.

        Where the problem is ill-posed, a lower objective in y can come with a larger error in x.

        Returns:
            A `SolverResult` in physical units, with y, objective and optimality.
        """
        if self.solver is None:
            raise ValueError(
                three_part("a model with a solver", "solver=None", "Make the model with one, such as GaussNewton().")
            )
        check_positive_int("max_steps", max_steps)
        observation = self._as_observation(observation)
        result = self._refining(max_steps)(observation)
        to_physical = self._physics.to_physical
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
    def x_scale(self):
        """Size of the components of x, by which the network's output is multiplied."""
        return self._physics.scale

    @property
    def input_scale(self):
        """Size of the network's inputs by channel, by which they are divided."""
        return np.asarray(self._input_scale)

    # What the training methods call ---------------------------------------------------------------------------------

    def predict_scaled(self, observation, *, training):
        """(z, penalties): the network's x in units of x_scale, and its weight penalties."""
        inputs = self.simulator.network_input(observation)
        inputs = inputs / tf.cast(self._input_scale, inputs.dtype)
        z = tf.cast(self.network(inputs, training=training), self.simulator.dtype)
        penalties = list(self.network.losses)
        if self.simulator.has(Ability.PROJECT):
            z = self._physics.project(z, observation)
        return z, penalties

    def simulate_scaled(self, z, context):
        """P at z `[B, *y_shape]`."""
        return self._compiled(self._physics.forward)(z, context)

    def solve_scaled(self, z, y_target, context, solver=None):
        """(y, result): P at z, and what `solver`, by default the model's, makes of z; in units of x_scale.

        One program for both, if the solver allows it: what they have in common is computed once.
        """
        solver = solver or self.solver
        forward = self._physics.forward if solver.compiles_as_one else self.simulate_scaled

        def solve(z, y_target, context):
            y = forward(z, context)
            return y, solver.solve(self._physics, z, y_target, context, y0=y)

        return self._compiled(solve, solver)(z, y_target, context)

    def apply_update(self, tape, z, penalties, update, weight):
        """One optimizer step on sum_i weight_i 1/2 |z_i - (z_i + U_i)|^2, plus the network's penalties.

        `update` enters as the cotangent of z: formed as a loss, a small U would be lost in z + U.
        """
        variables = self.trainable_variables
        scale = self.optimizer.scale_loss(tf.ones([]))
        cotangent = -update * batched.expand(weight * tf.cast(scale, z.dtype), update)
        gradients = tape.gradient(
            [z, *penalties],
            variables,
            output_gradients=[cotangent, *(tf.cast(scale, penalty.dtype) for penalty in penalties)],
        )
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))

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
        report = self._take_step(self, batch)
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
        z, _ = self.predict_scaled(batch.observation, training=False)
        if not self._evaluate_solver or self.solver is None:
            values |= self._values(batch, z, self.simulate_scaled(z, batch.context))
            return self._record("test", values, sample_weight)
        y, result = self.solve_scaled(z, batch.y_target, batch.context)
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

        def solve(z, y_target, context):
            return self.solver.refine(self._physics, z, y_target, context, steps=max_steps)

        @tf.function(reduce_retracing=True)
        def refine(observation):
            y_target, context = split_observation(observation)
            z, _ = self.predict_scaled(observation, training=False)
            return self._compiled(solve, self.solver)(z, y_target, context)

        return refine

    def _compiled(self, function, solver=None):
        """The physics under XLA of its own, where the simulator gains by it and the whole step is not compiled."""
        as_one = solver is None or solver.compiles_as_one
        if as_one and self.compiled and self._compile_physics and not (self.jit_compile or self.run_eagerly):
            return tf.function(function, jit_compile=True)
        return function

    def _whole_step_under_xla(self):
        """True, False, or "auto", Keras' own choice."""
        is_dense = all(len(weight.shape) <= 2 for weight in self.network.trainable_variables)
        if self.simulator.prefers_xla and is_dense and self.distribute_strategy.num_replicas_in_sync == 1:
            # On CPUs too (benchmarks/sine_step.py).
            return True
        return "auto" if self.solver is None or self.solver.compiles_as_one else False

    def _as_observation(self, observation):
        y, context = split_observation(observation)
        return join_observation(self.simulator.as_y(y, name="y"), self.simulator.as_context(context))

    def _as_dataset(self, observation, x=None, sample_weight=None, *, batch_size=None, shuffle=False):
        """Arrays as checked batches in the simulator's precision; a dataset, or anything else Keras reads, as it is."""
        if not isinstance(observation, (np.ndarray, tf.Tensor, dict, list)):
            return observation
        y, context = split_observation(observation)
        return from_arrays(self.simulator, y, x, context, sample_weight, batch_size=batch_size or 32, shuffle=shuffle)

    def _unpack(self, data):
        """The batch for the method, the sample weights `[B]` with 0 for bad input, and the first metrics."""
        observation, x, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        observation, good = without_bad_examples(self._as_observation(observation))
        y, context = split_observation(observation)
        labelled = x is not None and not isinstance(x, tuple)
        z_true = self._physics.from_physical(self.simulator.as_x(x)) if labelled else None

        weight = tf.cast(good, y.dtype)
        if sample_weight is not None:
            weight *= tf.reshape(tf.cast(sample_weight, y.dtype), tf.shape(weight))
        sample_weight = weight
        if self.batch_reduction == "mean":
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            weight /= tf.cast(tf.shape(weight)[0] * replicas, weight.dtype)
        return methods.Batch(observation, y, context, z_true, weight), sample_weight, {"bad_input": ~good}

    def _values(self, batch, z, y):
        """loss and, with labels, x_error, per example."""
        values = {"loss": self.simulator.objective(y, batch.y_target, batch.context)}
        if batch.z_true is not None:
            values["x_error"] = self._physics.distance(z, batch.z_true)
        return values

    def _not_descending(self, batch, z, y, update):
        """1 where the objective at z + update is not below that at z, `[B]`."""
        after = self.simulate_scaled(z + update, batch.context)
        before, after = (self.simulator.objective(value, batch.y_target, batch.context) for value in (y, after))
        return tf.cast(~(after < before), before.dtype)

    def _record(self, phase, values, sample_weight, due=None):
        """Add `values` to the metrics, and return the results of these."""
        self._measured.update(values, sample_weight, due)
        self._reported[phase] = tuple(values)
        return self._measured.results(self._reported[phase])


def _measured_input_scale(simulator):
    """Root mean square of the network's inputs by channel, on samples; 1 where there are none."""
    if not simulator.has(Ability.SAMPLE):
        return 1.0
    sample = simulator.sample(SCALE_SAMPLES, (0, 0))
    return root_mean_square(simulator.network_input(join_observation(sample["y"], sample.get("context"))))
