"""Solvers made of solvers: a limit on the step, a line search, another solver for what the first cannot do."""

import dataclasses
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, Status, Step
from keras_sip.solvers.problem import InverseProblem


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wrapper(InverseSolver):
    """A solver around another one. Options of the loop that are left out are those of the inner solver."""

    solver: InverseSolver = dataclasses.field(kw_only=False)
    max_steps: int | None = None
    tolerance: float | None = None
    on_failure: str | None = None

    def __post_init__(self):
        check_inner("solver", self.solver)
        for name in ("max_steps", "tolerance", "on_failure"):
            if getattr(self, name) is None:
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
        return cls(**{k: restore(v) if isinstance(v, dict) else v for k, v in config.items()})

    def init(self, problem, x):
        return self.solver.init(problem, x)

    def _inner_step(self, problem, x, state):
        """The inner solver's step; all of what a direct solver finds is one step."""
        if type(self.solver).solve is InverseSolver.solve:
            return self.solver.step(problem, x, state)
        result = self.solver.solve(problem.simulator, x, problem.y_target, problem.context)
        failure = tf.where(result.failed, result.status, 0)
        return Step(result.update, problem.objective(x), tf.zeros_like(result.failed), failure, state)


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
        max_steps, tolerance, on_failure: As in `InverseSolver`; those of `solver` where left out.
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
        shortened = step.update * batched.expand(longest / length, x)
        return step._replace(update=batched.where_example(length > longest, shortened, step.update))


class _SearchState(NamedTuple):
    inner: Any
    has_descended: tf.Tensor


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LineSearch(_Wrapper):
    """t times the step of `solver`, t = 1, s, s^2, ... the first that lowers L enough, for each example.

    Enough is L(x + t dx) <= L(x) + c t g dx, c = `sufficient_decrease`, where the step goes downhill, g dx < 0. Where
    no t does, or the step goes uphill, the status of the first step says REJECTED and the update falls back as
    `on_failure` says; a later step then ends the example, which keeps what it has.

    Scale law: that of the solver.

    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., Algorithm 3.1 (backtracking).

    Args:
        solver: The solver whose steps are searched along.
        shrink: s.
        max_tries: Factors tried.
        sufficient_decrease: c.
        max_steps, tolerance, on_failure: As in `InverseSolver`; those of `solver` where left out.
    """

    shrink: float = 0.5
    max_tries: int = 12
    sufficient_decrease: float = 1e-4

    def __post_init__(self):
        super().__post_init__()
        check_number("shrink", self.shrink, exclusive=True, maximum=0.99)
        check_positive_int("max_tries", self.max_tries)
        check_number("sufficient_decrease", self.sufficient_decrease, maximum=0.5)

    def init(self, problem, x):
        return _SearchState(super().init(problem, x), tf.zeros_like(batched.all_finite(x)))

    def step(self, problem, x, state):
        step = self._inner_step(problem, x, state.inner)
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
        return Step(
            update=batched.expand(tf.where(stays, tf.zeros_like(factor), factor), x) * step.update,
            objective=step.objective,
            converged=step.converged | (stays & state.has_descended),
            failure=tf.where(stays, int(Status.REJECTED), step.failure),
            state=_SearchState(step.state, state.has_descended | ~stays),
        )


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
        max_steps, tolerance: Of `solver`, whose own they replace where given.
        on_failure: As in `InverseSolver`; that of `other` where left out.
    """

    other: InverseSolver = dataclasses.field(kw_only=False)

    def __post_init__(self):
        check_inner("other", self.other)
        if self.on_failure is None:
            object.__setattr__(self, "on_failure", self.other.on_failure)
        super().__post_init__()

    @property
    def compiles_as_one(self):
        return self.solver.compiles_as_one and self.other.compiles_as_one

    def check(self, simulator):
        super().check(simulator)
        self.other.check(simulator)

    def refining(self, max_steps):
        solvers = {name: getattr(self, name).refining(max_steps) for name in ("solver", "other")}
        steps = solvers["solver"].max_steps
        return self.with_options(**solvers, max_steps=steps, on_failure="keep_best")

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        # Where it keeps the best, what it has is worth keeping; "raise" is for this solver's own end.
        how = "keep_best" if self.on_failure == "keep_best" else "zero"
        first = self.solver.with_options(max_steps=self.max_steps, tolerance=self.tolerance, on_failure=how)
        result = first.solve(simulator, x0, y_target, context, y0)

        def ask_other():
            second = self.other.with_options(on_failure=how).solve(simulator, x0, y_target, context, y0)
            return second.update, second.status, result.num_steps + second.num_steps

        mine = (result.update, result.status, result.num_steps)
        others = tf.cond(tf.reduce_any(result.failed), ask_other, lambda: mine)
        update, status, num_steps = batched.where_example(result.failed, others, mine)
        problem = InverseProblem(simulator, y_target, context)
        return self.finish(problem, x0, update, status, num_steps, evaluate_result)


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
