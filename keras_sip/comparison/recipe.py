"""recipe: what a newcomer should start with on a simulator, and why."""

import dataclasses
import textwrap
from typing import Any

import keras

from keras_sip.diagnostics.diagnosis import EVEN_CONDITION, EVEN_DECADES, Diagnosis, diagnose
from keras_sip.diagnostics.findings import WIDTH, described
from keras_sip.errors import check_positive_int, three_part
from keras_sip.optimizers.muon import Muon
from keras_sip.simulators.base import Simulator
from keras_sip.solvers.base import InverseSolver
from keras_sip.training.methods import SIP, Adjoint, TrainingMethod
from keras_sip.training.model import SIPModel

# Rates over which results differ little: docs/results/heat.md, and docs/results/exponential.md.
KERNELS_RATE, VECTORS_RATE = 1e-2, 3e-3
KERNELS_MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `recipe` returns; printing it gives the four choices with their reasons.

    Attributes:
        simulator: What it is for.
        solver: The `InverseSolver`; None where the method needs none.
        method: The `TrainingMethod`.
        steps: Training steps that the learning rate is to fall over; None for a constant one.
        reasons: {"solver", "method", "optimizer", "schedule": why}.
        diagnosis: The `Diagnosis` that the choices follow from.
    """

    simulator: Simulator
    solver: InverseSolver | None
    method: TrainingMethod
    steps: int | None
    reasons: dict[str, str]
    diagnosis: Diagnosis

    def optimizer(self) -> keras.optimizers.Optimizer:
        """A new optimizer with the schedule, of its own state for each model."""
        kernels = _has_kernels(self.simulator)
        rate = KERNELS_RATE if kernels else VECTORS_RATE
        schedule = rate if self.steps is None else keras.optimizers.schedules.CosineDecay(rate, self.steps)
        return Muon(schedule, momentum=KERNELS_MOMENTUM) if kernels else keras.optimizers.Adam(schedule)

    def model(self, network: keras.Model, **options: Any) -> SIPModel:
        """The compiled `SIPModel` around a network.

        Args:
            network: From `simulator.network_input(observation)` to x.
            **options: Of `SIPModel.compile`, such as `steps_per_execution`.
        """
        model = SIPModel(network, self.simulator, self.solver, self.method)
        model.compile(self.optimizer(), **options)
        return model

    def __str__(self) -> str:
        optimizer = self.optimizer()
        shown = {
            "solver": described(self.solver),
            "method": described(self.method),
            "optimizer": type(optimizer).__name__,
            "schedule": "constant" if self.steps is None else f"cosine to 0 over {self.steps} steps",
        }
        lines = [f"recipe for {described(self.simulator)}"]
        for name, text in shown.items():
            lines += textwrap.wrap(
                f"{name:10} {text}: {self.reasons[name]}", WIDTH, subsequent_indent=11 * " ", break_on_hyphens=False
            )
        return "\n".join(lines)


def recipe(simulator: Simulator, *, steps: int | None = 1000, seed: int = 0) -> Recipe:
    """Solver, training method, optimizer and schedule to start with, each with its reason.

        recipe = keras_sip.recipe(simulator, steps=2000)
        print(recipe)
        model = recipe.model(keras_sip.UNet((64, 64, 1), 1))
        model.fit(keras_sip.dataset(simulator, 32, seed=0), steps_per_epoch=2000)

    Solver and method follow from what `diagnose` measures: the solver is the one it recommends; where gradients are in
    range and even over examples and over directions of x, back-propagation does as well and needs none. Fields have
    networks of kernels, for which Muon is the faster optimizer; vectors have Adam. The rate falls along a cosine.

    `keras_sip.compare(simulator, ["recipe", "sip", "adjoint"])` shows what it is worth.

    Args:
        simulator: A simulator with `sample`; `check_simulator` comes first.
        steps: Training steps planned; None, where time ends the training, keeps the rate constant.
        seed: Of the samples that are diagnosed.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: `diagnose` could not measure what is needed; the message says what it found.
    """
    if steps is not None:
        check_positive_int("steps", steps)
    diagnosis = diagnose(simulator, seed=seed, print_report=False)
    if diagnosis.solver is None or diagnosis.condition is None or diagnosis.gradient_decades is None:
        raise ValueError(
            three_part(
                "a simulator that `diagnose` can measure",
                str(diagnosis),
                "Mend what it found, or choose by hand: SIPModel(network, simulator, 'auto').",
            )
        )
    method, why_method = _method(diagnosis)
    needs_solver = isinstance(method, SIP)
    return Recipe(
        simulator=simulator,
        solver=diagnosis.solver if needs_solver else None,
        method=method,
        steps=steps,
        reasons={
            "solver": _of_solver(diagnosis) if needs_solver else "back-propagation needs none",
            "method": why_method,
            "optimizer": (
                "x is a field, and orthogonal steps of a network's kernels go further than Adam's"
                if _has_kernels(simulator)
                else "x is a vector, and small dense networks train well with it"
            ),
            "schedule": (
                "where the training will end is not known"
                if steps is None
                else "large steps at first, and no jumping about at the end"
            ),
        },
        diagnosis=diagnosis,
    )


def _method(diagnosis):
    spread, way, condition = diagnosis.gradient_decades, diagnosis.distance_decades, diagnosis.condition
    if not diagnosis.gradient_in_range:
        return SIP(), "gradients leave the range of floating-point numbers, and updates do not"
    if spread <= way + EVEN_DECADES and condition <= EVEN_CONDITION:
        return Adjoint(), (
            f"gradients are even, over 10^{spread:.1f} between examples and {condition:.2g} between directions of x: "
            "back-propagation does nearly as well as SIP"
        )
    return SIP(), (
        f"gradients spread over 10^{spread:.1f} between examples, whose distances from x* do over 10^{way:.1f}, and "
        f"over {condition:.2g} between directions of x; updates spread over 10^{diagnosis.update_decades:.1f}"
    )


def _of_solver(diagnosis):
    cost = "" if diagnosis.step_cost is None else f", for {diagnosis.step_cost:.2g} adjoint steps"
    return f"{diagnosis.reason}; its update lowers L in {diagnosis.descent_share:.0%} of the examples{cost}"


def _has_kernels(simulator):
    return len(simulator.x_shape) > 1
