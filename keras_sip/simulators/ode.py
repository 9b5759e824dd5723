"""ODESimulator: a system of ordinary differential equations seen at some times, in ten lines."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, must_define, three_part
from keras_sip.ops import random_fields
from keras_sip.ops.time_integration import integrate, runge_kutta_4
from keras_sip.simulators.base import Context, Simulator


class ODESimulator(Simulator):
    """y = the states at given times of  ds/dt = rate(s, x, t),  s(0) = initial_state(x).

    x `[B, P]`: the parameters; s `[B, D]`; y `[B, times, D]`, or what `observe` makes of it. Classical Runge-Kutta
    steps of one length (order 4) between equally spaced times, by `ops.integrate`: derivatives of any kind work
    eagerly, in graphs and under XLA, and programs do not grow with the number of steps.

    **Must override** `rate`; **may override** `initial_state` (default: context["initial_state"]), `observe`, `sample`
    and whatever a simulator may.

    Example, a pendulum whose damping and frequency are sought:

        class Pendulum(keras_sip.ODESimulator):
            def __init__(self):
                super().__init__(num_parameters=2, num_states=2, duration=10.0, num_times=20)

            def initial_state(self, x, context=None):
                return tf.ones_like(x) * [0.5, 0.0]

            def rate(self, state, x, time):
                angle, speed = tf.unstack(state, axis=1)
                return tf.stack([speed, -x[:, 0] * speed - x[:, 1] ** 2 * tf.sin(angle)], axis=1)

    Args:
        num_parameters: P.
        num_states: D.
        duration: The last time; the first observation is at duration / num_times.
        num_times: Number of observations.
        steps_between: Runge-Kutta steps from one observation to the next.
        dtype: "float32" or "float64".

    Source: E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential Equations I, 2nd ed., Table II.1.2.
    """

    def __init__(
        self,
        *,
        num_parameters: int,
        num_states: int,
        duration: float,
        num_times: int,
        steps_between: int = 4,
        dtype: str = "float32",
    ):
        self.num_states = check_positive_int("num_states", num_states)
        self.duration = check_number("duration", duration, exclusive=True)
        self.num_times = check_positive_int("num_times", num_times)
        self.steps_between = check_positive_int("steps_between", steps_between)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.x_shape = (check_positive_int("num_parameters", num_parameters),)
        self.y_shape = (self.num_times, self.num_states)

    @property
    def times(self) -> np.ndarray:
        """When the state is observed, `[num_times]`."""
        return self.duration * np.arange(1, self.num_times + 1) / self.num_times

    def rate(self, state: tf.Tensor, x: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        """ds/dt `[B, D]` of the states `[B, D]`, for the parameters `[B, P]`."""
        raise must_define(
            self,
            "rate(self, state, x, time)",
            "an ODESimulator without it",
            "Return ds/dt `[B, num_states]`, built of TensorFlow operations.",
        )

    def initial_state(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        """s(0) `[B, D]`. Default: context["initial_state"]."""
        if not context or "initial_state" not in context:
            raise ValueError(
                three_part(
                    "`context` to hold the initial states, {'initial_state': [B, num_states]}",
                    f"{'None' if context is None else sorted(context)}",
                    "Pass them as context, or override `initial_state(self, x, context=None)`.",
                )
            )
        return context["initial_state"]

    def observe(self, states: tf.Tensor, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        """y of the states `[B, times, D]`. Default: the states; another shape needs `y_shape`."""
        return states

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        steps = self.num_times * self.steps_between
        step = runge_kutta_4(lambda state, _, time: self.rate(state, x, time), self.duration / steps)
        save_at = range(self.steps_between, steps + 1, self.steps_between)
        _, states = integrate(step, self.initial_state(x, context), num_steps=steps, save_at=list(save_at))
        return self.observe(tf.transpose(states, [1, 0, 2]), x, context)


@keras.saving.register_keras_serializable(package="keras_sip")
class LotkaVolterra(ODESimulator):
    """Prey u and predators v over time, of which the rates are sought:

        du/dt = a u - b u v,    dv/dt = -c v + d u v,    u(0) = u0

    x `[B, 5]` = (a, b, c, d, u0), v(0) = `predators`, y `[B, times, 2]` = (log u, log v): noise in counts of animals is
    relative. Rates per year and animals as they are counted, so that the parameters span six orders of magnitude: a and
    c near 1, b near 1e-2, d near 1e-3, u0 near 1e3. The state that is integrated is (log u, log v), in which nothing
    becomes negative. `distance` is the mean error over the parameters' typical sizes.

    `sample` draws each parameter log-normal around its typical size, with the standard deviation `deviation` of its
    logarithm; what is drawn is positive, and periods are near 2 pi / sqrt(a c).

    Source: J. D. Murray, Mathematical Biology I, 3rd ed. (2002), Section 3.1.

    Args:
        duration: In years.
        num_times: Number of observations.
        steps_between: Runge-Kutta steps from one observation to the next.
        predators: v(0).
        deviation: Standard deviation of the logarithms of the parameters in `sample`.
        dtype: "float32" or "float64".
    """

    typical = (1.0, 1e-2, 1.0, 1e-3, 1e3)

    def __init__(
        self,
        *,
        duration: float = 10.0,
        num_times: int = 20,
        steps_between: int = 8,
        predators: float = 50.0,
        deviation: float = 0.2,
        dtype: str = "float32",
    ):
        super().__init__(
            num_parameters=5,
            num_states=2,
            duration=duration,
            num_times=num_times,
            steps_between=steps_between,
            dtype=dtype,
        )
        self.predators = check_number("predators", predators, exclusive=True)
        self.deviation = check_number("deviation", deviation)

    @property
    def x_scale(self) -> Sequence[float]:
        return self.typical

    @property
    def context_shape(self) -> dict[str, Any]:
        return {}

    def initial_state(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        prey = tf.math.log(x[:, 4])
        return tf.stack([prey, tf.zeros_like(prey) + float(np.log(self.predators))], axis=1)

    def rate(self, state: tf.Tensor, x: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        prey, predators = tf.unstack(tf.exp(state), axis=1)
        a, b, c, d, _ = tf.unstack(x, axis=1)
        return tf.stack([a - b * predators, d * prey - c], axis=1)

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.abs(x - x_ref) / tf.constant(self.typical, x.dtype), axis=1)

    def sample(self, batch_size: int, seed: Any) -> dict[str, tf.Tensor]:
        check_positive_int("batch_size", batch_size)
        logarithms = self.deviation * random_fields.normal((batch_size, 5), seed, dtype=self.dtype)
        x = tf.constant(self.typical, self.dtype) * tf.exp(logarithms)
        return {"x": x, "y": self.forward(x)}
