"""How much of the way downhill in y training adds to the solver's update, and when."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_arguments, check_number, three_part
from keras_sip.ops import batched

Schedule = keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True)
class AdjointMix:
    """beta of `SIP(adjoint_mix=...)`: U becomes U + beta a |U| / |a|, a the downhill adjoint of back-propagation.

        SIP(adjoint_mix=1.0)                                            the same throughout
        SIP(adjoint_mix=PolynomialDecay(0.0, 1000, 1.0))                a Keras schedule: from 0 to 1 in 1,000 steps
        SIP(adjoint_mix=AdjointMix(1.0, below=0.5))                     0 at first, growing as updates get smaller
        SIP(adjoint_mix=AdjointMix(1.0, below=0.5, per_example=True))   the same of each example by itself

    Where P is linear, a is J^T J U: the network then descends the distance to its targets in a norm that counts what y
    sees the more. While predictions are far from their targets this holds up the error in x; `below` lets it wait:

        beta = size max(0, 1 - |U| / below)

    with |U| the root mean square of the update in units of x_scale, near 1 for an untrained network: that is how far
    the solver still sees the predictions from their solutions.

    Args:
        size: beta, a number or a Keras schedule of the training step.
        below: |U| from which on the adjoint takes part; None is throughout.
        per_example: Take |U| and |a| of each example, not of the batch as a whole.
    """

    size: float | keras.optimizers.schedules.LearningRateSchedule = 1.0
    _: dataclasses.KW_ONLY
    below: float | None = None
    per_example: bool = False

    def __new__(cls, *args: Any, **kwargs: Any):
        check_arguments(cls, args, kwargs)
        return super().__new__(cls)

    def __post_init__(self):
        if not isinstance(self.size, Schedule):
            check_number("size", self.size)
        if self.below is not None:
            check_number("below", self.below, exclusive=True)

    def added(self, update: tf.Tensor, downhill: tf.Tensor, step: Any) -> tf.Tensor:
        """beta a |U| / |a| for updates U and adjoints a `[B, *x_shape]`, `step` training steps having been taken."""
        of_update, of_downhill = (self._root_mean_square(entry) for entry in (update, downhill))
        if isinstance(self.size, Schedule):
            # Of float32, whatever the update is.
            schedule: Any = self.size
            beta = tf.cast(schedule(0 if step is None else step), update.dtype)
        else:
            beta = tf.constant(self.size, update.dtype)
        if self.below is not None:
            beta *= tf.maximum(1 - of_update / self.below, 0)
        return beta * tf.math.divide_no_nan(of_update, of_downhill) * downhill

    def get_config(self) -> dict:
        size = keras.saving.serialize_keras_object(self.size) if isinstance(self.size, Schedule) else self.size
        return {"size": size, "below": self.below, "per_example": self.per_example}

    @classmethod
    def from_config(cls, config: dict) -> "AdjointMix":
        size = config["size"]
        return cls(
            **{**config, "size": keras.saving.deserialize_keras_object(size) if isinstance(size, dict) else size}
        )

    def _root_mean_square(self, entry):
        return batched.expand(batched.rms(entry), entry) if self.per_example else batched.total_rms(entry)


def adjoint_mix(value: Any) -> AdjointMix | None:
    """The `AdjointMix` of an argument of `SIP`: a number, a Keras schedule or the object; None for 0.

    Raises:
        ValueError: It is none of them.
    """
    if isinstance(value, AdjointMix):
        return value
    if isinstance(value, Schedule):
        return AdjointMix(value)
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
        raise ValueError(
            three_part(
                "`adjoint_mix` to be a number, a Keras learning-rate schedule or a keras_sip.AdjointMix",
                f"adjoint_mix={value!r}",
                "Pass 1.0, say, or AdjointMix(1.0, below=0.5).",
            )
        )
    check_number("adjoint_mix", value)
    return AdjointMix(value) if value else None
