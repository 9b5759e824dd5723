"""diagnose: why training through a simulator is hard, and which solver should help."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.examples import InverseProblems, Start
from keras_sip.diagnostics.findings import WIDTH, Check, Findings, described, examine, failed, note, passed, skipped
from keras_sip.diagnostics.simulator_steps import median_seconds
from keras_sip.errors import check_number, check_positive_int
from keras_sip.ops import derivatives
from keras_sip.ops.bidiagonalization import golub_kahan
from keras_sip.priors import GaussianPrior
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.measured_form import measured_leakage
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.solvers.automatic import best_candidate
from keras_sip.solvers.levenberg_marquardt import LevenbergMarquardt
from keras_sip.solvers.problem import InverseProblem


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


# Up to this size a Jacobian is formed and its singular values are exact.
LARGEST_DENSE = 256
# Two products each; the largest singular values are exact after a few, the smallest ones bounded.
LANCZOS_STEPS = 64
# From the default up: each is the first of several tries, so that coarse steps do.
DAMPINGS = (1e-3, 1e-1, 10.0)
SMALL_REMAINDER = 0.1
EQUALLY_GOOD = 1.1


class DiagnosisCase(InverseProblems):
    """Everything in z = x / x_scale, the units in which the network works."""

    def __init__(self, simulator, start, num_jacobians):
        super().__init__(simulator, start)
        self.num_jacobians = num_jacobians
        self.compiled_by = functools.cache(self._compiled)
        self.solved_by = functools.cache(self._solve)

    @functools.cached_property
    def physics(self):
        return Nondimensional(self.simulator)

    @functools.cached_property
    def z_true(self):
        return self.physics.from_physical(self.x_true)

    @functools.cached_property
    def z0(self):
        return self.physics.from_physical(self.x0)

    @functools.cached_property
    def way(self):
        """z* - z0, float64 `[B, n]`."""
        return examples.rows(self.z_true) - examples.rows(self.z0)

    @functools.cached_property
    def gradient(self):
        """dL/dz at z0, float64 `[B, n]`."""
        problem = InverseProblem(self.physics, self.y_target, self.context).scaled_at(self.z0)
        scaled = problem.gradient(self.z0)[1]
        return examples.rows(scaled) * np.square(np.float64(problem.scale))[:, None]

    @functools.cached_property
    def is_exact(self):
        """Whether all singular values are known, and not those of a Krylov space only."""
        smaller = min(np.prod(self.simulator.x_shape), np.prod(self.simulator.y_shape))
        return self._spectrum is not None or smaller <= LARGEST_DENSE

    @functools.cached_property
    def _spectrum(self):
        """|J| mode by mode, where P is diagonal in a spectral basis; mirrored modes count once."""
        if not self.physics.has(Ability.DIAGONAL_FORM) or self.simulator.has(Ability.RESIDUAL):
            return None
        return np.sort(np.abs(self.physics.diagonal_form.transfer).ravel())[::-1]

    @functools.cached_property
    def singular_values(self):
        """Those of the residual's Jacobian dr/dz, falling, float64; an array for each of the first examples."""
        if self._spectrum is not None:
            return [self._spectrum]
        z, y_target = self.z_true[: self.num_jacobians], tf.roll(self.y_target, 1, axis=0)[: self.num_jacobians]
        context = tf.nest.map_structure(
            lambda entry: entry if entry is None else entry[: self.num_jacobians], self.context
        )

        def residual(z):
            y = self.physics.forward(z, context)
            return self.physics.residual(y, y_target, context) if self.physics.is_least_squares else y

        if self.is_exact:
            jacobian = np.asarray(derivatives.jacobian(residual, z), np.float64)
            return list(np.linalg.svd(jacobian, compute_uv=False))
        _, jvp, vjp = derivatives.linearize(residual, z)
        start = tf.constant(np.random.default_rng(13).standard_normal(z.shape), z.dtype)
        alphas, betas, counts = (part.numpy() for part in golub_kahan(jvp, vjp, start, LANCZOS_STEPS))
        return [
            np.linalg.svd(np.diag(alpha[:count]) + np.diag(beta[: count - 1], 1), compute_uv=False)
            for alpha, beta, count in zip(alphas, betas, np.maximum(counts, 1), strict=True)
        ]

    @property
    def condition(self):
        """Median over the examples of the largest over the smallest singular value."""
        with np.errstate(divide="ignore"):
            return float(np.median([values[0] / values[-1] for values in self.singular_values]))

    @property
    def gradient_decades(self):
        return decades(np.linalg.norm(self.gradient, axis=1))

    @property
    def distance_decades(self):
        return decades(np.linalg.norm(self.way, axis=1))

    @functools.cached_property
    def candidate(self):
        """What `auto_solver` chooses, with its reason."""
        return best_candidate(self.simulator)

    @functools.cached_property
    def remainders(self):
        """Mean share of the residual that one step leaves, by damping, up to one that serves; None without damping."""
        if not isinstance(self.candidate.solver, LevenbergMarquardt):
            return None
        remainders = {}
        for damping in DAMPINGS:
            result = self.solved_by(self.candidate.solver.with_options(damping=damping, max_steps=1))
            remainders[damping] = self.remainder(result)
            if remainders[damping] < SMALL_REMAINDER:
                break
        return remainders

    @functools.cached_property
    def solver(self):
        """The candidate, with the smallest damping that leaves about as little as the best."""
        if self.remainders is None:
            return self.candidate.solver
        enough = EQUALLY_GOOD * min(self.remainders.values())
        damping = min(damping for damping, remainder in self.remainders.items() if remainder <= enough)
        return self.candidate.solver.with_options(damping=damping)

    def objectives(self, z):
        return examples.objectives(self.physics, z, self.y_target, self.context)

    def remainder(self, result):
        """Mean over the examples of sqrt(L(x0 + U) / L(x0)), at most 1 each."""
        before, after = self.objectives(self.z0), self.objectives(result.x)
        return float(np.mean(np.sqrt(np.minimum(np.abs(after[before > 0] / before[before > 0]), 1.0))))

    @functools.cached_property
    def result(self):
        return self.solved_by(self.solver)

    @functools.cached_property
    def adjoint(self):
        """`z -> (P(z), J^T w)` compiled, w the residual of a start."""
        w = self.y_target - self.physics.forward(self.z0, self.context)
        return tf.function(lambda z: derivatives.vjp(self._simulated, z, w), autograph=False)

    def _simulated(self, z):
        return self.physics.forward(z, self.context)

    def _compiled(self, solver):
        return tf.function(functools.partial(solver.solve, self.physics), autograph=False)

    def _solve(self, solver):
        return self.compiled_by(solver)(self.z0, self.y_target, self.context)


def decades(sizes):
    """log10 of the 95 % quantile over the 5 % quantile of positive numbers; infinite where more than 5 % are 0."""
    low, high = np.quantile(sizes, (0.05, 0.95))
    return float(np.log10(high / low)) if low > 0 else float("inf")


def cosines(a, b):
    """Cosine of the angle between the vectors of each example `[B]`, 0 where one of them vanishes."""
    # Divided by their largest entry first: squares of gradients near 1e-200 vanish.
    a, b = (part / np.maximum(np.max(np.abs(part), axis=1, keepdims=True), np.finfo(float).tiny) for part in (a, b))
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / np.where(size > 0, size, 1.0)


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
