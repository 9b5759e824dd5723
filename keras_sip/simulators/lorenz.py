"""Lorenz' system: a chaotic state whose beginning is sought from sparse later observations."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.ops import random_fields
from keras_sip.ops.time_integration import integrate, runge_kutta_4
from keras_sip.simulators.base import Context
from keras_sip.simulators.ode import ODESimulator

SIGMA, RHO, BETA = 10.0, 28.0, 8.0 / 3.0
# Of the states on the attractor, over long runs: mean and standard deviation of each component.
CENTRE, SPREAD = (0.0, 0.0, 23.5), (7.9, 9.0, 8.6)


@keras.saving.register_keras_serializable(package="keras_sip")
class Lorenz(ODESimulator):
    """y are some components of a state at equally spaced times, x is the state at the beginning:

        du/dt = 10 (v - u),    dv/dt = u (28 - w) - v,    dw/dt = u v - 8/3 w

    x `[B, 3]` = (u, v, w) at t = 0; y `[B, times, observed]`, divided by the components' sizes on the attractor. Nearby
    states part as e^(0.9 t) on average: the longer the `window`, the more y says of x, and the more local minima its
    objective has. For noise wrap it: `Degraded(Lorenz(), noise=0.05)`.

    `sample` draws states near the attractor: Gaussian ones (mean and deviation of the attractor) after a run of
    `settling` without an observation. `distance` is the mean error over the components' sizes.

    Source: E. N. Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20 (1963).

    Args:
        window: The time of the last observation.
        num_times: Number of observations.
        observed: The numbers of the components that are seen.
        step_size: Longest Runge-Kutta step.
        settling: Time before x in `sample`.
        dtype: "float32" or "float64".
    """

    def __init__(
        self,
        *,
        window: float = 1.0,
        num_times: int = 10,
        observed: tuple[int, ...] = (0,),
        step_size: float = 0.02,
        settling: float = 2.0,
        dtype: str = "float32",
    ):
        check_number("window", window, exclusive=True)
        check_positive_int("num_times", num_times)
        self.step_size = check_number("step_size", step_size, exclusive=True)
        super().__init__(
            num_parameters=3,
            num_states=3,
            duration=window,
            num_times=num_times,
            steps_between=max(1, int(np.ceil(window / num_times / step_size - 1e-9))),
            dtype=dtype,
        )
        self.settling = check_number("settling", settling)
        self.observed = tuple(int(component) for component in observed)
        if not self.observed or set(self.observed) - {0, 1, 2} or len(set(self.observed)) < len(self.observed):
            raise ValueError(
                three_part("`observed` from 0, 1 and 2, each once", f"observed={observed!r}", "Pass (0,), say.")
            )
        self.y_shape = (self.num_times, len(self.observed))

    @property
    def context_shape(self) -> dict[str, Any]:
        return {}

    @property
    def x_scale(self) -> tuple[float, ...]:
        return SPREAD

    def initial_state(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return x

    def rate(self, state: tf.Tensor, x: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        u, v, w = tf.unstack(state, axis=1)
        return tf.stack([SIGMA * (v - u), u * (RHO - w) - v, u * v - BETA * w], axis=1)

    def observe(self, states: tf.Tensor, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        seen = np.eye(3)[:, self.observed] / np.array(SPREAD)[:, None]
        return tf.einsum("bts,so->bto", states, tf.constant(seen, states.dtype))

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.abs(x - x_ref) / tf.constant(SPREAD, x.dtype), axis=1)

    def sample(self, batch_size: int, seed: Any) -> dict[str, tf.Tensor]:
        check_positive_int("batch_size", batch_size)
        white = random_fields.normal((batch_size, 3), seed, dtype=self.dtype)
        x = tf.constant(CENTRE, self.dtype) + tf.constant(SPREAD, self.dtype) * white
        if self.settling:
            steps = int(np.ceil(self.settling / self.step_size))
            step = runge_kutta_4(lambda state, _, time: self.rate(state, state, time), self.settling / steps)
            x = integrate(step, x, num_steps=steps)
        return {"x": x, "y": self.forward(x)}
