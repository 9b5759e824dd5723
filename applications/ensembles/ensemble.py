"""Many small networks trained together in one compiled program, for sweeps over settings, rates and seeds.

A network of a few thousand weights costs less than the calls that train it. Here the weights of M networks are stacked,
`[M, in, out]`, their batches lie one after the other in one batch of M B examples, and K steps are one execution. What
sets the systems apart (xi and phi of the rotated sine) travels in the context of each example, and each member has a
rate of its own. Everything else is `SIPModel` and its training methods as they are: a member takes the steps that
`SIPModel.fit` would take with its weights and data, to rounding.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

import keras_sip
from keras_sip.errors import three_part
from keras_sip.simulators.base import join_observation
from keras_sip.training.methods import Batch


@dataclasses.dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Args:
        seed: Of its initial weights and of its data.
        rate: Learning rate.
        context: (name, number) pairs that tell its system from the others', as the simulator's context has them.
    """

    seed: int
    rate: float
    context: tuple = ()


class StackedDense(keras.layers.Layer):
    """M dense layers side by side: `[M B, in] -> [M B, out]`, the examples of one member together."""

    def __init__(self, members, units, activation, **kwargs):
        super().__init__(**kwargs)
        self.members, self.units, self.activation = members, units, keras.activations.get(activation)

    def build(self, input_shape):
        # Both of rank 3, against which the rates [M, 1, 1] broadcast.
        self.kernel = self.add_weight(shape=(self.members, input_shape[-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.members, 1, self.units), name="bias")

    def call(self, x):
        x = tf.reshape(x, [self.members, -1, x.shape[-1]])
        return tf.reshape(self.activation(tf.matmul(x, self.kernel) + self.bias), [-1, self.units])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)


def stack(networks):
    """One network of `StackedDense` layers that holds the weights of these `MLP`s."""
    layers = [network.layers[1:] for network in networks]
    inputs = keras.Input(networks[0].input_shape[1:])
    x = inputs
    for copies in zip(*layers, strict=True):
        layer = StackedDense(len(copies), copies[0].units, copies[0].activation)
        x = layer(x)
        kernels, biases = zip(*(copy.get_weights() for copy in copies), strict=True)
        layer.set_weights([np.stack(kernels), np.stack(biases)[:, None]])
    return keras.Model(inputs, x)


