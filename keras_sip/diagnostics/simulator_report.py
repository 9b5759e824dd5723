"""check_simulator: whether a simulator keeps its promises."""

import dataclasses

from keras_sip.diagnostics.derivative_checks import DERIVATIVE_CHECKS
from keras_sip.diagnostics.interface_checks import INTERFACE_CHECKS
from keras_sip.diagnostics.report import Report, described, examine
from keras_sip.diagnostics.simulator_case import SimulatorCase
from keras_sip.errors import check_positive_int

SIMULATOR_CHECKS = [*INTERFACE_CHECKS, *DERIVATIVE_CHECKS]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatorReport(Report):
    """What `check_simulator` returns: `passed`, `failures`, `findings`, and the text by `str`."""


def check_simulator(simulator, *, x=None, context=None, num_examples=4, seed=0, print_report=True):
    """Check that a simulator keeps the promises that solvers, layers and models rely on.

    Shapes and precision of all methods; samples that follow from their seed; J v and J^T w against central differences
    and each other; finite gradients, at x = 0 too, where an untrained network starts; examples independent of each
    other; eager, graph and XLA the same; no trainable variables; an inverse that inverts; a configuration that can be
    saved. What the simulator raises is a finding, not an error.

    Args:
        simulator: A `Simulator`.
        x: Causes `[B, *x_shape]` to check at; None draws samples, or random numbers near 0 where there are none.
        context: What is known of them (dict of `[B, ...]`), with `x` or for a simulator without samples.
        num_examples: How many to draw, at least 2.
        seed: Of the samples and of the random directions.
        print_report: Print the report too.

    Returns:
        A `SimulatorReport`; `report.passed` is whether nothing failed.
    """
    check_positive_int("num_examples", num_examples, minimum=2)
    check_positive_int("seed", seed, minimum=0)
    case = SimulatorCase(simulator, num_examples, seed, x, context)
    title = f"check_simulator: {described(simulator)}"
    return examine(SimulatorReport, title, SIMULATOR_CHECKS, case, print_report)
