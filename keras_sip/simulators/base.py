"""Simulator: the physical process y = P(x), and what is known of its inverse."""

import inspect

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_positive_int, three_part

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
    `project`, `distance`, `x_scale`, `prefers_xla`.

    `context` is a dict of tensors `[B, ...]` of what is known of each example and is not to be found: sensor masks,
    noise levels, an initial state.

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

    dtype = "float32"
    # Whether forward, its solvers and sample run faster under XLA on a CPU too: a measurement, see
    # benchmarks/train_step.py and benchmarks/fluid.py. What is compiled must then be XLA's, `sample` included.
    prefers_xla = False
    # P mode by mode, a `DiagonalForm`, where it is linear and diagonal in a spectral basis: see `SpectralSimulator`.
    diagonal_form = None
    # What a run backward in time tells about x, a `ReverseForm`, where the process can be reversed.
    reverse_form = None

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(
                three_part(
                    f"the arguments of `{cls.__name__}{inspect.signature(cls)}`",
                    str(error),
                    "Correct the call; arguments after `*` are given by name.",
                )
            ) from None
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

    def forward(self, x, context=None):
        """y = P(x): `[B, *x_shape] -> [B, *y_shape]`."""
        raise NotImplementedError(
            three_part(
                f"`{type(self).__name__}` to define `forward(self, x, context=None)`",
                "a simulator without it",
                "Write the physical process y = P(x) there, in TensorFlow operations.",
            )
        )

    def __call__(self, x, context=None):
        """`forward` on NumPy arrays or tensors, with the shape and the precision of x checked first."""
        return self.forward(self.as_x(x), self.as_context(context))

    def residual(self, y, y_target, context=None):
        """r `[B, ...]`, zero where y explains y_target. Default: y - y_target."""
        return y - y_target

    def objective(self, y, y_target, context=None):
        """L `[B]` = 1/2 sum r^2 (Eq. 1). Override it only where L is no half sum of squares."""
        residual = self.residual(y, y_target, context)
        return 0.5 * tf.reduce_sum(tf.square(residual), axis=list(range(1, residual.shape.rank)))

    def objective_gradient(self, y, y_target, context=None):
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

    def inverse(self, y_target, x_near, context=None):
        """The exact inverse, or the local one nearest to `x_near`: x with P(x) = y_target."""
        raise NotImplementedError(
            three_part(
                f"`{type(self).__name__}` to define `inverse(self, y_target, x_near, context=None)`",
                "a simulator without a known inverse",
                "Add the method, or use a solver that needs none, such as GaussNewton() or LevenbergMarquardt().",
            )
        )

    def sample(self, batch_size, seed):
        """Random examples `{"x", "y"}`, with "context" where there is one; a function of `seed` alone.

        `seed` is what TensorFlow's stateless random functions take: two integers, as a tuple or a tensor `[2]`.
        """
        raise NotImplementedError(
            three_part(
                f"`{type(self).__name__}` to define `sample(self, batch_size, seed)`",
                "a simulator without random examples",
                "Add the method, or train on your own arrays with keras_sip.from_arrays(...).",
            )
        )

    def network_input(self, observation):
        """What the network sees `[B, ...]` of an observation: y, or {"y": ..., "context": ...}. Default: y."""
        return split_observation(observation)[0]

    def project(self, x, observation):
        """x moved to what is known of it from the observation (a conserved mean, say). Default: x."""
        return x

    def distance(self, x, x_ref):
        """Error of x per example `[B]`. Default: the mean absolute error per component."""
        error = tf.abs(x - x_ref)
        return tf.reduce_mean(error, axis=list(range(1, error.shape.rank)))

    @property
    def x_scale(self):
        """Size of the components of x, broadcast against `[B, *x_shape]`.

        Default: the root mean square of each entry of the last axis, measured on the first samples where the
        simulator has them, else 1.
        """
        if not self.has("sample"):
            return 1.0
        if not hasattr(self, "_measured_x_scale"):
            # Asked for while a graph is traced, the samples must still be drawn as numbers.
            with tf.init_scope():
                self._measured_x_scale = root_mean_square(self.sample(SCALE_SAMPLES, (0, 0))["x"])
        return self._measured_x_scale

    @property
    def is_least_squares(self):
        """Whether L is 1/2 sum r^2, which Gauss-Newton solvers need."""
        return not self.has("objective")

    def has(self, method):
        """Whether an optional method ("inverse", "sample", ...) is there, beyond the default."""
        return getattr(type(self), method) is not getattr(Simulator, method)

    def get_config(self):
        return {name: _plain(value) for name, value in self._init_arguments.items()}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    def as_x(self, x):
        """x as a tensor `[B, *x_shape]` in the simulator's precision; a lower precision is widened."""
        return self._as_field("x", x, self.x_shape, widen=True)

    def as_y(self, y, *, name="y_target"):
        """y as a tensor `[B, *y_shape]`; a precision below the simulator's is refused, not widened."""
        return self._as_field(name, y, self.y_shape, widen=False)

    def as_context(self, context):
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

    def _as_field(self, name, value, shape, *, widen):
        if not tf.is_tensor(value):
            value = np.asarray(value)
        tensor = tf.convert_to_tensor(value)
        expected = f"`{name}` of shape {('batch', *shape)} and dtype {self.dtype} for {type(self).__name__}"
        if tensor.shape.rank is not None and not tensor.shape[1:].is_compatible_with(shape):
            raise ValueError(
                three_part(
                    expected,
                    f"shape {tuple(tensor.shape)}",
                    "The batch is the leading axis; check the resolution and the channel axis.",
                )
            )
        dtype = tf.as_dtype(self.dtype)
        if not tensor.dtype.is_floating or (tensor.dtype.size < dtype.size and not widen):
            raise TypeError(
                three_part(
                    expected,
                    f"dtype {tensor.dtype.name}",
                    f"Keep `{name}` in {self.dtype} from its source on (keras_sip.from_arrays does; Keras' own array "
                    "input casts to float32), or state its precision with SIPPhysicsLayer(y_precision=...)."
                    if tensor.dtype.is_floating
                    else f"Convert it: np.asarray({name}, {self.dtype!r}).",
                )
            )
        return tf.cast(tensor, dtype)


