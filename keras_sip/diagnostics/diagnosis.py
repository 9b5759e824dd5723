"""diagnose: why training through a simulator is hard, and which solver should help."""

import dataclasses
from typing import Any

import numpy as np

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.diagnosis_case import DiagnosisCase, cosines, decades
from keras_sip.diagnostics.examples import Start
from keras_sip.diagnostics.findings import WIDTH, Check, Findings, described, examine, failed, note, passed, skipped
from keras_sip.diagnostics.simulator_steps import median_seconds
from keras_sip.errors import check_number, check_positive_int
from keras_sip.priors import GaussianPrior
from keras_sip.simulators.measured_form import measured_leakage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis(Findings):
    """What `diagnose` returns; None where it could not be measured. x is measured in `x_scale` throughout.

    Attributes:
        singular_values: Of the residual's Jacobian at each of the first examples, falling: a list of NumPy `[k]`.
        singular_values_exact: Whether they are all of them; else they are those of a Krylov space, between the
            smallest and the largest.
        condition: The largest over the smallest, median of the examples.
        resolved: Whether y* in the simulator's precision tells all of x.
        gradient_in_range: Whether |dL/dx| is a normal number in the simulator's precision.
        gradient_decades: log10 of the spread (95 % over 5 % quantile) of |dL/dx| over the examples.
        distance_decades: The same of |x* - x0|.
        gradient_cosine: Median cosine between -dL/dx and x* - x0.
        solver: The recommended `InverseSolver`, with its damping.
        reason: Why this one.
        damping: Its damping, or None where it has none.
        descent_share: Share of examples whose L its update lowers.
        update_decades, update_cosine: As for the gradient, of its update.
        step_cost: Time of its update over that of an adjoint step, P and J^T w; as graphs, on this machine.
        prior: The `GaussianPrior` of the examples, for `MaximumAPosteriori`.
        leakage: What y has off the diagonal in the spectral basis that leaks least, for fields: 0 where P is diagonal
            there (`DiagonalForm.measured`).
    """

    singular_values: Any = None
    singular_values_exact: Any = None
    condition: Any = None
    resolved: Any = None
    gradient_in_range: Any = None
    gradient_decades: Any = None
    distance_decades: Any = None
    gradient_cosine: Any = None
    solver: Any = None
    reason: Any = None
    damping: Any = None
    descent_share: Any = None
    update_decades: Any = None
    update_cosine: Any = None
    step_cost: Any = None
    prior: Any = None
    leakage: Any = None

    def _conclusion(self):
        if self.solver is None or self.condition is None:
            return super()._conclusion()
        return f"Use {described(self.solver, limit=WIDTH)}: {self.reason}. {self._benefit()}"

    def _benefit(self):
        """What SIP training should gain over back-propagation, from what was measured."""
        if not self.gradient_in_range:
            return "Gradients leave the range of floating-point numbers: updates do not."
        places = []
        if self.gradient_decades > self.distance_decades + EVEN_DECADES:
            places.append("between examples")
        if self.condition > EVEN_CONDITION:
            places.append("between directions of x")
        if not places:
            return "Gradients are even here: back-propagation should do nearly as well."
        text = f"Gradients are uneven {' and '.join(places)}: that is what SIP training mends."
        return text if self.resolved else f"{text} What y* does not tell, no training finds."


