"""Solvers made of solvers: a limit on the step, a line search, another solver for what the first cannot do."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, Status, Step, renewed
from keras_sip.solvers.chain import Chain
from keras_sip.solvers.problem import InverseProblem

# An option that is left out; None has a meaning of its own.
INHERITED: Any = ...
OF_THE_LOOP = tuple(field.name for field in dataclasses.fields(InverseSolver))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wrapper(InverseSolver):
    """A solver around another one. Options of the loop that are left out are those of the inner solver."""

    solver: InverseSolver = dataclasses.field(kw_only=False)
    max_steps: int = INHERITED
    ftol: float | None = INHERITED
    xtol: float | None = INHERITED
    gtol: float | None = INHERITED
    residual_tolerance: float = INHERITED
    on_failure: str = INHERITED

    def __post_init__(self):
        check_inner("solver", self.solver)
        for name in OF_THE_LOOP:
            if getattr(self, name) is INHERITED:
                object.__setattr__(self, name, getattr(self.solver, name))
        super().__post_init__()

    @property
    def compiles_as_one(self):
        return self.solver.compiles_as_one

    def check(self, simulator):
        self.solver.check(simulator)

    def get_config(self):
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        serialize = keras.saving.serialize_keras_object
        return {k: serialize(v) if isinstance(v, InverseSolver) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config):
        restore = keras.saving.deserialize_keras_object
        return cls(**{k: restore(v) if isinstance(v, dict) else v for k, v in renewed(config).items()})

    def refiner(self):
        return self.with_options(solver=self.solver.refiner())

    def init(self, problem, x):
        return self.solver.init(problem, x)

    def _inner_step(self, problem, x, state):
        """The inner solver's step; all of what a direct solver finds is one step."""
        if type(self.solver).solve is InverseSolver.solve:
            return self.solver.step(problem, x, state)
        result = self.solver.solve(problem.simulator, x, problem.y_target, problem.context)
        failure = tf.where(result.failed, result.status, 0)
        return Step(result.update, problem.objective(x), tf.zeros_like(result.failed), failure, state, x=result.x)


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitedStep(_Wrapper):
    """Each step of `solver`, shortened to `max_norm` in x where it is longer; its direction stays.

    Scale law: that of the solver where no step is shortened, else that of the norm: rotations ("l2", "rms") or changes
    of sign ("max").

    Source: the paper, Section 4, Newton's method clipped at 0.1 (Figure 2).

    Args:
        solver: The solver whose steps are limited.
        max_norm: The longest step, in units of x.
        norm: "l2", Euclidean over the components of an example; "rms", their root mean square; "max", the largest.
        max_steps, ftol, xtol, gtol, residual_tolerance, on_failure: As in `InverseSolver`; those of `solver` where left
            out.
    """

    max_norm: float = 1.0
    norm: str = "l2"

    def __post_init__(self):
        super().__post_init__()
        check_number("max_norm", self.max_norm, exclusive=True)
        check_choice("norm", self.norm, ("l2", "rms", "max"))

    def step(self, problem, x, state):
        step = self._inner_step(problem, x, state)
        length = batched.max_abs(step.update) if self.norm == "max" else batched.norm(step.update)
        longest = self.max_norm * (x.shape[1:].num_elements() ** 0.5 if self.norm == "rms" else 1.0)
        return _scaled(step, x, tf.where(length > longest, longest / length, tf.ones_like(length)))


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LineSearch(_Wrapper):
    """t times the step of `solver`, t = 1, s, s^2, ... the first that lowers L enough, for each example.

    Enough is L(x + t dx) <= L(x) + c t g dx, c = `sufficient_decrease`, where the step goes downhill, g dx < 0. Where
    no t does, or the step goes uphill, the status of the first step says REJECTED and the update falls back as
    `on_failure` says; after a later step it says STALLED, and the example keeps what it has.

    Scale law: that of the solver.

    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., Algorithm 3.1 (backtracking).

    Args:
        solver: The solver whose steps are searched along.
        shrink: s.
        max_tries: Factors tried.
        sufficient_decrease: c.
        max_steps, ftol, xtol, gtol, residual_tolerance, on_failure: As in `InverseSolver`; those of `solver` where left
            out.
    """

    shrink: float = 0.5
    max_tries: int = 12
    sufficient_decrease: float = 1e-4

    def __post_init__(self):
        super().__post_init__()
        check_number("shrink", self.shrink, exclusive=True, maximum=0.99)
        check_positive_int("max_tries", self.max_tries)
        check_number("sufficient_decrease", self.sufficient_decrease, maximum=0.5)

    def step(self, problem, x, state):
        step = self._inner_step(problem, x, state)
        slope = batched.dot(problem.gradient(x)[1], step.update)

        def attempt(count, factor, accepted):
            objective = problem.objective(x + batched.expand(factor, x) * step.update)
            lowered = objective <= step.objective + self.sufficient_decrease * factor * slope
            accepted |= lowered & (objective < step.objective)
            return count + 1, tf.where(accepted, factor, self.shrink * factor), accepted

        # Of no use to those that have failed, arrived, or would climb.
        hopeless = step.converged | (step.failure > 0) | ~(slope < 0)
        _, factor, settled = tf.while_loop(
            lambda count, factor, accepted: ~tf.reduce_all(accepted),
            attempt,
            (tf.constant(0), tf.ones_like(slope), hopeless),
            maximum_iterations=self.max_tries,
        )
        # No point is lower than one where L = 0 or g = 0, and the loop knows those.
        stays = (~settled | ~(slope < 0)) & ~step.converged & (step.failure == 0)
        failure = tf.where(stays, int(Status.REJECTED), step.failure)
        return _scaled(step, x, tf.where(stays, tf.zeros_like(factor), factor))._replace(failure=failure)


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Fallback(_Wrapper):
    """The result of `solver`, and that of `other`, from the same start, for the examples in which `solver` fails.

    Status and steps of such an example are those of `other`, with the steps of `solver` added. `other` runs only if an
    example has failed. What both fail in falls back as `on_failure` says.

    Scale law: what both solvers have in common.

    Args:
        solver: Asked first.
        other: Asked for the examples that failed.
        max_steps, ftol, xtol, gtol, residual_tolerance: Of `solver`, whose own they replace where given.
        on_failure: As in `InverseSolver`; that of `other` where left out.
    """

    other: InverseSolver = dataclasses.field(kw_only=False)

    def __post_init__(self):
        check_inner("other", self.other)
        if self.on_failure is INHERITED:
            object.__setattr__(self, "on_failure", self.other.on_failure)
        super().__post_init__()

    @property
    def compiles_as_one(self):
        return self.solver.compiles_as_one and self.other.compiles_as_one

    def check(self, simulator):
        super().check(simulator)
        self.other.check(simulator)

    def refiner(self):
        return super().refiner().with_options(other=self.other.refiner())

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        # "raise" is for this solver's own end.
        first = self._first().with_options(on_failure="zero")
        result = first.solve(simulator, x0, y_target, context, y0)

        def ask_other():
            second = self.other.with_options(on_failure="zero").solve(simulator, x0, y_target, context, y0)
            return second._replace(num_steps=result.num_steps + second.num_steps)

        others = tf.cond(tf.reduce_any(result.failed), ask_other, lambda: result)
        chosen = batched.where_example(result.failed, _known(others), _known(result))
        x, update, status, num_steps, optimality = chosen
        problem = InverseProblem(simulator, y_target, context)
        return self.finish(problem, x0, update, status, num_steps, evaluate_result, x=x, optimality=optimality)

    def _first(self):
        """The first solver, with the options of the loop that were given here."""
        if isinstance(self.solver, Chain):
            return self.solver
        return self.solver.with_options(**{name: getattr(self, name) for name in OF_THE_LOOP if name != "on_failure"})

    def _improve(self, problem, x0, y0, steps):
        point, status, num_steps = first = self._first()._improve(problem, x0, y0, steps)
        failed = status >= Status.NON_FINITE

        def ask_other():
            point, status, more = self.other._improve(problem, x0, y0, steps)
            return point, status, num_steps + more

        return batched.where_example(failed, tf.cond(tf.reduce_any(failed), ask_other, lambda: first), first)


def _known(result):
    """The fields of a result that a solver gives unasked."""
    return result.x, result.update, result.status, result.num_steps, result.optimality


def _scaled(step, x, factor):
    """The step from x, each example's multiplied by its `factor` `[B]`."""
    update = step.update * batched.expand(factor, x)
    whole = factor == 1
    update = batched.where_example(whole, step.update, update)
    end = None if step.x is None else batched.where_example(whole, step.x, x + update)
    return step._replace(update=update, x=end)


def check_inner(name, solver):
    """`TypeError` unless `solver` is an `InverseSolver` object."""
    if not isinstance(solver, InverseSolver):
        raise TypeError(
            three_part(
                f"`{name}` to be a keras_sip.InverseSolver",
                f"{solver!r}",
                "Pass an instance such as GaussNewton().",
            )
        )
