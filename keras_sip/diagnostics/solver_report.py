"""check_solver: whether a solver serves a simulator, and which scale laws it follows there."""

import dataclasses
from typing import Any

from keras_sip.diagnostics.inverse_problems import Start
from keras_sip.diagnostics.report import Report, described, examine
from keras_sip.diagnostics.solver_case import SolverCase
from keras_sip.diagnostics.solver_checks import SOLVER_CHECKS
from keras_sip.errors import check_number, check_positive_int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolverReport(Report):
    """What `check_solver` returns; None where it could not be measured.

    Attributes:
        failed_share: Share of examples whose status is a failure.
        statuses: Number of examples by `Status`.
        descent_share: Share of examples with L(x0 + U) < L(x0).
        objective_before, objective_after: L at x0 and x0 + U, NumPy `[B]`.
        tau: Estimate of Eq. 11's constant: the smallest (L(x0) - L(x0 + U)) / (L(x0) - L(x*)) of the examples.
        K: Estimate of Eq. 12's: the largest |U| / (L(x0) - L(x*)). It has the units of x / L, and grows as starts come
            closer to solutions: |U| falls like the distance there, L like its square.
        common_factor_error, component_units_error, rotation_error, general_map_error, y_unit_error: |A U' - U| / |U| of
            the examples in other units, NumPy `[B]`: inf where only the changed problem failed, NaN where U is none.
    """

    failed_share: Any = None
    statuses: Any = None
    descent_share: Any = None
    objective_before: Any = None
    objective_after: Any = None
    tau: Any = None
    K: Any = None
    common_factor_error: Any = None
    component_units_error: Any = None
    rotation_error: Any = None
    general_map_error: Any = None
    y_unit_error: Any = None


def check_solver(
    solver,
    simulator,
    *,
    x=None,
    context=None,
    x0=None,
    num_examples=32,
    start_distance=0.5,
    law_tolerance=0.02,
    seed=0,
    print_report=True,
):
    """Measure how a solver does on a simulator: failures, descent, the constants of the paper's theory, scale laws.

    On noise-free problems y* = P(x*): the share that fails; the share whose objective falls; tau of Eq. 11,

        L(x) - L(x + U(x)) >= tau (L(x) - L(x*)),

    and K of Eq. 12, |U(x)| <= K (L(x) - L(x*)), which Theorem 3 needs, both as the samples show them; and the two scale
    laws. x = A x' gives U' = A^-1 U, for a common factor, for units of single components (diagonal A), for rotations
    and for a general A, each of condition 10 at most, in units of `x_scale`; y -> c y leaves U as it is, for y near
    1e-12 and 1e12.

    A solver fails that does not descend in most examples, fails in more than a tenth, or does not follow a common
    factor of x or a unit of y. That it does not follow rotations, say, is a note: its docstring claims what it claims.

    Args:
        solver: An `InverseSolver`.
        simulator: A `Simulator`; `check_simulator` comes first.
        x, context: True causes `[B, *x_shape]` and what is known of them; None draws samples.
        x0: Starts `[B, *x_shape]`; None starts between solutions.
        num_examples: How many to draw, at least 2.
        start_distance: The share of the way from the solution to the next example's at which to start.
        law_tolerance: A law is followed where |A U' - U| <= law_tolerance |U| in 9 examples of 10.
        seed: Of the samples.
        print_report: Print the report too.

    Returns:
        A `SolverReport`.

    Source: the paper, Section 3.3, Eqs. 11 and 12, Theorem 3.
    """
    check_positive_int("num_examples", num_examples, minimum=2)
    check_positive_int("seed", seed, minimum=0)
    check_number("start_distance", start_distance, exclusive=True)
    check_number("law_tolerance", law_tolerance, exclusive=True)
    start = Start(x, context, x0, num_examples, start_distance, seed)
    case = SolverCase(solver, simulator, start, law_tolerance)
    title = f"check_solver: {described(solver)} on {described(simulator)}"
    return examine(SolverReport, title, SOLVER_CHECKS, case, print_report)