class MemberRates(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate for each member, `[M, 1, 1]`, constant or decaying to 0 as a half cosine over `decay_steps`."""

    def __init__(self, rates, decay_steps=None):
        self.rates, self.decay_steps = tuple(rates), decay_steps

    def __call__(self, step):
        rates = tf.reshape(tf.constant(self.rates, tf.float32), [-1, 1, 1])
        if self.decay_steps is None:
            return rates
        return rates * keras.optimizers.schedules.CosineDecay(1.0, self.decay_steps)(step)

    def get_config(self):
        return {"rates": self.rates, "decay_steps": self.decay_steps}


class Ensemble:
    """M networks of one shape that one method and one kind of optimizer train on one kind of system.

    Args:
        members: `Member`s.
        simulator: Of all members; one whose systems are told apart by a context has `unit_square`, `examples` and
            `distance_between`, as `RotatedSine` has.
        network: `seed -> MLP`.
        method: A `TrainingMethod` that treats each example alone.
        solver: As in `SIPModel`.
        optimizer: A Keras optimizer that treats each weight alone; its rate is replaced by the members'.
        batch: Examples in a batch of one member.
        batch_reduction: "mean" or "sum" over that batch.
        decay_steps: Steps over which the rates decay; None keeps them.
    """

    def __init__(
        self, members, simulator, network, *, method, solver, optimizer, batch, batch_reduction="mean", decay_steps=None
    ):
        self.members, self.simulator, self.batch = tuple(members), simulator, batch
        self._weight = 1.0 if batch_reduction == "sum" else 1.0 / batch
        # The reduction is over a member's own batch, here; SIPModel would average over all members.
        self.model = keras_sip.SIPModel(
            stack([network(member.seed) for member in members]),
            simulator,
            solver,
            method,
            batch_reduction="sum",
            x_scale=1.0,
            input_scale=1.0,
        )
        _check_separable(self.model.method, len(self.members))
        optimizer.learning_rate = MemberRates([member.rate for member in members], decay_steps)
        self.model.compile(optimizer)
        self._context = {
            name: np.repeat([dict(member.context)[name] for member in members], batch).astype(simulator.dtype)
            for name, _ in self.members[0].context
        }

    @property
    def step(self):
        """Steps taken so far."""
        return int(self.model.optimizer.iterations.numpy()) // self.model.method.optimizer_steps

    @property
    def state(self):
        """Arrays that a later run goes on from."""
        return [variable.numpy() for variable in self._variables()]

    @state.setter
    def state(self, arrays):
        for variable, array in zip(self._variables(), arrays, strict=True):
            variable.assign(array)

    def _variables(self):
        return [*self.model.network.variables, *self.model.optimizer.variables]

    def train(self, steps):
        """Take `steps` steps; the errors in x and the losses in y of each batch before its update, `[steps, M]`."""
        return [values.numpy() for values in self._train(tf.constant(self.step, tf.int64), steps)]

    def predict(self, y):
        """x `[M, N, *x_shape]` of the observations y `[N, *y_shape]`, which all members are given."""
        y, members = self.simulator.as_y(y), len(self.members)
        tiled = tf.tile(y, [members] + [1] * (y.shape.rank - 1))
        return tf.reshape(self.model(tiled), [members, -1, *self.simulator.x_shape]).numpy()

    @tf.function(jit_compile=True, autograph=False)
    def _train(self, first, steps):
        def take(done, *measured):
            values = self._take_step(first + tf.cast(done, tf.int64))
            written = [
                tf.tensor_scatter_nd_update(column, [[done]], value[None])
                for column, value in zip(measured, values, strict=True)
            ]
            return done + 1, *written

        nothing = tf.zeros([steps, len(self.members)], self.simulator.dtype)
        return tf.while_loop(
            lambda done, *_: done < steps, take, (tf.constant(0), nothing, nothing), maximum_iterations=steps
        )[1:]

    def _take_step(self, step):
        x_true, y, context = self._draw(step)
        weight = tf.fill(tf.shape(y)[:1], tf.constant(self._weight, y.dtype))
        batch = Batch(join_observation(y, context), y, context, z_true=x_true, weight=weight)
        report = self.model.method.train_step(self.model.physics, self.model.scaled_network, batch)
        if context is None:
            error = self.simulator.distance(report.z, x_true)
        else:
            error = self.simulator.distance_between(report.z, x_true, context)
        loss = self.simulator.objective(report.y, y, context)
        return [tf.reduce_mean(tf.reshape(value, [len(self.members), self.batch]), 1) for value in (error, loss)]

    def _draw(self, step):
        """(x, y, context) of one step of all members, each as `keras_sip.dataset` draws it."""
        seeds = sorted({member.seed for member in self.members})
        draw = self.simulator.unit_square if self._context else self.simulator.sample
        drawn = {seed: draw(self.batch, tf.stack([tf.constant(seed, tf.int64), step])) for seed in seeds}
        sample = tf.nest.map_structure(
            lambda *entries: tf.concat(entries, 0), *(drawn[member.seed] for member in self.members)
        )
        if not self._context:
            return sample["x"], sample["y"], None
        context = {name: tf.constant(values) for name, values in self._context.items()}
        sample = self.simulator.examples(sample, context)
        return sample["x"], sample["y"], context


def _check_separable(method, members):
    """Refuse a method that measures the batch as a whole, where the batch holds several members."""
    if members > 1 and getattr(method, "adjoint_mix", 0.0):
        raise ValueError(
            three_part(
                "a method that treats each example alone",
                f"adjoint_mix={method.adjoint_mix}, whose norms are over the batch, with {members} members",
                "Train these networks one by one: Ensemble([member], ...).",
            )
        )
