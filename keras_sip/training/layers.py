"""Keras layers around a simulator: SIPPhysicsLayer, the plain PhysicsLayer, Scale and Project."""

from typing import Any, Literal

import keras
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, three_part
from keras_sip.ops import batched
from keras_sip.simulators.base import Simulator, check_simulator_interface
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.solvers.base import InverseSolver
from keras_sip.training.checks import checked_solver

PRECISIONS = ("float16", "float32", "float64")


class _SimulatorLayer(keras.layers.Layer):
    """What the layers share: a simulator, whose precision is the layer's, whatever the Keras policy says."""

    def __init__(self, simulator: Simulator, **kwargs: Any):
        check_simulator_interface(simulator)
        # Keras would cast a float64 observation to its compute dtype; the physics keeps its own precision.
        super().__init__(dtype=simulator.dtype, autocast=False, **kwargs)
        self.simulator = simulator

    def _simulate(self, x, context):
        """P(x), after refusing a simulator that hides trainable variables."""
        with tf.GradientTape() as tape:
            y = self.simulator.forward(x, context)
        if tape.watched_variables():
            raise ValueError(
                three_part(
                    "`forward` to be a function of x and context alone",
                    f"a simulator that reads the trainable variables {[v.name for v in tape.watched_variables()]}",
                    "Create them with trainable=False, or pass what they hold as part of x or of the context.",
                )
            )
        if not y.shape[1:].is_compatible_with(self.simulator.y_shape):
            raise ValueError(
                three_part(
                    f"`forward` to return shape {('batch', *self.simulator.y_shape)}, as `y_shape` says",
                    f"shape {tuple(y.shape)}",
                    "Correct `y_shape` or `forward`.",
                )
            )
        return y

    def get_config(self):
        config = super().get_config()
        del config["dtype"]
        return {**config, "simulator": keras.saving.serialize_keras_object(self.simulator)}

    @classmethod
    def from_config(cls, config):
        nested = {name: keras.saving.deserialize_keras_object(config[name]) for name in cls._nested & set(config)}
        return cls(**{**config, **nested})

    _nested = frozenset({"simulator"})


@keras.saving.register_keras_serializable(package="keras_sip")
class PhysicsLayer(_SimulatorLayer):
    """y = P(x) with its ordinary gradient: training end to end through the simulator (Eq. 3 of the paper).

    Args:
        simulator: A `Simulator`.

    Call arguments: x `[B, *x_shape]`; context, a dict of `[B, ...]`, or None. Returns y `[B, *y_shape]`.
    """

    def call(self, x, context=None):
        return self._simulate(self.simulator.as_x(x), self.simulator.as_context(context))