def split_observation(observation):
    """(y, context) of an observation, which is y or {"y": ..., "context": ...}."""
    if not isinstance(observation, dict):
        return observation, None
    unknown = set(observation) - {"y", "context"}
    if "y" not in observation or unknown:
        raise ValueError(
            three_part(
                'an observation to be y, or a dict {"y": ..., "context": {...}}',
                f"a dict with the keys {sorted(observation)}",
                "Put what is known of each example, and is not y, under 'context'.",
            )
        )
    return observation["y"], observation.get("context")


def join_observation(y, context=None):
    """The observation of y and its context: y alone where there is no context."""
    return y if context is None else {"y": y, "context": context}


def check_simulator_interface(simulator):
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


def check_resolution(resolution, *, dimensions=(1, 2, 3)):
    """`resolution` as a tuple of positive ints; a single int is one dimension."""
    sizes = (resolution,) if isinstance(resolution, (int, np.integer)) else resolution
    if not isinstance(sizes, (tuple, list)) or len(sizes) not in dimensions:
        raise ValueError(
            three_part(
                f"`resolution` to be the number of cells along each of {' or '.join(map(str, dimensions))} axes",
                f"resolution={resolution!r}",
                f"Pass a tuple such as {(64,) * dimensions[-1]}.",
            )
        )
    return tuple(check_positive_int("resolution", size) for size in sizes)


def root_mean_square(field):
    """Root mean square of each entry of the last axis `[C]` as nested floats; 1 where it vanishes."""
    values = np.asarray(field, np.float64)
    peak = np.max(np.abs(values), axis=tuple(range(values.ndim - 1)))
    peak = np.where(peak > 0, peak, 1.0)
    scale = peak * np.sqrt(np.mean(np.square(values / peak), axis=tuple(range(values.ndim - 1))))
    return np.where(scale > 0, scale, 1.0).tolist()


def _plain(value):
    """A constructor argument as JSON can hold it."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if tf.is_tensor(value):
        return value.numpy().tolist()
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value
