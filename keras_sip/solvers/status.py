"""How a solver ended, for each example, and the error that names those that failed."""

import enum

import numpy as np
import tensorflow as tf

from keras_sip.errors import three_part


class Status(enum.IntEnum):
    """How the solver ended, for each example. Values from `NON_FINITE` on are failures.

    `CONVERGED` is said only where a first-order test holds at the x that is returned (see `InverseSolver`). `STALLED`
    is neither: the example has come down, and a slope is left, but no further step is acceptable; in `refine` because
    the residual is no larger than the known noise.
    """

    CONVERGED = 0
    MAX_STEPS = 1
    STALLED = 2
    NON_FINITE = 3
    REJECTED = 4
    BREAKDOWN = 5

    @property
    def message(self):
        """What happened and what to do."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.CONVERGED: "The tolerances are met at x, or nothing but rounding is left of the residual.",
    Status.MAX_STEPS: "All steps were taken. In training this is the rule; to go further, raise max_steps.",
    Status.STALLED: "No further step was acceptable, and a slope is left: y is explained to its known noise, or see "
    "`optimality`; try float64 or x_scale.",
    Status.NON_FINITE: "The start, observation, simulation or a step was not finite. Check the data and bound x.",
    Status.REJECTED: "No tried step lowered the objective. Start closer, or allow more tries.",
    Status.BREAKDOWN: "The step is not defined: a singular system, or no gradient. Use LevenbergMarquardt().",
}


class SolverError(ArithmeticError):
    """Raised for failed examples where `on_failure="raise"`."""


def raise_if_concrete(status):
    """`SolverError` naming the failed examples, where the status has a value (eager execution)."""
    if tf.executing_eagerly():
        raise_for_status(status.numpy())


def raise_for_status(status):
    """`SolverError` naming the failed examples of a concrete status `[B]`; nothing where there are none."""
    failed = np.flatnonzero(np.asarray(status) >= Status.NON_FINITE)
    if failed.size:
        kinds = sorted({Status(int(status[index])) for index in failed})
        raise SolverError(
            three_part(
                "every example to be solved (on_failure='raise')",
                f"{failed.size} failed of {len(status)}: examples {failed[:10].tolist()}"
                + (" and more" if failed.size > 10 else "")
                + f", status {', '.join(kind.name for kind in kinds)}",
                " ".join(kind.message for kind in kinds),
            )
        )
