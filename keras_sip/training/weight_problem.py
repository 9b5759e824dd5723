"""The loss of a batch as a function of all weights, for optimizers that need more than its gradient."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops import batched, derivatives
from keras_sip.optimizers.second_order import SecondOrderOptimizer
from keras_sip.training.methods import Batch, TrainingMethod
from keras_sip.training.network import ScaledNetwork
from keras_sip.training.physics import ScaledPhysics


class GaussNewtonModel(NamedTuple):
    """L around the present weights, in units of its value there: L(w + p) / L(w) - 1 ~ g . p + 1/2 p . G p.

    Attributes:
        gradient: g `[n]`.
        product: v `[n]` -> G v with the generalized Gauss-Newton matrix G; it may be called in a while loop.
        loss_change: p `[n]` -> L(w + p) / L(w) - 1, a scalar.
    """

    gradient: tf.Tensor
    product: Callable
    loss_change: Callable


class WeightProblem:
    """L(w) = sum_i weight_i L_i(w) + penalties, of one batch and all trainable weights w as one vector `[n]`.

    L_i is what the training method descends: through the simulator for "adjoint", the distance to a fixed x0 + U for
    "sip". An example whose update failed has weight 0.

    Evaluations change nothing: the network's moving statistics and seeds are as they were when the problem was made,
    and so the same in each. `keep_state` lets the statistics take in the batch, once.

    Args:
        physics: A `ScaledPhysics`.
        network: A `ScaledNetwork`.
        method: The training method.
        batch: A `Batch`.
    """

    def __init__(self, physics: ScaledPhysics, network: ScaledNetwork, method: TrainingMethod, batch: Batch):
        self._physics, self._network, self._batch = physics, network, batch
        self.variables = network.trainable_variables
        self._sizes = [variable.shape.num_elements() for variable in self.variables]
        self.weights = self.join(self.variables)
        self._fixed = network.network.non_trainable_variables
        self._state = [tf.identity(variable.value) for variable in self._fixed]
        # The two derivatives that optimizers ask for most start from this one evaluation of the network.
        self._of_gradient, self._of_loss = tf.GradientTape(persistent=True), tf.GradientTape(persistent=True)
        with self._of_gradient, self._of_loss:
            self._of_gradient.watch(self.weights)
            self._of_loss.watch(self.weights)
            self._z, self._penalties, self._new_state = self._predict(self.weights)
        self.report = method.desired_update(physics, batch, tf.stop_gradient(self._z))
        self._residual = method.residual(physics, batch, self.report)
        self._objective = method.objective(physics, batch, self.report)
        self._sound = ~self.report.failed

    def keep_state(self):
        """Give the network the moving statistics that its first evaluation made."""
        for variable, value in zip(self._fixed, self._new_state, strict=True):
            variable.assign(value)

    def loss(self, weights):
        """L `[]`."""
        z, penalties, _ = self._predict(weights)
        return self._total(z, penalties)

    def gradient(self):
        """dL/dw `[n]`."""
        with self._of_loss:
            loss = self._total(self._z, self._penalties)
        return self._of_loss.gradient(loss, self.weights)

    def gradient_and_hessian_product(self, v):
        """(dL/dw, H v), both `[n]`: the derivative of the gradient along v."""
        with self._of_gradient:
            gradient = self.gradient()
        return gradient, self._of_gradient.gradient(gradient, self.weights, output_gradients=v)

    def gauss_newton(self):
        """The `GaussNewtonModel` of L; only where L_i = 1/2 sum r^2."""
        start = tf.stop_gradient(self._weighted_residual(self.weights))
        norm = batched.norm(start[None])[0]
        unit = tf.where(norm > 0, norm / 2**0.5, tf.ones_like(norm))

        def residual(weights):
            return self._weighted_residual(weights) / unit

        def loss_change(step):
            change = residual(self.weights + step) - start / unit
            # |r + d|^2 - |r|^2 as d . (2 r + d): the difference of the squares would drown in rounding.
            return tf.cast(0.5 * tf.reduce_sum(change * (2 * start / unit + change)), step.dtype)

        value, product, transposed = derivatives.linearize(residual, self.weights)
        return GaussNewtonModel(transposed(value), lambda v: transposed(product(v)), loss_change)

    def linearized_residual(self):
        """(r `[m]`, v `[n]` -> J v, u `[m]` -> J^T u) with J = dr/dw; only where L_i = 1/2 sum r^2.

        r holds the residuals of all examples, each times sqrt(weight_i): L = 1/2 |r|^2 without penalties.
        """
        return derivatives.linearize(self._weighted_residual, self.weights)

    def jacobian(self):
        """(r `[m]`, J `[m, n]`), r as in `linearized_residual`, J dense: for few residuals.

        The physics is differentiated with respect to x, example by example, and only the network with respect to its
        weights: min(x_size, r_size) sweeps through the simulator, and one through the network for each residual, all at
        once.
        """
        z = tf.stop_gradient(self._z)

        def of_sound_examples(z):
            return self._of_sound_examples(self._residual, z)

        def linearized(z):
            return of_sound_examples(z), derivatives.jacobian(of_sound_examples, z)

        residual, of_physics = self._physics.compiled(linearized)(z)
        factor = tf.sqrt(self._weight(residual))
        of_physics *= batched.expand(factor, of_physics)
        with self._of_gradient:
            flat = tf.reshape(self._z, [-1, 1, of_physics.shape[2]])
            projected = tf.reshape(tf.reduce_sum(of_physics * flat, axis=2), [-1])
        jacobian = self._of_gradient.jacobian(projected, self.weights, unconnected_gradients="zero")
        return tf.reshape(residual * batched.expand(factor, residual), [-1]), jacobian

    def join(self, tensors):
        """One vector `[n]` of a tensor for each variable."""
        return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)

    def split(self, vector):
        """A tensor for each variable."""
        parts = tf.split(vector, self._sizes)
        return [tf.reshape(part, variable.shape) for part, variable in zip(parts, self.variables, strict=True)]

    def _predict(self, weights):
        """(z, penalties, new state) of the network with these weights; no variable is changed."""
        values = [*zip(self.variables, self.split(weights), strict=True), *zip(self._fixed, self._state, strict=True)]
        with keras.StatelessScope(state_mapping=values, collect_losses=True) as scope:
            z, penalties = self._network(self._batch.observation, training=True)
        return z, penalties, [scope.get_current_value(variable) for variable in self._fixed]

    def _total(self, z, penalties):
        losses = self._of_sound_examples(self._objective, z)
        return tf.reduce_sum(losses * self._weight(losses)) + sum(tf.cast(value, losses.dtype) for value in penalties)

    def _weighted_residual(self, weights):
        """sqrt(weight_i) r_i of all examples as one vector."""
        z, _, _ = self._predict(weights)
        residual = self._of_sound_examples(self._residual, z)
        return tf.reshape(residual * batched.expand(tf.sqrt(self._weight(residual)), residual), [-1])

    def _of_sound_examples(self, function, z):
        """`function(z)` with zeros, of zero derivatives, for failed examples."""
        # Twice: the derivative of what is not chosen is 0 times something that must be finite.
        values = function(batched.where_example(self._sound, z, tf.zeros_like(z)))
        return batched.where_example(self._sound, values, tf.zeros_like(values))

    def _weight(self, like):
        return tf.cast(self._batch.weight, like.dtype)


def training_step(
    physics: ScaledPhysics,
    network: ScaledNetwork,
    method: TrainingMethod,
    optimizer: keras.optimizers.Optimizer,
    replicas: int = 1,
) -> Callable:
    """`(physics, network, batch) -> StepReport`: how the method and the optimizer change the weights.

    Raises:
        ValueError: They do not go together.
    """
    if not isinstance(optimizer, SecondOrderOptimizer):
        return method.train_step
    _check(physics, network.network, method, optimizer, replicas)
    return functools.partial(_second_order_step, method, optimizer)


def _second_order_step(method, optimizer, physics, network, batch):
    problem = WeightProblem(physics, network, method, batch)
    optimizer.take_step(problem)
    problem.keep_state()
    return problem.report


def _check(physics, network, method, optimizer, replicas):
    name = type(optimizer).__name__
    refused = None
    if replicas > 1:
        refused = f"{replicas} replicas", "Train on one device, or use a first-order optimizer."
    elif network.compute_dtype == "float16":
        refused = (
            "a network that computes in float16",
            "Second derivatives overflow there: build the network under the policy 'float32' or 'mixed_bfloat16'.",
        )
    elif method.optimizer_steps > 1:
        refused = (
            f"a method that takes {method.optimizer_steps} optimizer steps for one batch",
            "Leave updates_per_solve at 1: one such step goes further than several of a first-order optimizer.",
        )
    elif method.proxy != "l2":
        refused = (
            f"a method with proxy={method.proxy!r}, whose second derivatives vanish",
            "Use proxy='l2', or a first-order optimizer.",
        )
    elif optimizer.needs_least_squares and not method.is_least_squares(physics):
        refused = (
            f"the objective of {physics.simulator!r}, which is no half sum of squares",
            "Use AdaHessian, or a simulator that defines `residual` and not `objective`.",
        )
    elif optimizer.needs_independent_examples and _normalizes_batches(network):
        refused = (
            "a network with batch norm, whose residuals depend on all examples of the batch",
            "Build it without (keras_sip.MLP and FNO have none), or use HessianFree or AdaHessian.",
        )
    elif optimizer.needs_least_squares and network.losses:
        refused = (
            "a network with weight penalties, which are no residuals",
            "Remove the regularizers (the optimizer's weight_decay acts alike), or use AdaHessian.",
        )
    if refused:
        received, remedy = refused
        raise ValueError(three_part(f"a model that {name} can train", received, remedy))


def _normalizes_batches(network):
    layers = network._flatten_layers(include_self=False)
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
