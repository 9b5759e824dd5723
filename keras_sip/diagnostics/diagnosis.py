"""diagnose: why training through a simulator is hard, and which solver should help."""

import dataclasses
from typing import Any

from keras_sip.diagnostics.diagnosis_case import DiagnosisCase
from keras_sip.diagnostics.diagnosis_checks import DIAGNOSIS_CHECKS, EVEN_CONDITION, EVEN_DECADES
from keras_sip.diagnostics.inverse_problems import Start
from keras_sip.diagnostics.report import WIDTH, Report, described, examine
from keras_sip.errors import check_number, check_positive_int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis(Report):
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
    simulator,
    *,
    x=None,
    context=None,
    x0=None,
    num_examples=32,
    num_jacobians=4,
    start_distance=1.0,
    seed=0,
    print_report=True,
):
    """Measure what makes training through a simulator hard, and recommend a solver and its damping, with the reason.

    Back-propagation gives a network dL/dx = J^T r. Its size varies with J from example to example, and its direction
    favours the sensitive directions of x by the square of J's singular values; the update of a solver does neither.
    Measured are the singular values of J = dr/dx at samples (all, where x or y has at most 256 components; else by
    Golub-Kahan-Lanczos bidiagonalisation), the spread of |dL/dx| over examples against that of |x* - x0|, the angle
    between dL/dx and the way to the solution, and the same for the update of the recommended solver. Its damping is the
    one of 1e-3, 0.1 and 10 after which one step leaves the least of the residual. x is in units of `x_scale`.

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