@keras.saving.register_keras_serializable(package="keras_sip")
class SIPPhysicsLayer(_SimulatorLayer):
    """y = P(x), with the update U of an inverse solver in place of the physics gradient (Eqs. 6 and 7).

    Going backward, x receives

        -s_i * step_size * U_i / x_scale^2,    s_i = <g_i, d_i> / <d_i, d_i>

    for every example i: the gradient of the proxy 1/2 |x - x_tilde|^2 measured in x_scale, so that a network whose
    output near 1 becomes x by a layer `Scale(simulator)` learns alike in all units of x. g is the gradient that arrives
    at y, d = dL/dy that of the simulator's objective, so s_i is the factor that Keras put on the example's objective:
    batch size, cell count, sample weight, loss scale, replicas. For
    the losses that are multiples of the objective (`HalfSumOfSquares`, "mse" where the residual is y - y_target,
    `Objective(simulator)`) all of these act exactly as in back-propagation. The solver runs only when a gradient is
    asked for.

    **Without `y_target`** the observation is taken to be y - step_size * g and x receives -U_i. That is exact only
    for a summed, unweighted half sum of squares in float32 on one replica: with Keras' default average over the
    batch, it aims at a point 1/B of the way.

    **In a chain**, one layer's y being the next one's x, the factor s_i travels upstream by a link:

        y1, link = layer1(x, return_link=True)
        y2 = layer2(y1, y_target, link=link)

    layer2 hands s_i to layer1 as the gradient of the link, and -s_i * U_i as that of its x, which is no network's
    output and not measured in x_scale; layer1 aims at y1 - g / s_i.

    An example whose physics or update is not finite receives 0. A gradient that arrives non-finite, as when a float16
    loss scale overflows, stays visible.

    Args:
        simulator: A `Simulator`.
        solver: An `InverseSolver`, checked against the simulator here, or "auto".
        step_size: Factor on U.
        x_scale: Size of the components of x, broadcast against `[B, *x_shape]`; None takes the simulator's, 1 is off.
        y_precision: A precision below the simulator's, at which y_target is then accepted. Its rounding is passed to
            the solver as measurement noise, `context["noise_level"]` `[B]` (one standard deviation).

    Call arguments:
        x: `[B, *x_shape]`.
        y_target: The observation `[B, *y_shape]`, a constant to the layer, or None.
        context: What is known of each example, a dict of `[B, ...]`; constants to the layer.
        link: The link returned by the layer before, in a chain.
        return_link: Also return the link for the layer after.
    """

    _nested = frozenset({"simulator", "solver"})

    def __init__(
        self,
        simulator: Simulator,
        solver: InverseSolver | Literal["auto"],
        step_size: float = 1.0,
        x_scale: Any = None,
        *,
        y_precision: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(simulator, **kwargs)
        self._scaled = Nondimensional(simulator, x_scale)
        self.solver = checked_solver(solver, self._scaled)
        self.step_size = check_number("step_size", step_size, exclusive=True)
        self.y_precision = None if y_precision is None else check_choice("y_precision", y_precision, PRECISIONS)

    @property
    def x_scale(self):
        """Size of the components of x, in which the proxy is measured."""
        return self._scaled.scale

    def call(self, x, y_target=None, context=None, link=None, return_link=False):
        if y_target is not None and return_link:
            raise ValueError(
                three_part(
                    "a layer of a chain to have a y_target (the last) or to return a link (those before)",
                    "both y_target and return_link=True",
                    "Give the target to the last layer only.",
                )
            )
        x = self.simulator.as_x(x)
        # The target and the context are constants to the layer.
        context = self.simulator.as_context(context)
        context = context and {name: tf.stop_gradient(value) for name, value in context.items()}
        solver_context = context
        if y_target is not None:
            y_target, noise = self._accept_target(tf.stop_gradient(y_target))
            solver_context = context if noise is None else {"noise_level": noise, **(context or {})}
        # In a chain x is the y of the layer before, which takes the gradient of x for the change that y should make.
        scaled = self._scaled if link is None else Nondimensional(self.simulator, 1.0)
        link = tf.zeros(tf.shape(x)[:1], x.dtype) if link is None else tf.cast(link, x.dtype)

        @tf.custom_gradient
        def physics(x, link):
            y = self._simulate(x, context)

            def backward(y_gradient, link_gradient):
                if y_target is None:
                    scale, target = self._from_link(y, y_gradient, link_gradient)
                    factor = scale
                else:
                    scale, target = self._loss_scale(y, y_gradient, y_target, context), y_target
                    factor = self.step_size * scale
                z = scaled.from_physical(x)
                update = self.solver.solve(scaled, z, target, solver_context, y0=y).update
                x_gradient = -batched.expand(factor, update) * scaled.from_physical(update)
                # 0 * inf in an example that failed; an overflow of g makes the factor NaN and stays.
                x_gradient = batched.where_example(factor == 0, tf.zeros_like(x_gradient), x_gradient)
                return x_gradient, scale

            return (y, tf.identity(link)), backward

        y, link = physics(x, link)
        return (y, link) if return_link else y

    def _loss_scale(self, y, y_gradient, y_target, context):
        """s `[B]`: 0 where d = 0 or d is not finite; NaN where the gradient overflowed on the way."""
        gradient = self.simulator.objective_gradient(y, y_target, context)
        usable = batched.all_finite(gradient)
        gradient = batched.where_example(usable, gradient, tf.zeros_like(gradient))
        size = batched.max_abs(gradient)
        size = batched.expand(tf.where(size > 0, size, tf.ones_like(size)), gradient)
        square = batched.dot(gradient / size, gradient / size)
        scale = batched.dot(y_gradient / size, gradient / size) / tf.where(square > 0, square, tf.ones_like(square))
        return tf.where(usable & (square > 0), self._visible(scale, y_gradient), tf.zeros_like(scale))

    def _from_link(self, y, y_gradient, link_gradient):
        """(s, y*) of a layer without a target; outside a chain s is 1."""
        scale = tf.where(link_gradient == 0, tf.ones_like(link_gradient), link_gradient)
        target = y - self.step_size * y_gradient / batched.expand(scale, y)
        scale = tf.where(batched.all_finite(y), self._visible(scale, y_gradient), tf.zeros_like(scale))
        return scale, target

    @staticmethod
    def _visible(scale, y_gradient):
        finite = batched.all_finite(y_gradient)
        return tf.where(finite, scale, tf.constant(float("nan"), scale.dtype))

    def _accept_target(self, y_target):
        """(y_target in the simulator's precision, the noise level of its rounding `[B]` or None)."""
        y_target = tf.convert_to_tensor(y_target)
        coarse = tf.as_dtype(self.y_precision) if self.y_precision else None
        if coarse is None or coarse.size >= tf.as_dtype(self.simulator.dtype).size:
            return self.simulator.as_y(y_target), None
        target = self.simulator.as_y(tf.cast(y_target, self.simulator.dtype))
        epsilon = tf.cast(tf.experimental.numpy.finfo(coarse.as_numpy_dtype).eps, target.dtype)
        return target, epsilon * batched.max_abs(target)

    def get_config(self):
        return {
            **super().get_config(),
            "solver": keras.saving.serialize_keras_object(self.solver),
            "step_size": self.step_size,
            "x_scale": self.x_scale.tolist(),
            "y_precision": self.y_precision,
        }

    @classmethod
    def from_config(cls, config):
        # Version 0.1 measured the proxy in the units of x.
        return super().from_config({"x_scale": 1.0, **config})


@keras.saving.register_keras_serializable(package="keras_sip")
class Scale(_SimulatorLayer):
    """x = x_scale z: a network's output z near 1, in whatever precision, as x in the simulator's units and precision.

        x = keras_sip.Scale(simulator)(network_output)
        y = keras_sip.SIPPhysicsLayer(simulator, solver)(x, y_target=y_target)

    Its gradient is the ordinary one; together with that of `SIPPhysicsLayer` it makes training independent of the
    units of x.

    Args:
        simulator: A `Simulator`.
        x_scale: Size of the components of x, broadcast against `[B, *x_shape]`; None takes the simulator's.

    Call arguments: z `[B, *x_shape]`. Returns x `[B, *x_shape]`.
    """

    def __init__(self, simulator: Simulator, x_scale: Any = None, **kwargs: Any):
        super().__init__(simulator, **kwargs)
        self._scaled = Nondimensional(simulator, x_scale)

    @property
    def x_scale(self):
        """Size of the components of x."""
        return self._scaled.scale

    def call(self, z):
        return self._scaled.to_physical(self.simulator.as_x(z))

    def get_config(self):
        return {**super().get_config(), "x_scale": self.x_scale.tolist()}


@keras.saving.register_keras_serializable(package="keras_sip")
class Project(_SimulatorLayer):
    """x moved to what the observation tells about it: `simulator.project(x, observation)`.

    Call arguments: x `[B, *x_shape]`; observation, y `[B, *y_shape]` or {"y": ..., "context": ...}.
    """

    def call(self, x, observation):
        return self.simulator.project(self.simulator.as_x(x), observation)
