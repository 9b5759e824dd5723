"""Observations as instruments give them: noisy, blurred, with sensors that fail."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_number, three_part
from keras_sip.ops import batched, random_fields
from keras_sip.ops.blur import gaussian_blur
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.base import Context, Simulator, join_observation, split_observation
from keras_sip.simulators.wrapper import SimulatorWrapper

# Bounds of each degradation's level.
LEVELS = {"noise": None, "multiplicative_noise": None, "missing_sensors": 0.99, "low_pass": None}
# The stream of random numbers of each degradation, counted from the example's seed; x draws from the seed itself. Never
# renumbered: a new degradation takes a new number, and leaves the data of the others as they are.
STREAMS = {"noise": 1001, "multiplicative_noise": 1002, "missing_sensors": 1003, "low_pass": 1004}


@keras.saving.register_keras_serializable(package="keras_sip")
class Degraded(SimulatorWrapper):
    """The process of another simulator, seen through an imperfect instrument.

    `sample` gives the same x as the wrapped simulator, and in this order makes of its y:

        y <- G_s * y                            low_pass = s: Gaussian average, s in cells of each spatial axis
        y <- y (1 + multiplicative_noise n)     n standard normal, one for each sensor
        y <- y + noise rms(y) n                 rms over the example's sensors, before any noise
        y <- mask y                             missing_sensors: fraction of the sensors that do not work

    Physics and solvers stay those of the wrapped simulator, and learn about the instrument from the context:
    `context["noise_level"]` `[B]`, one standard deviation of both noises together in the units of y; and
    `context["sensor_mask"]` `[B, *y_shape]`, 1 where a sensor works, if sensors may be missing or the wrapped simulator
    has `sensors` at some places only. A missing sensor has no residual; `inverse` puts the simulated value in its
    place. A low-pass is not told: it tests how solvers and networks bear a model that is not quite right.

    The network sees the observation with 0 for missing sensors; `project` sees the mean of the others there.

    Each level is a number, or a pair (low, high) from which every example draws its own. Random numbers are a function
    of the seed alone, eagerly, in graphs and under XLA, apart from those of x; each degradation has its own, which do
    not depend on the others.

    Args:
        simulator: The simulator to wrap.
        noise: Standard deviation over the root mean square of each example's y.
        multiplicative_noise: Standard deviation of each sensor's factor.
        missing_sensors: Fraction of the sensors that do not work, below 1.
        low_pass: Width of the Gaussian in cells; needs y of shape `[*resolution, C]`.

    Raises:
        ValueError: A level below 0, a pair that descends, a low-pass without spatial axes.
    """

    adds_abilities = False

    def __init__(
        self,
        simulator: Simulator,
        *,
        noise: Any = 0.0,
        multiplicative_noise: Any = 0.0,
        missing_sensors: Any = 0.0,
        low_pass: Any = 0.0,
    ):
        super().__init__(simulator)
        given = {
            "noise": noise,
            "multiplicative_noise": multiplicative_noise,
            "missing_sensors": missing_sensors,
            "low_pass": low_pass,
        }
        self.levels = {name: _checked_level(name, value) for name, value in given.items()}
        if self._is_on("low_pass") and len(self.y_shape) < 2:
            raise ValueError(
                three_part(
                    "y of shape [*resolution, channels] for a low-pass",
                    f"y_shape={self.y_shape} of {simulator!r}",
                    "Leave low_pass out: sensors without an order have no neighbours to average with.",
                )
            )

    @property
    def context_shape(self):
        known = self.physical.context_shape
        if known is None:
            return None
        masks = {"sensor_mask": self.y_shape} if self.is_masked else {}
        return {**known, "noise_level": (), **masks}

    @property
    def diagonal_form(self):
        """That of the wrapped simulator, unless missing sensors mix the modes."""
        return None if self.is_masked else self.physical.diagonal_form

    @property
    def is_masked(self) -> bool:
        """Whether there are entries of y without a working sensor."""
        return self._is_on("missing_sensors") or self.physical.sensors is not None

    def degrade(self, y: tf.Tensor, context: Context, seed: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """(y, context) as the instrument gives them, of clean ones; a function of the seed alone.

        Args:
            y: `[B, *y_shape]`.
            context: What is known already, a dict or None.
            seed: Two integers, as of `sample`.
        """
        seeds = {name: random_fields.fold_in(seed, stream) for name, stream in STREAMS.items()}
        level = {name: self._draw_level(name, tf.shape(y)[0], seeds[name], y.dtype) for name in LEVELS}
        if self._is_on("low_pass"):
            y = gaussian_blur(y, level["low_pass"])
        size = self._rms_of_sensors(y)
        if self._is_on("multiplicative_noise"):
            factor = random_fields.normal(tf.shape(y), seeds["multiplicative_noise"], dtype=y.dtype)
            y *= 1.0 + batched.expand(level["multiplicative_noise"], y) * factor
        if self._is_on("noise"):
            noise = random_fields.normal(tf.shape(y), seeds["noise"], dtype=y.dtype)
            y += batched.expand(level["noise"] * size, y) * noise
        both = tf.sqrt(tf.square(level["noise"]) + tf.square(level["multiplicative_noise"]))
        context = {**(context or {}), "noise_level": both * size}
        if self.is_masked:
            drawn = random_fields.uniform(tf.shape(y), seeds["missing_sensors"], dtype=y.dtype)
            mask = tf.cast(drawn >= batched.expand(level["missing_sensors"], y), y.dtype)
            if self.physical.sensors is not None:
                mask *= tf.constant(self.physical.sensors, y.dtype)
            y, context = y * mask, {**context, "sensor_mask": mask}
        return y, context

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        sample = self.physical.sample(batch_size, seed)
        y, context = self.degrade(sample["y"], sample.get("context"), seed)
        return {"x": sample["x"], "y": y, "context": context}

    def residual(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.physical.residual(_where_measured(y, y_target, context), y_target, context)

    def objective(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.physical.objective(_where_measured(y, y_target, context), y_target, context)

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        if "sensor_mask" in (context or {}):
            y_target = _where_measured(y_target, self.physical.forward(x_near, context), context)
        return self.physical.inverse(y_target, x_near, context)

    def project(self, x: tf.Tensor, observation: Any) -> tf.Tensor:
        y, context = split_observation(observation)
        if "sensor_mask" in (context or {}):
            # A mean over all cells shall not count missing ones as 0.
            working = tf.reduce_sum(context["sensor_mask"], list(range(1, y.shape.rank)), keepdims=True)
            total = tf.reduce_sum(y, list(range(1, y.shape.rank)), keepdims=True)
            observation = join_observation(_where_measured(y, tf.math.divide_no_nan(total, working), context), context)
        return self.physical.project(x, observation)

    def as_y(self, y: Any, *, name: str = "y_target") -> tf.Tensor:
        # Shape and precision alone: noise takes y out of the range that the wrapped simulator may ask for.
        return Simulator.as_y(self, y, name=name)

    def has(self, ability: Ability | str) -> bool:
        # A residual of its own, which passes over missing sensors.
        return super().has(ability) or (ability == Ability.RESIDUAL and self.is_masked)

    def get_config(self) -> dict[str, Any]:
        levels = {name: list(level) if level[0] < level[1] else level[0] for name, level in self.levels.items()}
        return {"simulator": keras.saving.serialize_keras_object(self.physical), **levels}

    def __repr__(self) -> str:
        levels = {name: low if low == high else (low, high) for name, (low, high) in self.levels.items() if high > 0}
        return f"Degraded({', '.join([repr(self.physical), *(f'{name}={level}' for name, level in levels.items())])})"

    def _rms_of_sensors(self, y):
        if self.physical.sensors is None:
            return batched.rms(y)
        sensors = np.broadcast_to(self.physical.sensors, self.y_shape)
        return batched.rms(y * tf.constant(sensors, y.dtype)) * np.sqrt(sensors.size / np.sum(sensors))

    def _is_on(self, name):
        return self.levels[name][1] > 0

    def _draw_level(self, name, examples, seed, dtype):
        """`[B]`, of a stream of its own beside that of the degradation's noise."""
        low, high = self.levels[name]
        return low + (high - low) * random_fields.uniform([examples], random_fields.fold_in(seed, 1), dtype=dtype)


def _where_measured(y, otherwise, context):
    """y where a sensor works, elsewhere what it is compared with: no difference."""
    mask = (context or {}).get("sensor_mask")
    return y if mask is None else tf.where(mask > 0, y, otherwise)


def _checked_level(name, value):
    """(low, high)."""
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(pair) != 2:
        raise ValueError(
            three_part(
                f"`{name}` to be a number or a pair (low, high)", f"{name}={value!r}", "Give one or two numbers."
            )
        )
    low, high = (check_number(name, bound, maximum=LEVELS[name]) for bound in pair)
    if low > high:
        raise ValueError(
            three_part(f"`{name}` to be a pair (low, high) that ascends", f"{name}={value!r}", "Swap the numbers.")
        )
    return low, high
