"""The metrics of SIPModel: what each is named, and when it counts."""

import keras
import tensorflow as tf

# name: what it measures, for every example unless said otherwise.
MEASURED = {
    "loss": "objective L in y, summed over cells",
    "x_error": "simulator.distance(x, x_true), where x_true is given",
    "solver_steps": "steps that the solver took",
    "failed": "share of examples whose solver failed",
    "not_descending": "share of examples whose update does not lower L, measured every n-th step",
    "bad_input": "number of examples dropped because their observation was not finite",
    "update_norm": "root mean square of the update, in units of x_scale",
}


class SIPMetrics:
    """One Keras metric object for each name in `MEASURED`; Keras reads these, not what `train_step` returns."""

    def __init__(self):
        self.trackers = {
            name: keras.metrics.Sum(name=name) if name == "bad_input" else keras.metrics.Mean(name=name)
            for name in MEASURED
        }

    def update(self, values, weights):
        """Add per-example values `{name: [B]}` of the examples whose weight is above 0.

        A value that is not finite is left out, since one overflow would hide all others; where none is finite, the
        metric becomes NaN, so that a diverged network is seen.
        """
        counted = weights > 0
        for name, value in values.items():
            value = tf.cast(value, tf.float32)
            if name == "bad_input":
                self.trackers[name].update_state(value)
                continue
            finite = counted & tf.math.is_finite(value)
            lost = tf.reduce_any(counted) & ~tf.reduce_any(finite)
            self.trackers[name].update_state(
                tf.where(finite, value, tf.where(lost, float("nan"), 0.0)),
                sample_weight=tf.cast(finite | (lost & counted), tf.float32),
            )

    def results(self, names):
        return {name: self.trackers[name].result() for name in names}
