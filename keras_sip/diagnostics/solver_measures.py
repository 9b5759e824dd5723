"""What is measured of a solver on a simulator: failures, descent, the constants of the theory, scale laws."""

import numpy as np
import tensorflow as tf

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.findings import Check, failed, note, passed
from keras_sip.solvers.base import Status
from keras_sip.training.checks import checked_solver

# A law is followed, and a solver descends, where this share of the examples does; one may meet another branch.
MOST = 0.9


def accepts(case):
    checked_solver(case.solver, case.simulator)
    return passed("the simulator has what the solver needs")


def problems(case):
    if not examples.is_finite(case.x0, case.y_target, case.objectives_at(case.x0)):
        return failed("x0, y* or L(x0) is not finite", SIMULATOR_FIRST)
    return passed(f"{len(case.x0)}, x* {case.origin}; median L(x0) {np.median(case.objectives_at(case.x0)):.3g}")


def status(case):
    codes, counts = np.unique(case.result.status, return_counts=True)
    statuses = {Status(int(code)): int(count) for code, count in zip(codes, counts, strict=True)}
    share = np.mean(case.result.failed)
    text = ", ".join(f"{count} {kind.name}" for kind, count in statuses.items())
    values = {"failed_share": float(share), "statuses": statuses}
    if share == 0 and statuses.get(Status.STALLED, 0) > (1 - MOST) * len(case.result.status):
        return note(f"none failed: {text}", Status.STALLED.message, **values)
    if share == 0:
        return passed(f"none failed: {text}", **values)
    remedy = " ".join(kind.message for kind in statuses if kind >= Status.NON_FINITE)
    verdict = note if share <= 1 - MOST else failed
    return verdict(f"{share:.0%} failed: {text}", remedy, **values)


def update(case):
    result = case.result
    if result.update.shape != case.x0.shape or result.update.dtype != case.x0.dtype:
        return failed(f"U is {result.update.shape} {result.update.dtype.name}", "Return U like x0, from `finish`.")
    if not examples.is_finite(result.update, result.x):
        return failed("U is not finite", "End `solve` with `self.finish(...)`: it replaces the U of failed examples.")
    # x and U are summed side by side, and each step rounds both.
    rounding = (1 + np.max(result.num_steps)) * np.finfo(case.x0.dtype.as_numpy_dtype).eps
    size = np.max(np.abs(case.x0)) + np.max(np.abs(result.update))
    if np.max(np.abs(result.x - (case.x0 + result.update))) > rounding * size:
        return failed("x is not x0 + U", "End `solve` with `self.finish(...)`.")
    length, way = (np.linalg.norm(examples.rows(field), axis=1) for field in (result.update, case.x_true - case.x0))
    return passed(f"finite; median |U| is {np.median(length / way):.2g} of |x* - x0|")


def nan_example(case):
    spoiled = case.y_target.numpy()
    spoiled[1].flat[0] = np.nan
    result = case.solve(case.x0, tf.constant(spoiled), case.context)
    others = np.arange(len(spoiled)) != 1
    if not np.array_equal(result.update.numpy()[others], case.result.update.numpy()[others]):
        return failed("a NaN in one observation changes the U of others", "Reduce over the axes of an example only.")
    if not result.failed[1]:
        return failed("a NaN observation is not reported as failed", "Pass the status NON_FINITE to `finish`.")
    return passed("leaves the others bit-identical, and is reported")


def descent(case):
    before, after = case.objectives
    share = float(np.mean(after < before))
    values = {"descent_share": share, "objective_before": before, "objective_after": after}
    text = f"L falls in {share:.0%}; median L {np.median(before):.2g} -> {np.median(after):.2g}"
    if share >= MOST:
        return passed(text, **values)
    verdict = note if share >= 0.5 else failed
    return verdict(text, DAMP, **values)


def tau(case):
    before, after = case.objectives
    gap = before - case.objectives_at(case.x_true)
    ratios = (before - after)[gap > 0] / gap[gap > 0]
    if not ratios.size:
        return note("every start is a solution", "Pass other starts: x0=...")
    smallest = float(np.min(ratios))
    text = f"tau = {smallest:.3g} (median {np.median(ratios):.3g})"
    if smallest > 0:
        return passed(f"{text}: Eq. 11 holds on these", tau=smallest)
    return note(f"{text}: {np.mean(ratios <= 0):.0%} do not descend, tau > 0 is needed", DAMP, tau=smallest)


