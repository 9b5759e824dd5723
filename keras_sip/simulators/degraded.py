"""Observations as instruments give them: noisy, blurred, with sensors that fail."""

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_number, three_part
from keras_sip.ops import batched
from keras_sip.ops.blur import gaussian_blur
from keras_sip.simulators.base import Simulator, check_simulator_interface, join_observation, split_observation

# Bounds of each degradation's level.
LEVELS = {"noise": None, "multiplicative_noise": None, "missing_sensors": 0.99, "low_pass": None}


@keras.saving.register_keras_serializable(package="keras_sip")
class Degraded(Simulator):
    """The process of another simulator, seen through an imperfect instrument.

    `sample` gives the same x as the wrapped simulator, and in this order makes of its y:

        y <- G_s * y                            low_pass = s: Gaussian average, s in cells of each spatial axis
        y <- y (1 + multiplicative_noise n)     n standard normal, one for each sensor
        y <- y + noise rms(y) n                 rms over the example, before any noise
        y <- mask y                             missing_sensors: share of the sensors that are silent

    Physics and solvers stay those of the wrapped simulator, and learn about the instrument from the context:
    `context["noise_level"]` `[B]`, one standard deviation of both noises together in the units of y; and
    `context["sensor_mask"]` `[B, *y_shape]`, 1 where a sensor works, if sensors may be missing. A silent sensor has no
    residual; to `inverse` it says what the simulation says. A low-pass is not told: it tests how solvers and networks
    bear a model that is not quite right.

    The network sees the observation with 0 for silent sensors; `project` sees the mean of the others there.

    Each level is a number, or a pair (low, high) from which every example draws its own. Random numbers are a function
    of the seed alone, apart from those of x.

    Args:
        simulator: The simulator to wrap.
        noise: Standard deviation over the root mean square of each example's y.
        multiplicative_noise: Standard deviation of each sensor's factor.
        missing_sensors: Share of silent sensors, below 1.
        low_pass: Width of the Gaussian in cells; needs y of shape `[*resolution, C]`.

    Raises:
        ValueError: A level below 0, a pair that descends, a low-pass without spatial axes.
    """

    def __init__(self, simulator, *, noise=0.0, multiplicative_noise=0.0, missing_sensors=0.0, low_pass=0.0):
        self.physical = check_simulator_interface(simulator)
        self.x_shape, self.y_shape, self.dtype = simulator.x_shape, simulator.y_shape, simulator.dtype
        self.prefers_xla = simulator.prefers_xla
        given = {
            "noise": noise,
            "multiplicative_noise": multiplicative_noise,
            "missing_sensors": missing_sensors,
            "low_pass": low_pass,
        }
        self.levels = {name: _checked_level(name, value) for name, value in given.items()}
        if self._acts("low_pass") and len(self.y_shape) < 2:
            raise ValueError(
                three_part(
                    "y of shape [*resolution, channels] for a low-pass",
                    f"y_shape={self.y_shape} of {simulator!r}",
                    "Leave low_pass out: sensors without an order have no neighbours to average with.",
                )
            )

    def __getattr__(self, name):
        # What experiments and solvers know of the wrapped simulator (resolution, spacing ...). Underscores are left
        # out: copying and pickling ask for some before there is a `physical`.
        if name.startswith("_") or name == "physical":
            raise AttributeError(name)
        return getattr(self.physical, name)

    @property
    def x_scale(self):
        return self.physical.x_scale

    @property
    def diagonal_form(self):
        """That of the wrapped simulator, unless silent sensors mix the modes."""
        return None if self._acts("missing_sensors") else self.physical.diagonal_form

    def degrade(self, y, context, seed):
        """(y, context) as the instrument gives them, of clean ones; a function of the seed alone.

        Args:
            y: `[B, *y_shape]`.
            context: What is known already, a dict or None.
            seed: Two integers, as of `sample`.
        """
        level_seed, factor_seed, noise_seed, mask_seed = tf.unstack(tf.random.split(seed, 4))
        level = self._draw_levels(tf.shape(y)[0], level_seed, y.dtype)
        if self._acts("low_pass"):
            y = gaussian_blur(y, level["low_pass"])
        # In units of its largest entry: squares of y near 1e-25 are 0.
        unit = batched.safe_scale(y)
        size = unit * tf.sqrt(tf.reduce_mean(tf.square(y / batched.expand(unit, y)), list(range(1, y.shape.rank))))
        if self._acts("multiplicative_noise"):
            factor = tf.random.stateless_normal(tf.shape(y), factor_seed, dtype=y.dtype)
            y *= 1.0 + batched.expand(level["multiplicative_noise"], y) * factor
        if self._acts("noise"):
            noise = tf.random.stateless_normal(tf.shape(y), noise_seed, dtype=y.dtype)
            y += batched.expand(level["noise"] * size, y) * noise
        both = tf.sqrt(tf.square(level["noise"]) + tf.square(level["multiplicative_noise"]))
        context = {**(context or {}), "noise_level": both * size}
        if self._acts("missing_sensors"):
            drawn = tf.random.stateless_uniform(tf.shape(y), mask_seed, dtype=y.dtype)
            mask = tf.cast(drawn >= batched.expand(level["missing_sensors"], y), y.dtype)
            y, context = y * mask, {**context, "sensor_mask": mask}
        return y, context

    def sample(self, batch_size, seed):
        sample = self.physical.sample(batch_size, seed)
        # Another stream than that of x, which the wrapped simulator splits from the same seed.
        instrument_seed = tf.random.fold_in(tf.convert_to_tensor(seed), len(LEVELS))
        y, context = self.degrade(sample["y"], sample.get("context"), instrument_seed)
        return {"x": sample["x"], "y": y, "context": context}

    def forward(self, x, context=None):
        return self.physical.forward(x, context)

    def residual(self, y, y_target, context=None):
        return self.physical.residual(_heard(y, y_target, context), y_target, context)

    def objective(self, y, y_target, context=None):
        return self.physical.objective(_heard(y, y_target, context), y_target, context)

    def inverse(self, y_target, x_near, context=None):
        if "sensor_mask" in (context or {}):
            y_target = _heard(y_target, self.physical.forward(x_near, context), context)
        return self.physical.inverse(y_target, x_near, context)

    def network_input(self, observation):
        return self.physical.network_input(observation)

    def project(self, x, observation):
        y, context = split_observation(observation)
        if "sensor_mask" in (context or {}):
            # A mean over all cells shall not count silent ones as 0.
            working = tf.reduce_sum(context["sensor_mask"], list(range(1, y.shape.rank)), keepdims=True)
            total = tf.reduce_sum(y, list(range(1, y.shape.rank)), keepdims=True)
            observation = join_observation(_heard(y, tf.math.divide_no_nan(total, working), context), context)
        return self.physical.project(x, observation)

    def distance(self, x, x_ref):
        return self.physical.distance(x, x_ref)

    def has(self, method):
        return self.physical.has(method)

    def get_config(self):
        levels = {name: list(level) if level[0] < level[1] else level[0] for name, level in self.levels.items()}
        return {"simulator": keras.saving.serialize_keras_object(self.physical), **levels}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "simulator": keras.saving.deserialize_keras_object(config["simulator"])})

    def __repr__(self):
        levels = {name: low if low == high else (low, high) for name, (low, high) in self.levels.items() if high > 0}
        return f"Degraded({', '.join([repr(self.physical), *(f'{name}={level}' for name, level in levels.items())])})"

    def _acts(self, name):
        return self.levels[name][1] > 0

    def _draw_levels(self, examples, seed, dtype):
        """{name: `[B]`}."""
        uniform = tf.random.stateless_uniform([examples, len(LEVELS)], seed, dtype=dtype)
        drawn = {}
        for column, (name, (low, high)) in enumerate(self.levels.items()):
            drawn[name] = low + (high - low) * uniform[:, column]
        return drawn


def _heard(y, otherwise, context):
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
