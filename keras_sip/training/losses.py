"""Losses in y, computed in the precision of y, for functional models around SIPPhysicsLayer."""

import keras
import tensorflow as tf

from keras_sip.errors import check_choice, three_part
from keras_sip.simulators.base import check_simulator_interface

REDUCTIONS = ("sum_over_batch_size", "mean", "sum")


class _ObservationLoss(keras.losses.Loss):
    """A loss per example, reduced over the batch in y's own dtype (Keras would cast to float32)."""

    def __init__(self, reduction, name):
        super().__init__(name=name, reduction=check_choice("reduction", reduction, REDUCTIONS))

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_pred = tf.convert_to_tensor(y_pred)
        y_true = tf.convert_to_tensor(y_true)
        if y_true.dtype.size < y_pred.dtype.size:
            raise TypeError(
                three_part(
                    f"targets in the precision of y, {y_pred.dtype.name}",
                    f"dtype {y_true.dtype.name}",
                    "Feed them through keras_sip.from_arrays(...): Keras casts float64 arrays to float32.",
                )
            )
        losses = self.call(tf.cast(y_true, y_pred.dtype), y_pred)
        if sample_weight is not None:
            losses *= tf.reshape(tf.cast(sample_weight, losses.dtype), tf.shape(losses))
        if self.reduction == "sum":
            return tf.reduce_sum(losses)
        return tf.reduce_mean(losses) / tf.distribute.get_strategy().num_replicas_in_sync


@keras.saving.register_keras_serializable(package="keras_sip")
class HalfSumOfSquares(_ObservationLoss):
    """L = 1/2 sum (y - y*)^2 per example (Eq. 1), summed over cells.

    Args:
        reduction: Over the batch: "sum_over_batch_size" (the mean) or "sum".
    """

    def __init__(self, reduction="sum_over_batch_size", name="half_sum_of_squares"):
        super().__init__(reduction, name)

    def call(self, y_true, y_pred):
        return 0.5 * tf.reduce_sum(tf.square(y_pred - y_true), axis=list(range(1, y_pred.shape.rank)))


@keras.saving.register_keras_serializable(package="keras_sip")
class Objective(_ObservationLoss):
    """The simulator's own objective L(y, y*), for simulators that override `residual` or `objective`.

    Args:
        simulator: A `Simulator` whose objective needs no context.
        reduction: Over the batch: "sum_over_batch_size" (the mean) or "sum".
    """

    def __init__(self, simulator, reduction="sum_over_batch_size", name="objective"):
        super().__init__(reduction, name)
        self.simulator = check_simulator_interface(simulator)

    def call(self, y_true, y_pred):
        return self.simulator.objective(y_pred, y_true)

    def get_config(self):
        return {**super().get_config(), "simulator": keras.saving.serialize_keras_object(self.simulator)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "simulator": keras.saving.deserialize_keras_object(config["simulator"])})
