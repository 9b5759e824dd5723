"""A plain TensorFlow function as a simulator."""

import inspect
from collections.abc import Callable
from typing import Any, Self

import keras
import tensorflow as tf

from keras_sip.errors import check_choice, check_positive_int, three_part
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.base import Context, Simulator


def from_function(
    fn: Callable,
    x_shape: int | tuple[int, ...],
    *,
    y_shape: int | tuple[int, ...] | None = None,
    dtype: str = "float32",
    inverse: Callable | None = None,
    sample: Callable | None = None,
    x_scale: Any = None,
    context_shape: dict[str, Any] | None = None,
) -> Simulator:
    """The simulator y = fn(x) of a TensorFlow function.

    Args:
        fn: `fn(x)` or `fn(x, context)`, `[B, *x_shape] -> [B, *y_shape]`, examples independent of each other.
        x_shape: Shape of x without the batch axis; an int n stands for (n,).
        y_shape: Shape of y without the batch axis; None finds it by tracing `fn`, with the context of `context_shape`.
        dtype: "float32" or "float64".
        inverse: Optional `inverse(y_target, x_near)`, the exact or local inverse.
        sample: Optional `sample(batch_size, seed) -> x`, random causes from a stateless seed.
        x_scale: Size of the components of x; None measures it on samples where there are any, else 1.
        context_shape: The entries of the context that `fn` takes, {name: shape without the batch axis} or {name:
            (shape, dtype)}; exports need it.

    Models around an unregistered function train and predict, but cannot be saved: Keras could not find the function
    again. The error then names the decorator line to add.
    """
    return FunctionSimulator(
        fn,
        x_shape,
        y_shape=y_shape,
        dtype=dtype,
        inverse=inverse,
        sample=sample,
        x_scale=x_scale,
        context_shape=context_shape,
    )


@keras.saving.register_keras_serializable(package="keras_sip")
class FunctionSimulator(Simulator):
    """What `from_function` returns."""

    def __init__(
        self,
        fn: Callable,
        x_shape: int | tuple[int, ...],
        *,
        y_shape: int | tuple[int, ...] | None = None,
        dtype: str = "float32",
        inverse: Callable | None = None,
        sample: Callable | None = None,
        x_scale: Any = None,
        context_shape: dict[str, Any] | None = None,
    ):
        check_choice("dtype", dtype, ("float32", "float64"))
        _check_callable("fn", fn)
        for name, function in (("inverse", inverse), ("sample", sample)):
            if function is not None:
                _check_callable(name, function)
        self.x_shape = _checked_shape("x_shape", x_shape)
        self.dtype = dtype
        self._functions: dict[str, Any] = {"forward": fn, "inverse": inverse, "sample": sample}
        self._declared_x_scale = x_scale
        self._declared_context_shape = context_shape
        self._takes_context = "context" in inspect.signature(fn).parameters
        self.y_shape = self._traced_y_shape() if y_shape is None else _checked_shape("y_shape", y_shape)

    def _traced_y_shape(self):
        specs = [tf.TensorSpec((None, *self.x_shape), self.dtype)]
        if self._takes_context and self._declared_context_shape:
            specs.append(self.context_spec())
        try:
            y = tf.function(self.forward).get_concrete_function(*specs).structured_outputs
        except Exception as error:  # whatever the user's function raises
            raise ValueError(
                three_part(
                    f"`fn` to map x of shape {('batch', *self.x_shape)} and dtype {self.dtype} to one tensor",
                    f"{type(error).__name__}: {error}",
                    "Write fn for a leading batch axis of any size; state context_shape if it takes a context.",
                )
            ) from error
        static = tf.is_tensor(y) and y.shape.rank and y.shape[0] is None and None not in y.shape[1:]
        if not static or y.dtype != self.dtype:
            raise ValueError(
                three_part(
                    f"`fn` to return one tensor ('batch', *y_shape) of static shape and dtype {self.dtype}",
                    f"shape {y.shape} and dtype {y.dtype.name}" if tf.is_tensor(y) else f"{y!r}",
                    "Return one tensor whose leading axis is the batch, in the dtype of x, its other sizes static.",
                )
            )
        return tuple(y.shape[1:])

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        fn = self._functions["forward"]
        return fn(x, context) if self._takes_context else fn(x)

    def inverse(self, y_target: tf.Tensor, x_near: tf.Tensor, context: Context = None) -> tf.Tensor:
        if self._functions["inverse"] is None:
            return super().inverse(y_target, x_near, context)
        return self._functions["inverse"](y_target, x_near)

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        if self._functions["sample"] is None:
            return super().sample(batch_size, seed)
        x = tf.cast(self._functions["sample"](batch_size, seed), self.dtype)
        return {"x": x, "y": self.forward(x)}

    @property
    def x_scale(self) -> Any:
        return super().x_scale if self._declared_x_scale is None else self._declared_x_scale

    @property
    def context_shape(self) -> dict[str, Any] | None:
        if self._declared_context_shape is None and not self._takes_context:
            return {}
        return self._declared_context_shape

    def has(self, ability: Ability | str) -> bool:
        if ability in (Ability.INVERSE, Ability.SAMPLE):
            return self._functions[ability] is not None
        return super().has(ability)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "x_shape": list(self.x_shape)}
        functions = {"fn": self._functions["forward"], **self._functions}
        for name in ("fn", "inverse", "sample"):
            if functions[name] is not None:
                config[name] = _serialized(functions[name])
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        functions = {
            name: _deserialized(config[name]) for name in ("fn", "inverse", "sample") if config.get(name) is not None
        }
        return cls(**{**config, **functions})

    def __repr__(self):
        return f"from_function({getattr(self._functions['forward'], '__name__', 'fn')}, {self.x_shape})"


def _checked_shape(name, shape):
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(check_positive_int(f"each size of {name}", size) for size in sizes)


def _check_callable(name, function):
    if not callable(function):
        raise TypeError(
            three_part(
                f"`{name}` to be a function of tensors", f"{function!r}", f"Pass the function itself as `{name}`."
            )
        )


def _serialized(function):
    name = getattr(function, "__name__", None)
    registered = keras.saving.get_registered_name(function) if name else None
    if registered is None or keras.saving.get_registered_object(registered) is not function:
        name = name or "my_function"
        raise ValueError(
            three_part(
                "a function that Keras can find again when the model is loaded",
                f"the unregistered function `{name}`",
                f'Add the line @keras.saving.register_keras_serializable(package="my_project") above `def {name}`, '
                "and import the module that holds it before loading.",
            )
        )
    return registered


def _deserialized(registered):
    function = keras.saving.get_registered_object(registered)
    if function is None:
        raise ValueError(
            three_part(
                "a function that is registered with Keras",
                f"{registered!r}, which is not",
                "Import the module that defines and registers it before loading.",
            )
        )
    return function
