"""InverseSolver: how to get from (x0, y*) to a better x. One loop serves every iterative solver."""

import dataclasses
import enum
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, must_define, three_part
from keras_sip.ops import batched
from keras_sip.simulators.base import check_simulator_interface
from keras_sip.solvers.problem import InverseProblem

FALLBACKS = ("zero", "gradient", "keep_best", "raise")


class Status(enum.IntEnum):
    """How the solver ended, for each example. Values from `NON_FINITE` on are failures."""

    CONVERGED = 0
    MAX_STEPS = 1
    NON_FINITE = 2
    REJECTED = 3
    BREAKDOWN = 4

    @property
    def message(self):
        """What happened and what to do."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.CONVERGED: "The tolerance was met, or no further step lowers the objective.",
    Status.MAX_STEPS: "All steps were taken. In training this is the rule; to go further, raise max_steps.",
    Status.NON_FINITE: "The start, observation, simulation or a step was not finite. Check the data and bound x.",
    Status.REJECTED: "No tried step lowered the objective. Start closer, or allow more tries or damping.",
    Status.BREAKDOWN: "The step is not defined: a singular system, or no gradient. Use LevenbergMarquardt().",
}


class SolverError(ArithmeticError):
    """Raised for failed examples where `on_failure="raise"`."""


class SolverResult(NamedTuple):
    """What a solver returns; the leading axis of every entry is the example.

    Attributes:
        x: The better x, `[B, *x_shape]`; x0 + update.
        update: U, the sum of the steps taken, `[B, *x_shape]`. Summed step by step: x - x0 would lose it in rounding.
        y: P(x), or None unless `evaluate_result` was asked for.
        status: `Status` values, int32 `[B]`.
        num_steps: Steps taken, int32 `[B]`.
        objective: L at x in physical units `[B]`, or None unless `evaluate_result` was asked for.
    """

    x: tf.Tensor
    update: tf.Tensor
    y: Any
    status: tf.Tensor
    num_steps: tf.Tensor
    objective: Any

    @property
    def failed(self):
        """Boolean `[B]`."""
        return self.status >= Status.NON_FINITE


class Step(NamedTuple):
    """One step of an iterative solver, per example.

    `objective` is L / m^2 where the step started, in the units of `InverseProblem`. Where `converged`, that point is
    the solution and `update` is not taken; where `failure` is not 0, it is the `Status` that ends the example.
    """

    update: tf.Tensor
    objective: tf.Tensor
    converged: tf.Tensor
    failure: tf.Tensor
    state: Any


class _Progress(NamedTuple):
    """What evolves in the loop."""

    count: tf.Tensor
    update: tf.Tensor
    state: Any
    active: tf.Tensor
    status: tf.Tensor
    num_steps: tf.Tensor
    first_objective: tf.Tensor
    best_objective: tf.Tensor
    best_update: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True, repr=True)
class InverseSolver:
    """Configuration of an inverse solver; `solve` runs it. What evolves lives in an explicit state.

    **Must override** one of:

    - `init(problem, x) -> state` (default: no state) and `step(problem, x, state) -> Step`: an iterative solver, which
      inherits stepping, limits, per-example stopping and the handling of failures. Every entry of a state has the
      batch as its leading axis;
    - `solve(...)`: a direct inverse, or a library's own loop; it ends with `self.finish(...)`.

    **May override** `check(simulator)`, which refuses a simulator that lacks what the solver needs.

    A subclass is a frozen dataclass of its options, registered with Keras; that is all that saving needs.

    Args:
        max_steps: Steps at most. 1 gives the paper's first update (Eq. 6), m gives U = dx_0 + ... + dx_m (Section
            3.1), a large number with a tolerance the solver run to convergence (Eq. 5).
        tolerance: An example stops once the norm of its residual is at most this fraction of that at x0, or once its
            step could lower the residual by no more than this fraction. 0 never stops early.
        on_failure: The update of a failed example: "zero"; "gradient", a bounded step downhill; "keep_best", the best
            point on the way, never worse than x0; "raise", an error naming the examples. Inside compiled functions,
            which cannot raise, "raise" gives "zero" and the status tells (SIPModel.fit checks it after every batch).
    """

    max_steps: int = 1
    tolerance: float = 0.0
    on_failure: str = "zero"

    # Whether simulation and solver become one program, where a simulator gains by XLA. XLA compiles a function anew for
    # each place that calls it: a solver with many such places compiles the objective alone.
    compiles_as_one = True

    def __post_init__(self):
        check_positive_int("max_steps", self.max_steps)
        check_number("tolerance", self.tolerance)
        check_choice("on_failure", self.on_failure, FALLBACKS)

    def check(self, simulator):
        """Refuse, with the method to add, a simulator that lacks what this solver needs."""
        check_simulator_interface(simulator)

    def init(self, problem, x):
        """State at the start; every entry has the batch as its leading axis."""
        return ()

    def step(self, problem, x, state):
        """One step from x."""
        raise must_define(
            self,
            "step(self, problem, x, state)` or `solve(...)",
            "a solver with neither",
            "Add `step` for an iterative solver; the shared loop does the rest.",
        )

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        """Improve x0 towards P(x) = y_target; examples are independent problems.

        Args:
            simulator: The process P.
            x0: Where to start, `[B, *x_shape]`.
            y_target: The observation, `[B, *y_shape]`, in the simulator's precision.
            context: What is known of each example (dict of `[B, ...]`), or None.
            y0: P(x0), where it is known already.
            evaluate_result: Also return y and the objective at the result (one more simulation).

        Returns:
            A `SolverResult`, every field per example.
        """
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        problem = InverseProblem(simulator, y_target, context).scaled_at(x0, y0)
        progress = self._start(problem, x0, y_target)
        if self.max_steps == 1:
            progress = self._advance(problem, x0, progress)
        else:
            progress = self._iterate(problem, x0, progress, self.max_steps)
        if self.on_failure == "keep_best":
            progress = _keep_best(progress, problem.objective(x0 + progress.update))
        return self.finish(problem, x0, progress.update, progress.status, progress.num_steps, evaluate_result)

    def improve(self, simulator, x0, y_target, context=None, *, steps):
        """`refining(steps).solve(...)` where the number of steps is a tensor, known only when the graph runs.

        A solver that overrides `solve` is run `steps` times over, each run from the best point so far.

        Args:
            simulator, x0, y_target, context: As in `solve`.
            steps: int32 scalar.

        Returns:
            A `SolverResult` with y and objective; no example's objective is above that at x0.
        """
        if type(self).solve is not InverseSolver.solve:
            return self._repeat(simulator, x0, y_target, context, steps)
        solver = self.with_options(on_failure="keep_best")
        x0, y_target, context = solver.prepare(simulator, x0, y_target, context)
        problem = InverseProblem(simulator, y_target, context).scaled_at(x0)
        progress = solver._iterate(problem, x0, solver._start(problem, x0, y_target), steps)
        progress = _keep_best(progress, problem.objective(x0 + progress.update))
        return solver.finish(problem, x0, progress.update, progress.status, progress.num_steps, evaluate_result=True)

    def prepare(self, simulator, x0, y_target, context):
        """The checked arguments of `solve` as tensors in the simulator's precision."""
        self.check(simulator)
        return simulator.as_x(x0), simulator.as_y(y_target), simulator.as_context(context)

    def finish(self, problem, x0, update, status, num_steps, evaluate_result=False):
        """The result, with the update of failed examples replaced as `on_failure` says. It is always finite."""
        finite = batched.all_finite(update)
        status = tf.where(finite, status, tf.maximum(status, int(Status.NON_FINITE)))
        failed = status >= Status.NON_FINITE
        if self.on_failure == "raise":
            _raise_if_concrete(status)
        fallback = tf.zeros_like(x0)
        if self.on_failure == "gradient":
            fallback = tf.cond(tf.reduce_any(failed), lambda: bounded_gradient_step(problem, x0), lambda: fallback)
        replaced = ~finite if self.on_failure == "keep_best" else failed
        update = batched.where_example(replaced, fallback, update)
        x = x0 + update
        y = objective = None
        if evaluate_result:
            y = problem.simulator.forward(x, problem.context)
            objective = problem.simulator.objective(y, problem.y_target, problem.context)
        return SolverResult(x, update, y, status, num_steps, objective)

    def with_options(self, **options):
        """A copy with other options: `solver.with_options(max_steps=10)`."""
        return dataclasses.replace(self, **options)

    def refining(self, max_steps):
        """The solver that goes on from a good guess for `max_steps` and never returns a worse one."""
        return self.with_options(max_steps=max_steps, on_failure="keep_best")

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def _start(self, problem, x0, y_target):
        batch = tf.shape(x0)[:1]
        active = batched.all_finite(x0) & batched.all_finite(y_target)
        infinite = tf.fill(batch, tf.constant(float("inf"), x0.dtype))
        return _Progress(
            count=tf.constant(0),
            update=tf.zeros_like(x0),
            state=self.init(problem, x0),
            active=active,
            status=tf.where(active, int(Status.MAX_STEPS), int(Status.NON_FINITE)),
            num_steps=tf.zeros(batch, tf.int32),
            first_objective=infinite,
            best_objective=infinite,
            best_update=tf.zeros_like(x0),
        )

    def _iterate(self, problem, x0, progress, limit):
        return tf.while_loop(
            lambda p: (p.count < limit) & tf.reduce_any(p.active),
            lambda p: (self._advance(problem, x0, p),),
            (progress,),
            maximum_iterations=limit,
        )[0]

    def _repeat(self, simulator, x0, y_target, context, steps):
        solver = self.refining(1)
        y = simulator.forward(simulator.as_x(x0), simulator.as_context(context))
        batch = tf.shape(x0)[:1]
        start = SolverResult(
            x=x0,
            update=tf.zeros_like(x0),
            y=y,
            status=tf.fill(batch, int(Status.MAX_STEPS)),
            num_steps=tf.zeros(batch, tf.int32),
            objective=simulator.objective(y, y_target, context),
        )

        def again(count, best):
            result = solver.solve(simulator, best.x, y_target, context, y0=best.y, evaluate_result=True)
            result = result._replace(update=best.update + result.update, num_steps=best.num_steps + result.num_steps)
            return count + 1, batched.where_example(result.objective <= best.objective, result, best)

        return tf.while_loop(
            lambda count, best: count < steps, again, (tf.constant(0), start), maximum_iterations=steps
        )[1]

    def _advance(self, problem, x0, progress):
        step = self.step(problem, x0 + progress.update, progress.state)
        first = tf.where(progress.count == 0, step.objective, progress.first_objective)
        # Objectives are squares of residuals.
        reached = step.converged | (tf.abs(step.objective) <= self.tolerance**2 * tf.abs(first))
        finite = batched.all_finite(step.update) & tf.math.is_finite(step.objective)
        failure = tf.where(finite, step.failure, int(Status.NON_FINITE))
        failure = tf.where(tf.math.is_finite(step.objective) & reached, 0, failure)

        taken = progress.active & ~reached & (failure == 0)
        status = tf.where(failure > 0, failure, tf.where(reached, int(Status.CONVERGED), int(Status.MAX_STEPS)))
        improved = progress.active & (step.objective < progress.best_objective)
        return _Progress(
            count=progress.count + 1,
            update=batched.where_example(taken, progress.update + step.update, progress.update),
            state=batched.where_example(taken, step.state, progress.state),
            active=taken,
            status=tf.where(progress.active, status, progress.status),
            num_steps=progress.num_steps + tf.cast(taken, tf.int32),
            first_objective=first,
            best_objective=tf.where(improved, step.objective, progress.best_objective),
            best_update=batched.where_example(improved, progress.update, progress.best_update),
        )