def largest_step(case):
    gap = case.objectives[0] - case.objectives_at(case.x_true)
    length = np.linalg.norm(examples.rows(case.result.update), axis=1)
    if not np.any(gap > 0):
        return note("every start is a solution", "Pass other starts: x0=...")
    return passed(
        f"K = {np.max((length / gap)[gap > 0]):.3g} (units of x / L)", K=float(np.max((length / gap)[gap > 0]))
    )


def common_factor(case):
    change = case.change(diagonal=np.full(case.simulator.x_shape, 8.0))
    return _law(case, "common_factor_error", [change], failed, NOT_INVARIANT)


def component_units(case):
    return _law(case, "component_units_error", [case.change(diagonal=case.decade())], note, UNITS)


def rotation(case):
    return _law(case, "rotation_error", [case.change(left=True)], note, ROTATIONS)


def general_map(case):
    change = case.change(left=True, diagonal=case.decade(), right=True)
    return _law(case, "general_map_error", [change], note, ROTATIONS)


def y_units(case):
    size = np.max(np.abs(case.y_target))
    exponent = np.round(np.log2(size)) if size > 0 else 0.0
    changes = [case.change(y_unit=2.0 ** (power - exponent)) for power in (-40, 40)]
    return _law(case, "y_unit_error", changes, failed, NOT_INVARIANT)


SIMULATOR_FIRST = "Run keras_sip.check_simulator(simulator) first, and pass x=... where it has no `sample`."
DAMP = "Damp the step: LevenbergMarquardt() accepts descent only; or bound it, or start closer."
NOT_INVARIANT = (
    "It is not scale-invariant: its steps depend on units, and training with it is as uneven as back-propagation. Use "
    "GaussNewton() or LevenbergMarquardt()."
)
UNITS = "Keep the components of x near 1 (x_scale), or use LevenbergMarquardt(), or more `cg_steps`."
ROTATIONS = "Fine if its docstring claims no more; GaussNewton() claims every invertible map."
OWN_SOLVER = "Run solver.solve(simulator, x0, y_target) eagerly on a few examples to see where it fails."

SOLVER_CHECKS = [
    Check("accepts", accepts, "Give the simulator what is missing, or take another solver."),
    Check("problems", problems, SIMULATOR_FIRST, ("accepts",)),
    Check("status", status, OWN_SOLVER, ("problems",)),
    Check("update", update, OWN_SOLVER, ("problems",)),
    Check("NaN example", nan_example, OWN_SOLVER, ("update",)),
    Check("descent", descent, OWN_SOLVER, ("update",)),
    Check("tau (Eq. 11)", tau, OWN_SOLVER, ("update",)),
    Check("K (Eq. 12)", largest_step, OWN_SOLVER, ("update",)),
    Check("x -> c x", common_factor, OWN_SOLVER, ("update",)),
    Check("units of x", component_units, OWN_SOLVER, ("update",)),
    Check("rotations of x", rotation, OWN_SOLVER, ("update",)),
    Check("any map of x", general_map, OWN_SOLVER, ("update",)),
    Check("units of y", y_units, OWN_SOLVER, ("update",)),
]


def _law(case, name, changes, verdict, remedy):
    try:
        error = np.max([case.law_errors(change) for change in changes], axis=0)
    except TypeError:  # what `check` raises
        return note("not measured: the solver takes the simulator in its own units only; see its docstring")
    known = error[~np.isnan(error)]
    values = {name: error}
    if not known.size:
        return note("no example moved: nothing to compare", "Start farther from the solution.", **values)
    if np.mean(known <= case.law_tolerance) >= MOST:
        return passed(f"U follows (to {np.quantile(known, MOST):.1g} in 9 of 10 examples)", **values)
    return verdict(f"U does not follow: it is off by {np.median(known):.2g} |U|", remedy, **values)
