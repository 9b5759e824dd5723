"""The one form of every error message: what was expected, what was received, what to do."""

import inspect
from collections.abc import Collection
from typing import Any

import numpy as np


def three_part(expected: str, received: str, remedy: str) -> str:
    """The text of an error: what was expected, what was received, and what to do about it."""
    return f"Expected {expected}.\nReceived {received}.\n{remedy}"


def must_define(owner: Any, signature: str, received: str, remedy: str) -> NotImplementedError:
    """The error of a method that subclasses must have: `raise must_define(self, "step(self, x)", ..., ...)`."""
    return NotImplementedError(three_part(f"`{type(owner).__name__}` to define `{signature}`", received, remedy))


def check_arguments(cls: type, args: tuple, kwargs: dict) -> None:
    """`TypeError` in three parts unless the constructor of `cls` takes these arguments.

    For `__new__` of frozen dataclasses. Without arguments nothing is checked: copies are made that way.
    """
    if not (args or kwargs):
        return
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    try:
        signature.bind(None, *args, **kwargs)
    except TypeError as error:
        options = ", ".join(list(signature.parameters)[1:])
        # Python tells of what is missing first, which a wrong name may be the reason of.
        unknown = ", ".join(f"{name}={value!r}" for name, value in kwargs.items() if name not in signature.parameters)
        raise TypeError(
            three_part(
                f"options of {cls.__name__}: {options}", unknown or str(error), "Correct the name, or leave it out."
            )
        ) from None


def check_positive_int(name: str, value: Any, *, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`; `ValueError` otherwise."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < minimum:
        raise ValueError(
            three_part(
                f"`{name}` to be an integer of at least {minimum}",
                f"{name}={value!r} ({type(value).__name__})",
                f"Give `{name}` a whole number such as {max(minimum, 1)}.",
            )
        )
    return int(value)


def check_number(
    name: str, value: Any, *, minimum: float = 0.0, exclusive: bool = False, maximum: float | None = None
) -> float:
    """`value` as a finite float in the stated range; `ValueError` otherwise."""
    bound = f"{'above' if exclusive else 'at least'} {minimum:g}" + (f" and at most {maximum:g}" if maximum else "")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    too_small = number <= minimum if exclusive else number < minimum
    too_large = maximum is not None and number > maximum
    if isinstance(value, bool) or not np.isfinite(number) or too_small or too_large:
        raise ValueError(
            three_part(
                f"`{name}` to be a finite number {bound}",
                f"{name}={value!r} ({type(value).__name__})",
                f"Give `{name}` a number {bound}.",
            )
        )
    return number


def check_choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """`value` if it is one of `allowed`; otherwise a `ValueError` that lists them."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(
            three_part(
                f"`{name}` to be one of {', '.join(map(repr, allowed))}",
                f"{name}={value!r} ({type(value).__name__})",
                f"Choose one of the listed values for `{name}`.",
            )
        )
    return value


def check_input_shape(input_shape: Any, *, dimensions: Collection[int]) -> tuple[int, ...]:
    """The shape of a network's input fields as a tuple of ints; `ValueError` for other numbers of spatial axes."""
    shapes = {1: "(N, C)", 2: "(H, W, C)", 3: "(H, W, D, C)"}
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) - 1 not in dimensions:
        raise ValueError(
            three_part(
                f"`input_shape` to be {' or '.join(shapes[n] for n in dimensions)}: the cells along each axis and the "
                "channels, without the batch",
                f"input_shape={input_shape!r} ({type(input_shape).__name__})",
                f"Give for example input_shape={(64, 64, 1)}.",
            )
        )
    return tuple(check_positive_int(f"input_shape[{axis}]", size) for axis, size in enumerate(input_shape))
