"""Training methods: what takes the place of the physics gradient, each a small object."""

import dataclasses
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.ops import batched


class Batch(NamedTuple):
    """One training batch as the methods see it; non-finite observations are zeros of weight 0 already.

    Attributes:
        observation: What the network is given.
        y_target, context: The observation's parts for the solver.
        z_true: True x in units of x_scale, or None.
        weight: `[B]`, the factor on each example's objective: sample weight and batch reduction.
    """

    observation: Any
    y_target: tf.Tensor
    context: Any
    z_true: Any
    weight: tf.Tensor


class Report(NamedTuple):
    """What a method saw, per example, for the metrics.

    Attributes:
        z: The prediction before the update, in units of x_scale.
        y: P at it.
        update: What the network was asked to move by, in units of x_scale.
        failed: Boolean `[B]`.
        solver_steps: int `[B]`, or None where no solver took part.
    """

    z: tf.Tensor
    y: tf.Tensor
    update: tf.Tensor
    failed: tf.Tensor
    solver_steps: Any = None


class TrainingMethod:
    """How a batch becomes an update of the network's weights.

    **Must override** `desired_update(model, batch, z) -> Report`: the change U of the prediction z that is asked for,
    for each example. The network then takes a step on 1/2 |z - (z0 + U)|^2, z0 + U a constant (Section 3.2).

    **May override** `train_step(model, batch) -> Report`, where one step on that loss is not what is wanted;
    `check(model)`, which refuses a model that lacks what the method needs; `needs_labels`; `optimizer_steps`, the
    number of optimizer steps in one training step.
    """

    needs_labels = False
    optimizer_steps = 1

    def check(self, model):
        """Refuse a model that lacks what the method needs."""

    def desired_update(self, model, batch, z):
        raise NotImplementedError(
            three_part(
                f"`{type(self).__name__}` to define `desired_update(self, model, batch, z)` or `train_step`",
                "a training method with neither",
                "Return a Report with the update that the prediction z should make.",
            )
        )

    def train_step(self, model, batch):
        with tf.GradientTape() as tape:
            z, penalties = model.predict_scaled(batch.observation, training=True)
        report = self.desired_update(model, batch, z)
        model.apply_update(tape, z, penalties, report.update, batch.weight)
        return report

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SIP(TrainingMethod):
    """The update of the model's inverse solver takes the place of the physics gradient (Eqs. 6 and 7).

    Args:
        step_size: Factor on U.
        updates_per_solve: Network updates towards one x_tilde = x0 + U before the solver is asked again (Theorem 3).
        sufficient_decrease: tau of Eq. 11, or None. With it, an example takes part in further updates of one solve only
            until its objective has fallen by tau/2 of L(x0), the stopping rule of Theorem 3 where L(x*) = 0.
    """

    step_size: float = 1.0
    updates_per_solve: int = 1
    sufficient_decrease: float | None = None

    def __post_init__(self):
        check_number("step_size", self.step_size, exclusive=True)
        check_positive_int("updates_per_solve", self.updates_per_solve)
        if self.sufficient_decrease is not None:
            check_number("sufficient_decrease", self.sufficient_decrease, exclusive=True, maximum=1.0)

    @property
    def optimizer_steps(self):
        return self.updates_per_solve

    def check(self, model):
        if model.solver is None:
            raise ValueError(
                three_part(
                    "a solver for method 'sip'",
                    "solver=None",
                    "Pass one, such as GaussNewton(), or choose method='adjoint'.",
                )
            )

    def desired_update(self, model, batch, z):
        y = model.simulate_scaled(z, batch.context)
        result = model.solve_scaled(z, batch.y_target, batch.context, y)
        return Report(z, y, self.step_size * result.update, result.failed, result.num_steps)

    def train_step(self, model, batch):
        report = super().train_step(model, batch)
        # Unrolled: an optimizer step inside a while_loop fails under replicas.
        for _ in range(self.updates_per_solve - 1):
            with tf.GradientTape() as tape:
                z, penalties = model.predict_scaled(batch.observation, training=True)
            # The part of U that is left, formed so that U itself is never rounded against x.
            left = report.update - (z - report.z)
            weight = batch.weight * self._unfinished(model, batch, report, z)
            model.apply_update(tape, z, penalties, left, weight)
        return report

    def _unfinished(self, model, batch, report, z):
        """1 for examples whose objective has not yet fallen enough, else 0, `[B]`."""
        if self.sufficient_decrease is None:
            return tf.ones_like(batch.weight)
        before = model.simulator.objective(report.y, batch.y_target, batch.context)
        now = model.simulator.objective(model.simulate_scaled(z, batch.context), batch.y_target, batch.context)
        reached = before - now >= 0.5 * self.sufficient_decrease * before
        return tf.cast(~reached, batch.weight.dtype)


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adjoint(TrainingMethod):
    """Back-propagation through the simulator: the network descends L itself (Eqs. 3 and 8)."""

    def desired_update(self, model, batch, z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = model.simulate_scaled(z, batch.context)
        gradient = model.simulator.objective_gradient(y, batch.y_target, batch.context)
        update = -tape.gradient(y, z, output_gradients=gradient, unconnected_gradients="zero")
        finite = batched.all_finite(update) & batched.all_finite(y)
        update = batched.where_example(finite, update, tf.zeros_like(update))
        return Report(z, y, update, ~finite)


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised(TrainingMethod):
    """Regression on known causes: 1/2 |x - x*|^2 (Eq. 4)."""

    needs_labels = True

    def desired_update(self, model, batch, z):
        update = batch.z_true - z
        finite = batched.all_finite(update)
        update = batched.where_example(finite, update, tf.zeros_like(update))
        return Report(z, model.simulate_scaled(z, batch.context), update, ~finite)


METHODS = {"sip": SIP, "adjoint": Adjoint, "supervised": Supervised}


def get(method):
    """The training method of a name ("sip", "adjoint", "supervised"), or the object itself."""
    if isinstance(method, TrainingMethod):
        return method
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]()
    raise ValueError(
        three_part(
            f"`method` to be one of {', '.join(map(repr, METHODS))}, or a TrainingMethod object",
            f"method={method!r}",
            "Choose a listed name, or pass an object such as SIP(updates_per_solve=4).",
        )
    )