def diagnose(
    simulator: Any,
    *,
    x: Any = None,
    context: dict[str, Any] | None = None,
    x0: Any = None,
    num_examples: int = 32,
    num_jacobians: int = 4,
    start_distance: float = 1.0,
    seed: int = 0,
    print_report: bool = True,
) -> Diagnosis:
    """Measure what makes training through a simulator hard, and recommend a solver and its damping, with the reason.

    Back-propagation gives a network dL/dx = J^T r. Its size varies with J from example to example, and its direction
    favours the sensitive directions of x by the square of J's singular values; the update of a solver does neither.
    Measured are the singular values of J = dr/dx at samples (all, where x or y has at most 256 components; else by
    Golub-Kahan-Lanczos bidiagonalisation), the spread of |dL/dx| over examples against that of |x* - x0|, the angle
    between dL/dx and the way to the solution, and the same for the update of the recommended solver. Its damping is the
    one of 1e-3, 0.1 and 10 after which one step leaves the least of the residual. x is in units of `x_scale`. Then what
    an update costs in adjoint steps, and what `MaximumAPosteriori` would go by: the Gaussian prior of the examples, and
    how far P is from diagonal in the spectral bases. Findings are printed as they come.

    Args:
        simulator: A `Simulator`; `check_simulator` comes first.
        x, context: True causes `[B, *x_shape]` and what is known of them; None draws samples.
        x0: Starts `[B, *x_shape]`; None takes other examples' causes, as good as an untrained network.
        num_examples: How many to draw, at least 2.
        num_jacobians: At how many of them Jacobians are taken.
        start_distance: The share of the way from the solution to the next example's at which to start.
        seed: Of the samples.
        print_report: Print the report too.

    Returns:
        A `Diagnosis`; `diagnosis.solver` is ready for `SIPModel`.
    """
    check_positive_int("num_examples", num_examples, minimum=2)
    check_positive_int("num_jacobians", num_jacobians)
    check_positive_int("seed", seed, minimum=0)
    check_number("start_distance", start_distance, exclusive=True)
    case = DiagnosisCase(simulator, Start(x, context, x0, num_examples, start_distance, seed), num_jacobians)
    return examine(Diagnosis, f"diagnose: {described(simulator)}", DIAGNOSIS_CHECKS, case, print_report)


# Within these, gradients are as good as updates and there is little for SIP to mend.
EVEN_DECADES, EVEN_CONDITION = 0.5, 10.0
# Above this, back-propagation hardly moves the least sensitive directions.
HARD_CONDITION = 1e3
# Where condition times rounding exceeds this, y* does not tell the least sensitive directions.
UNRESOLVED = 0.1
# A part of y off the diagonal that is no more than the linearisation's.
DIAGONAL = 0.01
MOST = 0.9


def problems(case):
    if not examples.is_finite(case.z0, case.y_target, case.gradient):
        return failed("x0, y* or dL/dx is not finite", SIMULATOR_FIRST)
    if not np.any(case.way):
        return failed("all starts are solutions", "Pass starts x0=..., or other examples x=...")
    return passed(f"{len(case.z0)} pairs of a start x0 and a solution x*; x {case.origin}")


def singular_values(case):
    values = case.singular_values
    largest, smallest = ([each[index] for each in values] for index in (0, -1))
    kind = "all of them" if case.is_exact else f"{max(map(len, values))} Lanczos steps"
    values = {"singular_values": values, "singular_values_exact": case.is_exact}
    if min(largest) == 0:
        return failed("J = 0 at some x: y does not depend on x there", SIMULATOR_FIRST, **values)
    return passed(f"{np.median(largest):.3g} to {np.median(smallest):.3g} ({kind}, J at {len(largest)} x)", **values)


def condition(case):
    number = case.condition
    text = f"{'' if case.is_exact else 'at least '}{number:.3g}"
    values = {"condition": number, "resolved": bool(number * np.finfo(case.simulator.dtype).eps <= UNRESOLVED)}
    if not values["resolved"]:
        remedy = ILL_POSED if case.simulator.dtype == "float64" else f'dtype="float64" sees further. {ILL_POSED}'
        return note(f"{text}: {case.simulator.dtype} y* does not tell all of x", remedy, **values)
    if number > HARD_CONDITION:
        return note(f"{text}: gradients hardly move some directions of x", **values)
    return passed(f"{text}{': all directions of x act alike' if number < EVEN_CONDITION else ''}", **values)


