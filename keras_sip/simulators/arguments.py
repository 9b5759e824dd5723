"""What users pass to simulators: arrays and tensors, checked and converted in one place."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part

# What the leading arguments of each method are; the context follows.
FIELDS = {
    "forward": ("x",),
    "inverse": ("y_target", "x_near"),
    "residual": ("y", "y_target"),
    "objective": ("y", "y_target"),
}


def taking_arrays(method: Callable) -> Callable:
    """The method of a simulator, one of `FIELDS`, for NumPy arrays and lists beside tensors.

    Tensors pass as they are, so that compiled functions are what they would be without it.
    """
    names = (*FIELDS[method.__name__], "context")

    @functools.wraps(method)
    def with_tensors(self, *values, **named):
        given = [as_tensor(self, name, value) for name, value in zip(names, values, strict=False)]
        named = {name: as_tensor(self, name, value) for name, value in named.items()}
        return method(self, *given, *values[len(given) :], **named)

    return with_tensors


def as_tensor(simulator: Any, name: str, value: Any) -> Any:
    """An array or list as the tensor that the argument `name` asks for; anything else as it is."""
    if isinstance(value, dict):
        known = all(map(tf.is_tensor, value.values()))
        return value if known else simulator.as_context(value)
    if not isinstance(value, (np.ndarray, np.generic, list, tuple, float)):
        return value
    # Not `as_x` and `as_y`: what simulators check there of a user's data does not bind an intermediate x or y.
    is_x = name in ("x", "x_near")
    shape = simulator.x_shape if is_x else simulator.y_shape
    return as_field(simulator, name, value, shape, widen=is_x)


def as_field(simulator: Any, name: str, value: Any, shape: tuple[int, ...], *, widen: bool) -> tf.Tensor:
    """`value` as a tensor `[B, *shape]` in the simulator's precision; a lower one is widened, or refused."""
    if not tf.is_tensor(value) and not isinstance(value, keras.Variable):
        value = np.asarray(value)
    tensor = tf.convert_to_tensor(value)
    expected = f"`{name}` of shape {('batch', *shape)} and dtype {simulator.dtype} for {type(simulator).__name__}"
    if tensor.shape.rank is not None and not tensor.shape[1:].is_compatible_with(shape):
        raise ValueError(
            three_part(
                expected,
                f"shape {tuple(tensor.shape)}",
                "The batch is the leading axis; check the resolution and the channel axis.",
            )
        )
    dtype = tf.as_dtype(simulator.dtype)
    if not tensor.dtype.is_floating or (tensor.dtype.size < dtype.size and not widen):
        raise TypeError(
            three_part(
                expected,
                f"dtype {tensor.dtype.name}",
                f"Keep `{name}` in {simulator.dtype} from its source on (keras_sip.from_arrays does; Keras' own array "
                "input casts to float32), or state its precision with SIPPhysicsLayer(y_precision=...)."
                if tensor.dtype.is_floating
                else f"Convert it: np.asarray({name}, {simulator.dtype!r}).",
            )
        )
    return tf.cast(tensor, dtype)


def split_observation(observation: Any) -> tuple[Any, Any]:
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


def join_observation(y: Any, context: dict[str, Any] | None = None) -> Any:
    """The observation of y and its context: y alone where there is no context."""
    return y if context is None else {"y": y, "context": context}


def check_resolution(resolution: int | tuple[int, ...], *, dimensions: tuple[int, ...] = (1, 2, 3)) -> tuple[int, ...]:
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


def as_entry_spec(name: str, entry: Any, dtype: str) -> tf.TensorSpec:
    """The spec `[None, *shape]` of an entry of `Simulator.context_shape`: a shape, or (shape, dtype)."""
    has_dtype = isinstance(entry, (tuple, list)) and len(entry) == 2 and not isinstance(entry[1], (int, np.integer))
    shape, entry_dtype = entry if has_dtype else (entry, dtype)
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    return tf.TensorSpec((None, *shape), entry_dtype, name=name)


def plain(value: Any) -> Any:
    """A constructor argument as JSON can hold it."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if tf.is_tensor(value):
        return value.numpy().tolist()
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    if hasattr(value, "get_config") and not isinstance(value, type):
        return keras.saving.serialize_keras_object(value)
    return value


def from_plain(value: Any) -> Any:
    """The constructor argument that `plain` has written."""
    is_object = isinstance(value, dict) and {"class_name", "registered_name", "config"} <= set(value)
    return keras.saving.deserialize_keras_object(value) if is_object else value
