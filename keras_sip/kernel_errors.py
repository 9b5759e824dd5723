"""What TensorFlow's errors inside a simulator mean: kernels that raise, loops that XLA cannot differentiate."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from keras_sip.errors import three_part


class Explanation(NamedTuple):
    """What an error of a TensorFlow operation means.

    Attributes:
        operation: The operation's type or the name of its node.
        expected, remedy: The first and last part of an error message.
    """

    operation: str
    expected: str
    remedy: str


class SimulatorKernelError(RuntimeError):
    """An operation inside a simulator raised, for the whole batch; its cause is TensorFlow's own error."""


# Parts of TensorFlow's messages.
_SINGULAR = ("is not invertible", "decomposition was not successful", "Input matrix must be invertible")
_LOOPS = ("Cannot find body function", "Cannot find cond function")
_CONSTANTS = ("must be a compile-time constant",)

_SOLVE = (
    "Use keras_sip.ops.solve, cholesky_solve or solve_block_tridiagonal in the simulator: they give a singular or NaN "
    "example NaN and leave the others as they are. (For other kernels replace such a matrix by the identity first.)"
)
_INTEGRATE = (
    "Step in time with keras_sip.ops.integrate(step, state, inputs, num_steps=...): its derivatives compile under XLA, "
    "once, and take memory as the square root of the number of steps."
)


def explained(error: Exception) -> Explanation | None:
    """What `error` means; None where it is no such error."""
    text = str(error)
    operation = _operation(text)
    if any(part in text for part in _SINGULAR):
        expected = "matrices that the kernel can factorise in every example of the batch"
        return Explanation(operation or "a linear solve", expected, _SOLVE)
    if any(part in text for part in _LOOPS):
        return Explanation("tf.while_loop", "loops whose derivatives XLA can compile", _INTEGRATE)
    if any(part in text for part in _CONSTANTS):
        expected = "sizes, axes and counters of steps that XLA knows before it runs"
        remedy = f"{_INTEGRATE} Elsewhere give axes and sizes as Python ints."
        return Explanation(operation or "an operation", expected, remedy)
    return None


@contextlib.contextmanager
def explaining_kernel_errors(simulator: Any = None) -> Iterator[None]:
    """Let errors of kernels inside a simulator say which operation raised, that it is the simulator's, and the remedy.

        with explaining_kernel_errors(simulator):
            y = simulator.forward(x)

    On a CPU one singular matrix ends the batch with "Input matrix is not invertible", and XLA ends products with J
    through a raw loop with "Cannot find body function": both become a `SimulatorKernelError`. Others pass as they are.
    """
    try:
        yield
    except (tf.errors.OpError, ValueError) as error:
        explanation = None if isinstance(error, SimulatorKernelError) else explained(error)
        if explanation is None:
            raise
        owner = "of the simulator" if simulator is None else f"in `forward` of {simulator!r}"
        received = f"`{explanation.operation}` {owner}: {_first_line(str(error))}"
        raise SimulatorKernelError(three_part(explanation.expected, received, explanation.remedy)) from error


def _operation(text):
    """The type of the operation that raised, or the name of its node."""
    for pattern in (r"__wrapped__(\w+?)_device", r"\[Op:(?!__inference)(\w+)\]", r"{{node ([^}]+)}}"):
        found = re.search(pattern, text)
        if found:
            return found.group(1)
    return None


def _first_line(text):
    # TensorFlow begins its messages with the names of internal nodes in braces.
    lines = [line.strip() for line in re.sub(r"{{.*?}}", "", text).splitlines()]
    telling = [line for line in lines if any(part in line for part in (*_SINGULAR, *_LOOPS, *_CONSTANTS))]
    return (telling or lines)[0][:200]
