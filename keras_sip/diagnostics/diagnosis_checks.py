"""What a diagnosis measures: Jacobians, gradients, and what the recommended solver makes of both."""

import numpy as np

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.diagnosis_case import cosines, decades
from keras_sip.diagnostics.report import Check, described, failed, note, passed, skipped

# Within these, gradients are as good as updates and there is little for SIP to mend.
EVEN_DECADES, EVEN_CONDITION = 0.5, 10.0
# Above this, back-propagation hardly moves the least sensitive directions.
HARD_CONDITION = 1e3
# Where condition times rounding exceeds this, y* does not tell the least sensitive directions.
UNRESOLVED = 0.1
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


SIMULATOR_FIRST = "Run keras_sip.check_simulator(simulator) first; pass x=... where it has no `sample`."
ILL_POSED = "Noise swamps the rest: take a solver that is told the noise, or damp more, with few `cg_steps`."

DIAGNOSIS_CHECKS = [
    Check("problems", problems, SIMULATOR_FIRST),
    Check("singular values", singular_values, SIMULATOR_FIRST, ("problems",)),
    Check("condition", condition, SIMULATOR_FIRST, ("singular values",)),
    Check("gradients", gradients, SIMULATOR_FIRST, ("problems",)),
    Check("damping", damping, SIMULATOR_FIRST, ("problems",)),
    Check("solver", solver, SIMULATOR_FIRST, ("problems",)),
]
