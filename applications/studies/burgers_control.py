"""A controller network at every step of Burgers' equation: chained physics layers, SIP's or with ordinary gradients."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

import keras_sip
from keras_sip.ops import random_fields


@dataclasses.dataclass(frozen=True)
class Control:
    """Steer a state u(0) to a target in `horizon` steps, a force in each.

    The network sees the state of the moment, the target and the share of the steps that are left, and gives c, the
    force in units of a step's `force_scale`. Step k of a chain of SIP layers shares the change that it is asked for
    with the k - 1 steps before it: forces are measured so that the shortest update of (state, c) takes 1 / k of the
    change by the force and hands the rest on, and all steps do the same.

    Args:
        cells: Cells of the line.
        horizon: Steps.
        duration: Of the whole.
        substeps: Time steps in each.
        cg_steps: Conjugate-gradient steps of each layer's Gauss-Newton update.
    """

    cells: int = 32
    horizon: int = 16
    duration: float = 0.5
    substeps: int = 2
    cg_steps: int = 3

    @property
    def state_simulator(self) -> keras_sip.Burgers:
        """Without a force, over the whole duration; its samples are the states and the targets."""
        return keras_sip.Burgers(self.cells, duration=self.duration, num_steps=self.horizon * self.substeps)

    def force_scale(self, step: int) -> float:
        return 1 / np.sqrt(max(step, 1))

    def simulator(self, step: int) -> keras_sip.Burgers:
        """Of step 0, 1 ..., a line with a force."""
        return keras_sip.Burgers(
            self.cells,
            duration=self.duration / self.horizon,
            num_steps=self.substeps,
            force_scale=self.force_scale(step),
        )

    def examples(self, count: int, seed) -> tuple[tf.Tensor, tf.Tensor]:
        """(states, targets) `[count, cells, 1]`, independent; a function of the seed."""
        first, second = tf.unstack(random_fields.split_seed(seed, 2))
        simulator = self.state_simulator
        return tuple(simulator.sample(count, each)["x"] for each in (first, second))

    def dataset(self, batch: int, seed: int) -> tf.data.Dataset:
        """Endless batches ((states, targets), targets); each a function of seed and number."""

        def numbered(number):
            state, target = self.examples(batch, tf.stack([tf.constant(seed, tf.int64), number]))
            return (state, target), target

        return tf.data.Dataset.range(2**40).map(numbered)

    def controller(self, seed: int) -> keras.Model:
        """[state, target, share of the steps left] -> c."""
        state, target = (keras.Input((self.cells, 1), name=name) for name in ("state", "target"))
        left = keras.Input((1,), name="left")
        flat = keras.layers.Concatenate()([*(keras.layers.Flatten()(each) for each in (state, target)), left])
        force = keras_sip.MLP(2 * self.cells + 1, self.cells, (64, 64), seed=seed)(flat)
        return keras.Model([state, target, left], keras.layers.Reshape((self.cells, 1))(force), name="controller")

    def model(self, method: str, controller: keras.Model) -> keras.Model:
        """[state, target] -> [final state, all states `[B, horizon, cells, 1]`, all c], functional.

        Args:
            method: "sip": chained `SIPPhysicsLayer`s with links; or "adjoint": `PhysicsLayer`s.
            controller: The network, shared by all steps.
        """
        state, target = start = [keras.Input((self.cells, 1), name=name) for name in ("state", "target")]
        states, forces, link = [], [], None
        for step in range(self.horizon):
            left = keras.ops.ones_like(state[:, 0]) * (1 - step / self.horizon)
            # SIP hands a step what its state should become; the network's own use of the state is no part of it.
            seen = keras.ops.stop_gradient(state) if method == "sip" else state
            force = controller([seen, target, left])
            both = keras.layers.Concatenate()([state, force])
            state, link = self._advance(method, step, both, target, link)
            states.append(state)
            forces.append(force)
        stacked = [keras.ops.stack(entries, axis=1) for entries in (states, forces)]
        return keras.Model(start, [state, *stacked], name=method)

    def _advance(self, method, step, both, target, link):
        simulator = self.simulator(step)
        if method == "adjoint":
            return keras_sip.PhysicsLayer(simulator)(both), None
        solver = keras_sip.GaussNewton(cg_steps=self.cg_steps, cg_tolerance=0.0)
        layer = keras_sip.SIPPhysicsLayer(simulator, solver, x_scale=1.0)
        if step == self.horizon - 1:
            return layer(both, y_target=target, link=link), None
        return layer(both, link=link, return_link=True)

    def trained(self, method: str, seed: int, optimizer: keras.optimizers.Optimizer) -> tuple[keras.Model, keras.Model]:
        """(model to fit, of the final state; model of all): equal seeds give equal initial weights."""
        whole = self.model(method, self.controller(seed))
        fitted = keras.Model(whole.inputs, whole.outputs[0], name=method)
        fitted.compile(optimizer, keras_sip.HalfSumOfSquares(), jit_compile=False)
        return fitted, whole

    def evaluation(self, count: int, seed) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(states, targets, final states without a force)."""
        state, target = self.examples(count, seed)
        return state, target, self.state_simulator.forward(state)

    def measured(self, whole: keras.Model, evaluation: tuple) -> dict[str, float]:
        """Error over that without a force, and effort, the root mean square of the change of u that forces make."""
        state, target, free = evaluation
        final, _, forces = whole([state, target])
        error = tf.norm(final - target, axis=1) / tf.norm(free - target, axis=1)
        scales = tf.constant([self.force_scale(step) for step in range(self.horizon)], forces.dtype)
        effort = tf.sqrt(tf.reduce_mean(tf.square(scales[:, None, None] * forces)))
        return {"error": float(tf.reduce_mean(error)), "effort": float(effort)}