def gradients(case):
    spread, way = case.gradient_decades, case.distance_decades
    cosine = float(np.median(cosines(-case.gradient, case.way)))
    size = float(np.median(np.linalg.norm(case.gradient, axis=1)))
    limits = np.finfo(case.simulator.dtype)
    in_range = bool(limits.tiny / limits.eps < size < limits.max)
    values = {"gradient_in_range": in_range, "gradient_decades": spread, "distance_decades": way}
    values |= {"gradient_cosine": cosine}
    text = f"|dL/dx| spreads over 10^{spread:.1f}, |x* - x0| over 10^{way:.1f}; cosine between them {cosine:.2f}"
    if not in_range:
        return note(f"|dL/dx| is {size:.1g}, outside of {case.simulator.dtype}; {text}", **values)
    return (note if spread > way + EVEN_DECADES else passed)(text, **values)


def damping(case):
    if case.remainders is None:
        return skipped(f"{type(case.candidate.solver).__name__} has none")
    least = case.solver.damping
    others = "".join(f", {share:.0%} at {value:g}" for value, share in case.remainders.items() if value != least)
    return passed(f"{least:g}: a step leaves {case.remainders[least]:.0%} of the residual{others}", damping=least)


def solver(case):
    update = examples.rows(case.result.update)
    length = np.linalg.norm(update, axis=1)
    if not np.any(length):
        return failed("U = 0 in all examples", f"See check_solver({described(case.solver)}, simulator).")
    descent = float(np.mean(case.objectives(case.result.x) < case.objectives(case.z0)))
    spread, cosine = decades(length), float(np.median(cosines(update, case.way)))
    name = type(case.solver).__name__
    text = f"{name}: L falls in {descent:.0%}; |U| spreads over 10^{spread:.1f}, cosine {cosine:.2f}"
    values = {"solver": case.solver, "reason": case.candidate.reason, "descent_share": descent}
    values |= {"update_decades": spread, "update_cosine": cosine}
    if descent < MOST:
        return note(
            text, f"check_solver({described(case.solver)}, simulator) shows what happens to the rest.", **values
        )
    return passed(text, **values)


def step_cost(case):
    solve = case.compiled_by(case.solver)
    update = median_seconds(lambda: solve(case.z0, case.y_target, case.context).update)
    cost = update / median_seconds(lambda: case.adjoint(case.z0))
    return passed(
        f"an update of {type(case.solver).__name__} takes as long as {cost:.2g} adjoint steps", step_cost=cost
    )


def prior(case):
    measured = GaussianPrior.measured(case.simulator, x=case.x_true)
    return passed(f"of these examples: {measured.summary}", prior=measured)


def spectral_basis(case):
    if not case.simulator.has("sample"):
        return skipped("no samples to probe at")
    if case.simulator.diagonal_form is not None:
        return skipped("the simulator says itself where it is diagonal")
    leakages = measured_leakage(case.simulator)
    if not leakages:
        return skipped("x and y are no fields of one shape")
    least = leakages[0]
    text = f"P is {'diagonal' if least.leakage < DIAGONAL else 'least off-diagonal'} in the {least.basis} basis"
    each = ", ".join(f"{entry.basis} {entry.leakage:.2g}" for entry in leakages)
    return passed(f"{text}; off the diagonal of J: {each}", leakage=least.leakage)


SIMULATOR_FIRST = "Run keras_sip.check_simulator(simulator) first; pass x=... where it has no `sample`."
ILL_POSED = "Noise swamps the rest: take a solver that is told the noise, or damp more, with few `cg_steps`."

DIAGNOSIS_CHECKS = [
    Check("problems", problems, SIMULATOR_FIRST),
    Check("singular values", singular_values, SIMULATOR_FIRST, ("problems",)),
    Check("condition", condition, SIMULATOR_FIRST, ("singular values",)),
    Check("gradients", gradients, SIMULATOR_FIRST, ("problems",)),
    Check("damping", damping, SIMULATOR_FIRST, ("problems",)),
    Check("solver", solver, SIMULATOR_FIRST, ("problems",)),
    Check("cost", step_cost, SIMULATOR_FIRST, ("solver",)),
    Check("prior", prior, "Pass more examples, x=..., that differ from each other.", ("problems",)),
    Check("spectral basis", spectral_basis, SIMULATOR_FIRST, ("problems",)),
]
