"""ReverseForm: what a run of the process backward in time tells about x."""

from collections.abc import Callable
from typing import NamedTuple


class ReverseForm(NamedTuple):
    """A family of x with a few unknown parameters p `[B, P]`, and how a reverse run measures their error.

    A simulator offers one as its property `reverse_form`; `ReverseSimulation` works with it.

    Attributes:
        parameters: `(x, context) -> p`, those of the member of the family that x is closest to.
        from_parameters: `(p, context) -> x`.
        mismatch: `(x, y_target, context) -> (e [B, P], y)`: P(x), and by how much the run forward from x and the run
            backward from the observation miss each other; e = 0 at the true parameters, in any unit.
        gain: `context -> [B, P]`, the change of p that e = 1 asks for.
    """

    parameters: Callable
    from_parameters: Callable
    mismatch: Callable
    gain: Callable
