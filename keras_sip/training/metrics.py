"""The metrics of SIPModel: what each is named, when it counts, and how its values come about."""

from typing import Any

import keras
import tensorflow as tf

from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver
from keras_sip.training.methods import Batch, StepReport
from keras_sip.training.physics import ScaledPhysics

# name: what it measures, for every example unless said otherwise.
MEASURED = {
    "loss": "objective L in y, summed over cells",
    "x_error": "simulator.distance(x, x_true), where x_true is given",
    "x_error_scaled": "mean of |x - x_true| / x_scale, where x_true is given and `distance` is the default",
    "solver_steps": "steps that the solver took",
    "failed": "share of examples whose solver failed",
    "not_descending": "share of examples whose update does not lower L, measured every n-th step",
    "bad_input": "number of examples dropped because their observation was not finite",
    "update_norm": "root mean square of the update, in units of x_scale",
}

OF_SOLVER = ("solver_steps", "failed", "not_descending", "update_norm")


class SIPMetrics:
    """One Keras metric object for each name in `MEASURED`; Keras reads these, not what `train_step` returns.

    They are means over the examples, weighed with their sample weights, in float64, which holds L of y in any unit.
    """

    def __init__(self):
        self.trackers = {
            name: (keras.metrics.Sum if name == "bad_input" else keras.metrics.Mean)(name=name, dtype="float64")
            for name in MEASURED
        }
        self._reported = {}

    def record(self, phase: str, values: dict, weights: tf.Tensor, due: dict | None = None) -> dict:
        """`update`, and the results so far; `reported` of that phase are these."""
        self.update(values, weights, due)
        self._reported[phase] = tuple(values)
        return self.reported(phase)

    def reported(self, phase: str) -> dict:
        """{name: value so far} of what the last step of a phase measured."""
        return {name: self.trackers[name].result() for name in self._reported.get(phase, ("loss",))}

    def update(self, values: dict, weights: tf.Tensor, due: dict | None = None) -> None:
        """Add per-example values `{name: [B]}` of the examples whose weight is above 0.

        A value that is not finite is left out, since one overflow would hide all others; where none is finite, the
        metric becomes NaN, so that a diverged network is seen.

        Args:
            values: `{name: [B]}`.
            weights: `[B]`.
            due: {name: boolean scalar} of those that were not measured in every step.
        """
        due = due or {}
        # All means at once, `[names, B]`: beside a small network, metrics one by one cost as much as its layers.
        names = [name for name in values if name != "bad_input"]
        table = tf.stack([tf.cast(values[name], tf.float64) for name in names])
        counted = tf.stack([(weights > 0) & due.get(name, True) for name in names])
        finite = counted & tf.math.is_finite(table)
        weight = tf.where(finite, tf.cast(weights, tf.float64)[None], tf.zeros_like(table))
        counts = tf.reduce_sum(weight, axis=1)
        # The product of a chosen 0 and a NaN would be NaN.
        sums = tf.reduce_sum(weight * tf.where(finite, table, tf.zeros_like(table)), axis=1)
        lost = tf.reduce_any(counted, axis=1) & (counts == 0)
        averages = tf.where(lost, tf.constant(float("nan"), tf.float64), tf.math.divide_no_nan(sums, counts))
        counts = tf.where(lost, tf.ones_like(counts), counts)
        for name, average, count in zip(names, tf.unstack(averages), tf.unstack(counts), strict=True):
            self.trackers[name].update_state(average, sample_weight=count)
        if "bad_input" in values:
            self.trackers["bad_input"].update_state(tf.cast(values["bad_input"], tf.float64))


def of_prediction(physics: ScaledPhysics, batch: Batch, z: tf.Tensor, y: tf.Tensor) -> dict:
    """loss and, with labels, errors in x, of predictions z and P(z) = y: `{name: [B]}`."""
    values = {"loss": physics.loss(y, batch.y_target, batch.context)}
    if batch.z_true is not None:
        values["x_error"] = physics.scaled.distance(z, batch.z_true)
        if not physics.simulator.has("distance"):
            values["x_error_scaled"] = physics.simulator.distance(z, batch.z_true)
    return values


def of_update(
    physics: ScaledPhysics, batch: Batch, z: tf.Tensor, y: tf.Tensor, update: tf.Tensor, failed: tf.Tensor, steps: Any
) -> dict:
    """What is known of an update of z without simulating again: `{name: [B]}`."""
    size = update.shape[1:].num_elements() ** 0.5
    values = of_prediction(physics, batch, z, y) | {"failed": failed, "update_norm": batched.norm(update) / size}
    return values if steps is None else values | {"solver_steps": steps}


def of_training(physics: ScaledPhysics, batch: Batch, report: StepReport, due: dict) -> dict:
    """What a training step saw: `{name: [B]}`. Where a solver took part it is simulated again in steps that are due."""
    z, y, update, failed, steps = report
    values = of_update(physics, batch, z, y, update, failed, steps)
    if steps is None:
        return values
    values["not_descending"] = tf.cond(
        due["not_descending"],
        lambda: physics.not_descending(z, y, update, batch.y_target, batch.context),
        lambda: tf.zeros_like(failed),
    )
    return values


def of_solving(physics: ScaledPhysics, batch: Batch, z: tf.Tensor, solver: InverseSolver | None = None) -> dict:
    """What `solver`, by default the model's, makes of predictions z: `{name: [B]}`."""
    y, result = physics.solve(z, batch.y_target, batch.context, solver)
    values = of_update(physics, batch, z, y, result.update, result.failed, result.num_steps)
    worse = physics.not_descending(z, y, result.update, batch.y_target, batch.context)
    return values | {"not_descending": worse}