def bounded_gradient_step(problem, x):
    """The Cauchy step -g |g|^2 / |J g|^2 in units of `x_scale`, at most 1 long there (rms): downhill, never far.

    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., Eq. 4.11.
    """
    problem = problem.scaled_at(x)
    x_scale = tf.constant(problem.simulator.x_scale, x.dtype)
    longest = tf.sqrt(tf.cast(x.shape[1:].num_elements(), x.dtype))
    if problem.simulator.is_least_squares:
        residual, jvp, vjp = problem.linearize(x)
        gradient = x_scale * vjp(residual)
        slope = batched.norm(jvp(x_scale * unit(gradient)))
        length = batched.norm(gradient) / tf.square(slope)
        length = tf.where(tf.math.is_finite(length), tf.minimum(length, longest), longest)
    else:
        gradient = x_scale * problem.gradient(x)[1]
        length = tf.fill(tf.shape(x)[:1], longest)
    step = -x_scale * unit(gradient) * batched.expand(length, x)
    return batched.where_example(batched.all_finite(step), step, tf.zeros_like(step))


def unit(vector):
    """vector / |vector| per example; zero stays zero."""
    norm = batched.norm(vector)
    return vector / batched.expand(tf.where(norm > 0, norm, tf.ones_like(norm)), vector)


def _keep_best(progress, last_objective):
    """The update of the best point seen, the last one included."""
    better = last_objective < progress.best_objective
    return progress._replace(update=batched.where_example(better, progress.update, progress.best_update))


def _raise_if_concrete(status):
    """`SolverError` naming the failed examples, where the status has a value (eager execution)."""
    if not tf.executing_eagerly():
        return
    raise_for_status(status.numpy())


def raise_for_status(status):
    """`SolverError` naming the failed examples of a concrete status `[B]`; nothing where there are none."""
    failed = np.flatnonzero(np.asarray(status) >= Status.NON_FINITE)
    if failed.size:
        kinds = sorted({Status(int(status[index])) for index in failed})
        raise SolverError(
            three_part(
                "every example to be solved (on_failure='raise')",
                f"{failed.size} failed of {len(status)}: examples {failed[:10].tolist()}"
                + (" and more" if failed.size > 10 else "")
                + f", status {', '.join(kind.name for kind in kinds)}",
                " ".join(kind.message for kind in kinds),
            )
        )
