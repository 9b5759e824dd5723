"""What `integrate` is given and what its step returns, checked when the loop is built."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part


def is_continuous(tensor: tf.Tensor) -> bool:
    """Whether a tensor holds real or complex numbers, which have derivatives."""
    return tensor.dtype.is_floating or tensor.dtype.is_complex


def checked_num_steps(num_steps: int | None, inputs: Any) -> int:
    """The number of steps: as given, or the leading axis of the inputs, which must agree."""
    lengths = {entry.shape[0] if entry.shape.rank else None for entry in tf.nest.flatten(inputs)}
    if num_steps is None and len(lengths) == 1 and None not in lengths:
        return check_positive_int("num_steps", lengths.pop())
    if num_steps is None:
        raise ValueError(
            three_part(
                "`num_steps`, or `inputs` with one static leading axis, the number of steps",
                f"num_steps=None and inputs with leading axes {sorted(map(str, lengths))}",
                "Pass num_steps=..., a Python int.",
            )
        )
    num_steps = check_positive_int("num_steps", num_steps)
    if lengths - {num_steps}:
        raise ValueError(
            three_part(
                f"every entry of `inputs` to have the leading axis num_steps={num_steps}",
                f"leading axes {sorted(map(str, lengths))}",
                "Give `inputs` one entry for each step, [num_steps, ...]; tf.transpose moves the batch behind.",
            )
        )
    return num_steps


def check_state(state: Any) -> None:
    """`TypeError` unless the state holds tensors of real or complex numbers, and at least one."""
    entries = tf.nest.flatten(state)
    wrong = [entry.dtype.name for entry in entries if not is_continuous(entry)]
    if wrong or not entries:
        raise TypeError(
            three_part(
                "`state` to hold tensors of real or complex numbers",
                f"entries of type {', '.join(wrong)}" if wrong else "no tensor",
                "Cast it, or pass what is not to be differentiated in `inputs`; the number of the step is k.",
            )
        )


def checked_next(state: Any, following: Any) -> list[tf.Tensor]:
    """What a step returned, as a list of tensors of the shapes and dtypes of `state`; `ValueError` otherwise."""

    def described(nest):
        return tf.nest.map_structure(lambda entry: (tuple(entry.shape), tf.as_dtype(entry.dtype).name), nest)

    try:
        following = tf.nest.map_structure(lambda entry: tf.convert_to_tensor(entry), following)
        tf.nest.assert_same_structure(state, following)
        pairs = list(zip(tf.nest.flatten(state), tf.nest.flatten(following), strict=True))
        fits = all(a.dtype == b.dtype and a.shape.is_compatible_with(b.shape) for a, b in pairs)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            three_part(
                f"`step` to return a state like the one it is given, {described(state)}",
                f"{following if following is None else described(following)}",
                "Keep structure, shapes and dtypes from step to step: check casts, axes and what `step` returns.",
            )
        )
    # Only where it says more: eager forward accumulation has no derivative of it.
    return [b if a.shape == b.shape else tf.ensure_shape(b, a.shape) for a, b in pairs]


def checked_save_at(save_at: Sequence[int] | None, num_steps: int) -> tuple[int, ...]:
    """Numbers of steps after which to save the state, rising; `ValueError` otherwise."""
    numbers = np.asarray(() if save_at is None else save_at)
    rising = numbers.ndim == 1 and np.issubdtype(numbers.dtype, np.integer) and np.all(np.diff(numbers) > 0)
    if save_at is not None and not (numbers.size and rising and 1 <= numbers[0] and numbers[-1] <= num_steps):
        raise ValueError(
            three_part(
                f"`save_at` to be numbers of steps from 1 to {num_steps}, rising",
                f"save_at={save_at!r}",
                "Count steps done: 1 is the state after the first; the state before it is `state` itself.",
            )
        )
    return tuple(int(number) for number in numbers)
