"""Constrained: a simulator whose x is positive or bounded, posed in an unknown that may be any number."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip._on_use import tensorflow_probability as tfp
from keras_sip.errors import three_part
from keras_sip.simulators.arguments import from_plain, plain
from keras_sip.simulators.base import SCALE_SAMPLES, Context, Simulator
from keras_sip.simulators.wrapper import SimulatorWrapper

# Arguments of bijectors that say nothing about the map.
OF_NO_MATTER = ("name", "dtype", "parameters", "validate_args", "validate_event_size", "maybe_changes_size")


@keras.saving.register_keras_serializable(package="keras_sip")
class Constrained(SimulatorWrapper):
    """The process P'(u) = P(g(u)), g a bijector of tensorflow-probability from all numbers onto the possible x.

        import tensorflow_probability as tfp

        positive = keras_sip.Constrained(simulator, tfp.bijectors.Softplus())
        bounded = keras_sip.Constrained(simulator, tfp.bijectors.Sigmoid(low=0.0, high=5.0))

    Everything works in u: the network's output, the solver's steps, a prior, `predict`, `refine` and the posterior; no
    step and no sample of a posterior leaves the possible x. `to_physical` gives x of u, `from_physical` u of x:

        x = bounded.to_physical(model.predict(y))
        x_samples = bounded.to_physical(model.posterior(y).sample(1000))     # quantiles map along, deviations do not

    `sample` draws the wrapped simulator's x as u; `distance` measures in x. `inverse` is the wrapped simulator's, where
    it has one and its x is possible. Spectral and reverse forms are gone: in u the process is another one.

    Args:
        simulator: The simulator of x.
        bijector: g, a `tfp.bijectors.Bijector` of each number by itself or one that keeps the shape of x. Of
            tensorflow-probability's own classes it is taken in the simulator's precision, and saved with the simulator.

    Raises:
        ValueError: g does not fit x's shape or precision, or its range misses samples of x.
    """

    adds_abilities = False
    # Of u, on samples.
    x_scale = Simulator.x_scale

    def __init__(self, simulator: Simulator, bijector: Any):
        super().__init__(simulator)
        self.bijector = self._checked_bijector(bijector)
        if simulator.has("sample"):
            with tf.init_scope():
                self.from_physical(simulator.sample(SCALE_SAMPLES, (0, 0))["x"])

    def to_physical(self, u: Any) -> tf.Tensor:
        """x = g(u)."""
        # Of a copy, here and below: bijectors remember what they made of a tensor, and tapes that began since have not
        # seen it.
        return self.bijector.forward(tf.identity(tf.convert_to_tensor(u, self.dtype)))

    def from_physical(self, x: Any) -> tf.Tensor:
        """u with g(u) = x; `ValueError` for x that g does not reach, where x is numbers and not a part of a graph."""
        x = tf.convert_to_tensor(x, self.dtype)
        u = self._unconstrained(x)
        if tf.executing_eagerly():
            self._check_range(x, u)
        return u

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self.physical.forward(self.to_physical(x), context)

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        return self._unconstrained(self.physical.inverse(y_target, self.to_physical(x_near), context))

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        sample = self.physical.sample(batch_size, seed)
        return {**sample, "x": self.from_physical(sample["x"])}

    def project(self, x: tf.Tensor, observation: Any) -> tf.Tensor:
        return self._unconstrained(self.physical.project(self.to_physical(x), observation))

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        return self.physical.distance(self.to_physical(x), self.to_physical(x_ref))

    def as_x(self, x: Any) -> tf.Tensor:
        return Simulator.as_x(self, x)

    def get_config(self) -> dict[str, Any]:
        return {"simulator": plain(self.physical), "bijector": _described(self.bijector)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Constrained":
        simulator = from_plain(config["simulator"])
        return cls(simulator, _built(config["bijector"], simulator.dtype))

    def __repr__(self) -> str:
        return f"Constrained({self.physical!r}, {type(self.bijector).__name__})"

    def _unconstrained(self, x):
        return self.bijector.inverse(tf.identity(x))

    def _checked_bijector(self, bijector):
        if not isinstance(bijector, tfp.bijectors.Bijector):
            raise TypeError(
                three_part(
                    "`bijector` to be a tfp.bijectors.Bijector",
                    f"a {type(bijector).__name__}",
                    "Pass an object such as tfp.bijectors.Softplus() or tfp.bijectors.Sigmoid(low=0.0, high=5.0).",
                )
            )
        # Python numbers are float32 to bijectors, unless told otherwise.
        bijector = _built(_described(bijector), self.dtype) if _is_own(bijector) else bijector
        try:
            x = bijector.forward(tf.zeros([2, *self.x_shape], self.dtype))
            received = f"x of shape {tuple(x.shape[1:])} and dtype {x.dtype.name}"
            fits = tuple(x.shape) == (2, *self.x_shape) and x.dtype.name == self.dtype
        except (TypeError, ValueError, tf.errors.OpError) as error:
            received, fits = f"{type(error).__name__}: {error}", False
        if not fits:
            raise ValueError(
                three_part(
                    f"a bijector from numbers of shape {tuple(self.x_shape)} and dtype {self.dtype} to such numbers",
                    f"{type(bijector).__name__}: {received}",
                    "Give it parameters that broadcast to x, of the simulator's dtype.",
                )
            )
        return bijector

    def _check_range(self, x, u):
        again = self.to_physical(u).numpy()
        tolerance = np.sqrt(np.finfo(self.dtype).eps) * np.max(np.abs(x), initial=0.0)
        missed = ~(np.isfinite(u) & (np.abs(again - x) <= tolerance))
        if np.any(missed):
            outside = np.asarray(x)[missed]
            raise ValueError(
                three_part(
                    f"x within the range of {type(self.bijector).__name__}",
                    f"{missed.sum()} of {missed.size} numbers outside of it or at its edge, between "
                    f"{outside.min():.6g} and {outside.max():.6g}",
                    "Take a bijector whose range holds all of x, its ends left out: Softplus() and Exp() give x > 0, "
                    "Sigmoid(low, high) low < x < high.",
                )
            )


def _is_own(bijector):
    """Whether a bijector, and those that it is made of, are classes of tensorflow-probability."""
    parts = tf.nest.flatten(list(bijector.parameters.values()))
    inner = [part for part in parts if isinstance(part, tfp.bijectors.Bijector)]
    return getattr(tfp.bijectors, type(bijector).__name__, None) is type(bijector) and all(map(_is_own, inner))


def _described(value):
    """A bijector, or an argument of one, in plain values."""
    if isinstance(value, tfp.bijectors.Bijector):
        name = type(value).__name__
        if not _is_own(value):
            raise TypeError(
                three_part(
                    "a bijector of tensorflow_probability.bijectors, to be saved",
                    f"a {type(value).__module__}.{name}",
                    "Compose it of tensorflow-probability's own, such as Chain([Shift(1.0), Exp()]).",
                )
            )
        given = {key: entry for key, entry in value.parameters.items() if key not in OF_NO_MATTER}
        return {"bijector": name, **{key: _described(entry) for key, entry in given.items() if entry is not None}}
    if isinstance(value, list | tuple) and any(isinstance(entry, tfp.bijectors.Bijector) for entry in value):
        return [_described(entry) for entry in value]
    return np.asarray(value).tolist()


def _built(value, dtype):
    """What `_described` described."""
    if isinstance(value, dict):
        arguments = {key: _built(entry, dtype) for key, entry in value.items() if key != "bijector"}
        return getattr(tfp.bijectors, value["bijector"])(**arguments)
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return [_built(entry, dtype) for entry in value]
    return np.asarray(value, dtype) if np.asarray(value).dtype.kind == "f" else value
