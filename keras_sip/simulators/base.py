"""Simulator: the physical process y = P(x), and what is known of its inverse."""

import functools
import inspect
from typing import Any, Self

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, must_define, three_part
from keras_sip.simulators.abilities import FORMS, Ability
from keras_sip.simulators.arguments import (
    FIELDS,
    as_entry_spec,
    as_field,
    check_resolution,
    from_plain,
    join_observation,
    plain,
    split_observation,
    taking_arrays,
)

__all__ = [
    "Ability",
    "Simulator",
    "check_resolution",
    "check_simulator_interface",
    "join_observation",
    "root_mean_square",
    "split_observation",
]
Context = dict[str, Any] | None

# Enough examples for a root mean square within a few per cent, cheap enough to draw when a model is made.
SCALE_SAMPLES = 256


class Simulator:
    """A physical process P that maps causes x to observations y, batch by batch.

    The batch is the leading axis of every tensor; the shapes below leave it out.

    **Must override** (as class attributes, properties, or set in `__init__`):

    - `x_shape`, `y_shape`: tuples of ints; `dtype`: "float32" or "float64", the precision of the physics, whatever the
      Keras policy is;
    - `forward(x, context=None)`: y = P(x) in pure TensorFlow: differentiable, static shapes, no trainable variables,
      examples independent of each other.

    **May override**, each with a sound default: `residual`, `objective`, `inverse`, `sample`, `network_input`,
    `project`, `distance`, `x_scale`, `context_shape`, `sensors`, `prefers_xla`, `diagonal_form`, `reverse_form`.
    Whether a simulator has one of them is asked by `simulator.has(Ability.INVERSE)`.

    `context` is a dict of tensors `[B, ...]` of what is known of each example and is not to be found: sensor masks,
    noise levels, an initial state. `context_shape` says its entries.

    `forward`, `inverse`, `residual` and `objective`, those of subclasses too, are handed tensors: NumPy arrays and
    lists that callers pass are converted to `dtype` first.

    Constructor arguments are recorded, so that a subclass needs no `get_config` of its own as long as they are plain
    values (numbers, strings, lists, arrays). To save and load models, register the class:
    `@keras.saving.register_keras_serializable(package="my_project")`.

    Example, a decay seen at 16 times; x = (amplitude, rate):

        class Decay(Simulator):
            x_shape, y_shape, dtype = (2,), (16,), "float32"

            def forward(self, x, context=None):
                time = tf.linspace(0.0, 1.0, 16)
                return x[:, :1] * tf.exp(-x[:, 1:] * time)

    Source: the paper's Eq. 1; the split into process and known inverse is its Section 3.
    """

    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    dtype = "float32"
    # Whether forward, its solvers and sample run faster under XLA on a CPU too: a measurement, see
    # benchmarks/train_step.py and benchmarks/fluid.py. What is compiled must then be XLA's, `sample` included.
    prefers_xla: bool | None = None
    # P mode by mode, a `DiagonalForm`, where it is linear and diagonal in a spectral basis: see `SpectralSimulator`.
    diagonal_form: Any = None
    # 1 where y is measured and 0 elsewhere, broadcast against `[B, *y_shape]`; None where it is measured everywhere.
    sensors: Any = None
    # What a run backward in time tells about x, a `ReverseForm`, where the process can be reversed.
    reverse_form: Any = None
    _init_call: tuple
    _init_arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name in FIELDS:
            if inspect.isfunction(vars(cls).get(name)):
                setattr(cls, name, taking_arrays(vars(cls)[name]))

    def __new__(cls, *args: Any, **kwargs: Any):
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(
                three_part(
                    f"the arguments of `{cls.__name__}{_shown_signature(cls)}`",
                    str(error),
                    "Correct the call; arguments after `*` are given by name.",
                )
            ) from None
        # What copying and pickling make an equal simulator from, before the state is copied.
        self._init_call = bound.args[1:], bound.kwargs
        recorded = {}
        for name, value in list(bound.arguments.items())[1:]:
            kind = bound.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                recorded.update(value)
            elif kind is not inspect.Parameter.VAR_POSITIONAL:
                recorded[name] = value
        self._init_arguments = recorded
        return self

    def __init__(self):
        pass

    def __getnewargs_ex__(self):
        return self._init_call

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        """y = P(x): `[B, *x_shape] -> [B, *y_shape]`."""
        raise must_define(
            self,
            "forward(self, x, context=None)",
            "a simulator without it",
            "Write the physical process y = P(x) there, in TensorFlow operations.",
        )

    def __call__(self, x: Any, context: Context = None) -> tf.Tensor:
        """`forward` on NumPy arrays or tensors, with the shape and the precision of x checked first."""
        return self.forward(self.as_x(x), self.as_context(context))

    @taking_arrays
    def residual(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        """r `[B, ...]`, zero where y explains y_target. Default: y - y_target."""
        return y - y_target

    @taking_arrays
    def objective(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        """L `[B]` = 1/2 sum r^2 (Eq. 1). Override it only where L is no half sum of squares."""
        residual = self.residual(y, y_target, context)
        return 0.5 * tf.reduce_sum(tf.square(residual), axis=list(range(1, residual.shape.rank)))

    def objective_gradient(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        """dL/dy `[B, *y_shape]`. Exact also where L itself underflows (y in units of 1e-21)."""
        with tf.GradientTape() as tape:
            tape.watch(y)
            if self.is_least_squares:
                value = self.residual(y, y_target, context)
                cotangent = value
            else:
                value = self.objective(y, y_target, context)
                cotangent = tf.ones_like(value)
        return tape.gradient(value, y, output_gradients=cotangent, unconnected_gradients="zero")

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        """The exact inverse, or the local one nearest to `x_near`: x with P(x) = y_target."""
        raise must_define(
            self,
            "inverse(self, y_target, x_near, context=None)",
            "a simulator without a known inverse",
            "Add the method, or use a solver that needs none, such as GaussNewton() or LevenbergMarquardt().",
        )

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        """Random examples `{"x", "y"}`, with "context" where there is one; a function of `seed` alone.

        `seed` is what TensorFlow's stateless random functions take: two integers, as a tuple or a tensor `[2]`.
        """
        raise must_define(
            self,
            "sample(self, batch_size, seed)",
            "a simulator without random examples",
            "Add the method, or train on your own arrays with keras_sip.from_arrays(...).",
        )

    def network_input(self, observation: Any) -> Any:
        """What the network sees `[B, ...]` of an observation: y, or {"y": ..., "context": ...}. Default: y."""
        return split_observation(observation)[0]

    def project(self, x: tf.Tensor, observation: Any) -> tf.Tensor:
        """x moved to what is known of it from the observation (a conserved mean, say). Default: x."""
        return x

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        """Error of x per example `[B]`. Default: the mean absolute error per component."""
        error = tf.abs(x - x_ref)
        return tf.reduce_mean(error, axis=list(range(1, error.shape.rank)))

    @property
    def x_scale(self) -> Any:
        """Size of the components of x, broadcast against `[B, *x_shape]`.

        Default: the root mean square of each entry of the last axis, measured on the first samples where the
        simulator has them, else 1.
        """
        return self._measured_x_scale if self.has(Ability.SAMPLE) else 1.0

    @property
    def context_shape(self) -> dict[str, Any] | None:
        """The entries of the context: {name: shape without the batch axis}, or {name: (shape, dtype)}.

        {} where there is no context; None where nobody knows. Entries without a dtype have the simulator's. Default:
        read off a sample where the simulator has them.
        """
        return self._sampled_context_shape if self.has(Ability.SAMPLE) else None

    def context_spec(self) -> dict[str, tf.TensorSpec] | None:
        """`context_shape` as specs with a free batch size; None where nobody knows."""
        entries = self.context_shape
        return None if entries is None else {n: as_entry_spec(n, entry, self.dtype) for n, entry in entries.items()}

    @property
    def is_least_squares(self) -> bool:
        """Whether L is 1/2 sum r^2, which Gauss-Newton solvers need."""
        return not self.has(Ability.OBJECTIVE)

    def has(self, ability: Ability | str) -> bool:
        """Whether an optional ability is there, beyond the default; `ValueError` for a name that is none."""
        ability = Ability(ability)
        if ability in FORMS:
            return getattr(self, ability) is not None
        return getattr(type(self), ability) is not getattr(Simulator, ability)

    def get_config(self) -> dict[str, Any]:
        return {name: plain(value) for name, value in self._init_arguments.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{name: from_plain(value) for name, value in config.items()})

    def __repr__(self) -> str:
        shown = {n: v if isinstance(v, Simulator) else plain(v) for n, v in self._init_arguments.items()}
        arguments = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}({arguments})"

    def as_x(self, x: Any) -> tf.Tensor:
        """x as a tensor `[B, *x_shape]` in the simulator's precision; a lower precision is widened."""
        return as_field(self, "x", x, self.x_shape, widen=True)

    def as_y(self, y: Any, *, name: str = "y_target") -> tf.Tensor:
        """y as a tensor `[B, *y_shape]`; a precision below the simulator's is refused, not widened."""
        return as_field(self, name, y, self.y_shape, widen=False)

    def as_context(self, context: Context) -> dict[str, tf.Tensor] | None:
        """The context as a dict of tensors, floating-point entries in the simulator's precision; None stays None."""
        if context is None:
            return None
        if not isinstance(context, dict):
            raise TypeError(
                three_part(
                    "`context` to be a dict of names to tensors with a leading batch axis, or None",
                    f"a {type(context).__name__}",
                    'Pass context={"name": values}.',
                )
            )
        tensors = {name: tf.convert_to_tensor(value) for name, value in context.items()}
        return {name: tf.cast(t, self.dtype) if t.dtype.is_floating else t for name, t in tensors.items()}

    # Asked for while a graph is traced, samples must still be drawn as numbers.
    @functools.cached_property
    def _measured_x_scale(self):
        with tf.init_scope():
            return root_mean_square(self.sample(SCALE_SAMPLES, (0, 0))["x"])

    @functools.cached_property
    def _sampled_context_shape(self):
        with tf.init_scope():
            context = self.sample(1, (0, 0)).get("context") or {}
        tensors = {name: tf.convert_to_tensor(entry) for name, entry in context.items()}
        return {name: (tuple(entry.shape[1:]), entry.dtype.name) for name, entry in tensors.items()}


def check_simulator_interface(simulator: Any) -> Simulator:
    """`TypeError` unless `simulator` has what every simulator must have."""
    missing = [name for name in ("x_shape", "y_shape", "dtype") if not hasattr(simulator, name)]
    if not isinstance(simulator, Simulator) or missing:
        raise TypeError(
            three_part(
                "a keras_sip.Simulator with `x_shape`, `y_shape` and `dtype`",
                f"a {type(simulator).__name__}" + (f" without {', '.join(missing)}" if missing else ""),
                "Subclass keras_sip.Simulator, or make one of a function with keras_sip.from_function(fn, x_shape).",
            )
        )
    check_choice("dtype", simulator.dtype, ("float32", "float64"))
    return simulator


def root_mean_square(field: Any) -> Any:
    """Root mean square of each entry of the last axis `[C]` as nested floats; 1 where it vanishes."""
    values = np.asarray(field, np.float64)
    peak = np.max(np.abs(values), axis=tuple(range(values.ndim - 1)))
    peak = np.where(peak > 0, peak, 1.0)
    scale = peak * np.sqrt(np.mean(np.square(values / peak), axis=tuple(range(values.ndim - 1))))
    return np.where(scale > 0, scale, 1.0).tolist()


def _shown_signature(cls):
    """The arguments without their types, which would hide the names."""
    signature = inspect.signature(cls)
    plain_parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=plain_parameters, return_annotation=signature.empty)
