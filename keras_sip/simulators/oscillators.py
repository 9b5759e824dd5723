"""Coupled nonlinear oscillators, to be steered by one force over time."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import batched, random_fields
from keras_sip.ops.time_integration import integrate, runge_kutta_4
from keras_sip.simulators.base import Context, Simulator, split_observation

TARGETS = ("reached", "initial")


@keras.saving.register_keras_serializable(package="keras_sip")
class Oscillators(Simulator):
    """A chain of oscillators with quartic springs between neighbours, steered by a force u(t) on some of them:

        H(q, p, t) = sum_i (q_i^2 + p_i^2) / 2 + coupling sum_i (q_i - q_(i+1))^4 + u(t) sum_i actuators_i q_i
        dq/dt = dH/dp,    dp/dt = -dH/dq

    x `[B, num_steps]`: u, held over each step. context["initial_state"] `[B, 2 N]`: (q, p) at time 0. y `[B, 2 N]`: the
    same after the last step, by classical Runge-Kutta steps (order 4). Nothing has a unit.

    Many controls lead to one state: x is not to be recovered, but found.

    `sample` draws initial states uniform in [0, 1]^(2 N) and, by `target`,

    - "reached": x normal of deviation `control_size`, and y = P(x); the network sees initial state and y;
    - "initial": the published problem, to be back at the initial state at the end, y = initial state, which is all that
      the network sees. There is no true x: that of a sample says what controls are like, and belongs to no y.

    `distance` is the root mean square of x - x_ref; with target "initial" of x, the effort.

    Source: Schnell, Holl and Thuerey, Half-inverse gradients for physical deep learning (ICLR 2022), Section 3.2; the
    defaults are those of their code: two oscillators, 96 steps of 0.125, cubic forces of factor 4 coupling = 1.

    Args:
        num_steps: Number of steps, and of controls.
        step_size: Length of a step.
        coupling: Factor on the quartic energy between neighbours.
        actuators: How the force acts on each oscillator; its length is their number N.
        target: "reached" or "initial".
        control_size: Standard deviation of the controls of samples; `x_scale` too.
        dtype: "float32" or "float64".
    """

    prefers_xla = True

    def __init__(
        self,
        num_steps: int = 96,
        *,
        step_size: float = 0.125,
        coupling: float = 0.25,
        actuators: Sequence[float] = (0.0, 3.0),
        target: str = "reached",
        control_size: float = 0.3,
        dtype: str = "float32",
    ):
        self.num_steps = check_positive_int("num_steps", num_steps)
        self.step_size = check_number("step_size", step_size, exclusive=True)
        self.coupling = check_number("coupling", coupling)
        self.actuators = tuple(float(factor) for factor in actuators)
        if not self.actuators:
            raise ValueError(three_part("`actuators` with a factor for each oscillator", "none", "Pass (0.0, 3.0)."))
        self.target = check_choice("target", target, TARGETS)
        self.control_size = check_number("control_size", control_size, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.x_shape, self.y_shape = (self.num_steps,), (2 * len(self.actuators),)

    @property
    def x_scale(self) -> float:
        return self.control_size

    @property
    def context_shape(self) -> dict[str, Any]:
        return {"initial_state": self.y_shape}

    def energy(self, state: tf.Tensor) -> tf.Tensor:
        """H `[B]` of states `[B, 2 N]` without the force; constant along a path where u is 0."""
        q = state[:, : len(self.actuators)]
        stretch = q[:, :-1] - q[:, 1:]
        return 0.5 * tf.reduce_sum(state**2, axis=1) + self.coupling * tf.reduce_sum(stretch**4, axis=1)

    def rate(self, state: tf.Tensor, control: tf.Tensor) -> tf.Tensor:
        """d(q, p)/dt `[B, 2 N]` of states `[B, 2 N]` under the forces u `[B]`."""
        q, p = tf.split(state, 2, axis=1)
        tension = 4.0 * self.coupling * (q[:, :-1] - q[:, 1:]) ** 3
        inner = tf.pad(tension, [[0, 0], [1, 0]]) - tf.pad(tension, [[0, 0], [0, 1]])
        outer = control[:, None] * tf.constant(self.actuators, state.dtype)
        return tf.concat([p, inner - q - outer], axis=1)

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        if not context or "initial_state" not in context:
            raise ValueError(
                three_part(
                    f"`context` to hold the initial states, {{'initial_state': [B, {self.y_shape[0]}]}}",
                    f"{'None' if context is None else sorted(context)}",
                    "Pass them as context.",
                )
            )
        step = runge_kutta_4(lambda state, control, time: self.rate(state, control), self.step_size)
        return integrate(step, context["initial_state"], tf.transpose(x))

    def network_input(self, observation: Any) -> tf.Tensor:
        y, context = split_observation(observation)
        return y if self.target == "initial" else tf.concat([context["initial_state"], y], axis=1)

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        return batched.rms(x if self.target == "initial" else x - x_ref)

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        check_positive_int("batch_size", batch_size)
        state_seed, control_seed = tf.unstack(random_fields.split_seed(seed, 2))
        initial = random_fields.uniform([batch_size, *self.y_shape], state_seed, dtype=self.dtype)
        context = {"initial_state": initial}
        x = self.control_size * random_fields.normal([batch_size, *self.x_shape], control_seed, dtype=self.dtype)
        y = initial if self.target == "initial" else self.forward(x, context)
        return {"x": x, "y": y, "context": context}
