"""The solver for a simulator, by what the simulator knows of itself."""

import logging
import math
from typing import NamedTuple

from keras_sip.errors import three_part
from keras_sip.simulators.base import check_simulator_interface
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.solvers.analytic_inverse import AnalyticInverse
from keras_sip.solvers.base import InverseSolver
from keras_sip.solvers.damped_spectral_inverse import DampedSpectralInverse
from keras_sip.solvers.lbfgs import LBFGS
from keras_sip.solvers.levenberg_marquardt import LevenbergMarquardt
from keras_sip.solvers.linear_model import LARGEST_DENSE
from keras_sip.solvers.maximum_a_posteriori import MaximumAPosteriori
from keras_sip.solvers.reverse_simulation import ReverseSimulation

LOG = logging.getLogger("keras_sip")


# Up to so many unknowns a dense step is exact, and a measured prior makes it no better: after 400 steps of training the
# error in x is 0.0104 on the rotated sine and 0.0148 on the exponential, with the prior 0.0128 and 0.0175, and a step
# takes up to 1.2 times as long.
FEW_UNKNOWNS = 2


class Candidate(NamedTuple):
    """A solver, why one would choose it, and up to how many components of x or y, of whichever has fewer, and of x."""

    solver: InverseSolver
    reason: str
    largest: float = float("inf")
    most_unknowns: float = float("inf")


# In order of preference; the first one whose own `check` takes the simulator is chosen.
CANDIDATES = [
    Candidate(AnalyticInverse(), "the simulator defines its `inverse`"),
    Candidate(DampedSpectralInverse(), "no inverse is known, and the simulator is diagonal in a spectral basis"),
    Candidate(ReverseSimulation(), "no inverse is known, and the process can be run backward in time"),
    Candidate(
        LevenbergMarquardt(linear_solver="dense"),
        "no inverse is known, L is a half sum of squares, and x has one or two components",
        most_unknowns=FEW_UNKNOWNS,
    ),
    Candidate(
        MaximumAPosteriori(),
        "no inverse is known, L is a half sum of squares, and samples of x give a prior",
    ),
    Candidate(
        LevenbergMarquardt(linear_solver="dense"),
        "no inverse is known, L is a half sum of squares, and x or y is small enough for a dense Jacobian",
        LARGEST_DENSE,
    ),
    Candidate(
        LevenbergMarquardt(linear_solver="conjugate_gradient"),
        "no inverse is known, L is a half sum of squares, and x and y are too large for a dense Jacobian",
    ),
    Candidate(LBFGS(), "no inverse is known and L is no half sum of squares"),
]


def auto_solver(simulator, **options):
    """The most capable solver that `simulator` allows; one line of the log "keras_sip" says which, and why.

        logging.getLogger("keras_sip").setLevel("INFO")

    In order: its closed inverse, the damped spectral inverse, the reverse simulation, dense Levenberg-Marquardt for one
    or two unknowns, maximum a posteriori with a prior measured on its samples, dense Levenberg-Marquardt, the same
    without matrices, L-BFGS. `solver="auto"` of a model or layer is this choice.

    Args:
        simulator: The process P.
        **options: Options of any solver, such as `max_steps` or `on_failure`, replaced in the chosen one.
    """
    candidate = best_candidate(simulator)
    named = simulator.physical if isinstance(simulator, Nondimensional) else simulator
    LOG.info("%s for %r: %s.", type(candidate.solver).__name__, named, candidate.reason)
    return candidate.solver.with_options(**options)


def best_candidate(simulator):
    """The first `Candidate` that takes the simulator: what `auto_solver` and `diagnose` recommend."""
    check_simulator_interface(simulator)
    size = min(math.prod(simulator.x_shape), math.prod(simulator.y_shape))
    for candidate in CANDIDATES:
        try:
            candidate.solver.check(simulator)
        except TypeError:
            continue
        if size <= candidate.largest and math.prod(simulator.x_shape) <= candidate.most_unknowns:
            return candidate
    raise TypeError(
        three_part("a simulator that some solver serves", f"{simulator!r}", "Pass a solver of your own to the model.")
    )
