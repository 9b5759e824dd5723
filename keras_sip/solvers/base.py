"""InverseSolver: how to get from (x0, y*) to a better x. One loop serves every iterative solver, one refinement all."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_arguments, check_choice, check_number, check_positive_int, must_define
from keras_sip.ops import batched
from keras_sip.simulators.base import check_simulator_interface
from keras_sip.solvers.discrepancy import noise_objective
from keras_sip.solvers.problem import ROUNDINGS, InverseProblem
from keras_sip.solvers.status import SolverError, Status, raise_if_concrete

__all__ = ["InverseSolver", "SolverError", "SolverResult", "Status", "Step", "bounded_gradient_step", "unit"]

FALLBACKS = ("zero", "gradient", "raise")


class SolverResult(NamedTuple):
    """What a solver returns; the leading axis of every entry is the example.

    Attributes:
        x: The better x, `[B, *x_shape]`.
        update: U, the sum of the steps taken, `[B, *x_shape]`. x and U are summed side by side: x - x0 would lose small
            updates in rounding, x0 + U small components of x.
        y: P(x), or None unless `evaluate_result` was asked for.
        status: `Status` values, int32 `[B]`.
        num_steps: Steps taken, int32 `[B]`.
        objective: L at x in physical units `[B]`, or None unless `evaluate_result` was asked for.
        optimality: What is left of the slope at x, `[B]`: the largest cosine between the residual and a column of J,
            MINPACK's measure, in any units of x and y; 0 at every stationary point, NaN where J vanishes. On fields the
            norms of the columns are estimated. Where L is no half sum of squares, the largest |dL/dx_j| x_scale_j /
            |L|. NaN where nobody has looked: after the last of `max_steps` steps, unless `evaluate_result` was asked
            for.
    """

    x: tf.Tensor
    update: tf.Tensor
    y: Any
    status: tf.Tensor
    num_steps: tf.Tensor
    objective: Any
    optimality: tf.Tensor

    @property
    def failed(self):
        """Boolean `[B]`."""
        return self.status >= Status.NON_FINITE


class Step(NamedTuple):
    """One step of an iterative solver, per example.

    Attributes:
        update: dx `[B, *x_shape]`.
        objective: L / m^2 where the step started, in the units of `InverseProblem`, `[B]`.
        converged: Boolean `[B]`: that point is the solution, to rounding, and `update` is not taken.
        failure: int32 `[B]`: where it is not 0, the `Status` that ends the example; `update` is not taken.
        state: What the next step is given.
        x: Where the step leads, where that is known better than as x + dx; None elsewhere.
        optimality, decrease, length: What the tolerances of `InverseSolver` are compared with, at the point where the
            step started: see `SolverResult`; the decrease of L that an undamped step promises, over L; the length of
            that step over the size of x, each component in units of its column of J. None where not known.
    """

    update: tf.Tensor
    objective: tf.Tensor
    converged: tf.Tensor
    failure: tf.Tensor
    state: Any
    x: Any = None
    optimality: Any = None
    decrease: Any = None
    length: Any = None


class _Progress(NamedTuple):
    """What evolves in the loop; `best` is () unless the best point is asked for."""

    count: tf.Tensor
    x: tf.Tensor
    update: tf.Tensor
    state: Any
    active: tf.Tensor
    status: tf.Tensor
    num_steps: tf.Tensor
    optimality: tf.Tensor
    first_objective: tf.Tensor
    best: Any


class _Point(NamedTuple):
    """A point on the way, with L / m^2 there."""

    x: tf.Tensor
    update: tf.Tensor
    objective: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True, repr=True)
class InverseSolver:
    """Configuration of an inverse solver; `solve` runs it. What evolves lives in an explicit state.

    **Must override** one of:

    - `init(problem, x) -> state` (default: no state) and `step(problem, x, state) -> Step`: an iterative solver, which
      inherits stepping, limits, per-example stopping and the handling of failures. Every entry of a state has the
      batch as its leading axis;
    - `solve(...)`: a direct inverse, or a library's own loop; it ends with `self.finish(...)`.

    **May override** `check(simulator)`, which refuses a simulator that lacks what the solver needs; `refiner()`, where
    a step of training is none that one would refine by.

    A subclass is a frozen dataclass of its options, registered with Keras; that is all that saving needs.

    An example has converged where nothing but rounding is left of its slope, where `optimality` is at most `gtol`, or
    where an undamped step promises less than both `ftol` and `xtol`: always by a test at the x that is returned. The
    three are what they are in `scipy.optimize.least_squares`, never below the rounding of the precision, and None
    switches one off. They end solves of several steps; a single step, the update of training, is taken unless x0 is a
    solution to rounding.

    Args:
        max_steps: Steps at most. 1 gives the paper's first update (Eq. 6), m gives U = dx_0 + ... + dx_m (Section
            3.1), a large number the solver run to convergence (Eq. 5).
        ftol: Least decrease of L that an undamped step must promise, over L at the current point.
        xtol: Least length of such a step, over the size of x, each component in units of its column of J.
        gtol: Largest cosine between the residual and a column of J at a solution (see `SolverResult.optimality`).
        residual_tolerance: An example also stops, and counts as converged, once the norm of its residual is at most
            this fraction of that at x0. 0 never does.
        on_failure: The update of a failed example: "zero"; "gradient", a bounded step downhill; "raise", an error
            naming the examples. Inside compiled functions, which cannot raise, "raise" gives "zero" and the status
            tells (SIPModel.fit checks it after every batch).
    """

    max_steps: int = 1
    ftol: float | None = 1e-8
    xtol: float | None = 1e-8
    gtol: float | None = 1e-8
    residual_tolerance: float = 0.0
    on_failure: str = "zero"

    # Whether simulation and solver become one program, where a simulator gains by XLA. XLA compiles a function anew for
    # each place that calls it: a solver with many such places compiles the objective alone.
    compiles_as_one = True

    def __new__(cls, *args: Any, **kwargs: Any):
        check_arguments(cls, args, kwargs)
        return super().__new__(cls)

    def __post_init__(self):
        check_positive_int("max_steps", self.max_steps)
        for name in ("ftol", "xtol", "gtol"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        check_number("residual_tolerance", self.residual_tolerance)
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
            y_target: The observation, `[B, *y_shape]`.
            context: What is known of each example (dict of `[B, ...]`), or None.
            y0: P(x0), where it is known already.
            evaluate_result: Also return y, the objective and the optimality at the result (one more simulation, and the
                products that measure the columns of J).

        Returns:
            A `SolverResult`, every field per example.
        """
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        problem = InverseProblem(simulator, y_target, context).scaled_at(x0, y0)
        progress = self._start(problem, x0)
        if self.max_steps == 1:
            progress = self._advance(problem, progress, tolerates=False)
        else:
            progress = self._iterate(problem, progress, self.max_steps)
        return self.finish(
            problem,
            x0,
            progress.update,
            progress.status,
            progress.num_steps,
            evaluate_result,
            x=progress.x,
            optimality=progress.optimality,
        )

    def refine(self, simulator, x0, y_target, context=None, *, steps):
        """Go on from a good guess for `steps` steps, and return the best point on the way: never one worse than x0.

        What a solver does by steps goes on in one loop; one that overrides `solve` is run up to `steps` times over,
        each run from the best point so far. `max_steps` and `on_failure` of the solver take no part.

        Where context["noise_level"] is known, an example ends as STALLED once its residual is no larger than the noise
        (discrepancy principle): below that a lower objective is a fit of noise.

        Args:
            simulator, x0, y_target, context: As in `solve`.
            steps: A Python int, or an int32 tensor known only when the graph runs: a scalar, or `[B]`, a limit for each
                example.

        Returns:
            A `SolverResult` with y, objective and optimality; no example's objective is above that at x0. The status is
            that of the point returned: CONVERGED by a test there; a failure only where nothing could be improved.
        """
        solver = self.refiner()
        x0, y_target, context = solver.prepare(simulator, x0, y_target, context)
        y0 = simulator.forward(x0, context)
        problem = InverseProblem(simulator, y_target, context).scaled_at(x0, y0)
        problem.enough = noise_objective(problem)
        point, status, num_steps = solver._improve(problem, x0, y0, steps)
        return _judged(solver, problem, x0, y0, point, status, num_steps)

    def refiner(self):
        """The solver whose steps `refine` takes: this one, without what weights its steps for training."""
        return self

    def prepare(self, simulator, x0, y_target, context):
        """The checked arguments of `solve` as tensors in the simulator's precision."""
        self.check(simulator)
        return simulator.as_x(x0), simulator.as_y(y_target), simulator.as_context(context)

    def finish(self, problem, x0, update, status, num_steps, evaluate_result=False, *, x=None, optimality=None):
        """The result, with the update of failed examples replaced as `on_failure` says. It is always finite.

        Args:
            x: Where the update leads, where that is known better than as x0 + update.
            optimality: At x, where it is known.
        """
        x = x0 + update if x is None else x
        finite = batched.all_finite(update) & (batched.all_finite(x) | ~batched.all_finite(x0))
        status = tf.where(finite, status, tf.maximum(status, int(Status.NON_FINITE)))
        failed = status >= Status.NON_FINITE
        if self.on_failure == "raise":
            raise_if_concrete(status)
        fallback = tf.zeros_like(x0)
        if self.on_failure == "gradient":
            fallback = tf.cond(tf.reduce_any(failed), lambda: bounded_gradient_step(problem, x0), lambda: fallback)
        x = batched.where_example(failed, x0 + fallback, x)
        update = batched.where_example(failed, fallback, update)
        if evaluate_result:
            found = problem.evaluate(x)
            return SolverResult(x, update, found.y, status, num_steps, found.objective, found.optimality)
        nan = tf.fill(tf.shape(x0)[:1], tf.constant(np.nan, x0.dtype))
        optimality = nan if optimality is None else tf.where(failed, nan, optimality)
        return SolverResult(x, update, None, status, num_steps, None, optimality)

    def with_options(self, **options):
        """A copy with other options: `solver.with_options(max_steps=10)`."""
        return dataclasses.replace(self, **options)

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**renewed(config))

    def _improve(self, problem, x0, y0, steps):
        """(best `_Point`, status of the loop, steps taken) of `refine`."""
        if type(self).solve is not InverseSolver.solve:
            return self._repeat(problem, x0, y0, steps)
        progress = self._iterate(problem, self._start(problem, x0, keeps_best=True), steps)
        last = _Point(progress.x, progress.update, problem.objective(progress.x))
        # Where L is as low as anywhere, to rounding, the last point is the best: steps see further than L does.
        room = 1 + ROUNDINGS * np.finfo(x0.dtype.as_numpy_dtype).eps
        is_last = (last.objective <= room * progress.best.objective) | (progress.num_steps == 0)
        point = batched.where_example(is_last, last, progress.best)
        # What ended the loop is no status of a point before it, and no failure where a point was found that is better.
        status = tf.where(is_last | (progress.status != Status.CONVERGED), progress.status, int(Status.STALLED))
        came_down = point.objective < progress.first_objective
        status = tf.where(came_down & (status >= Status.NON_FINITE), int(Status.STALLED), status)
        return point, status, progress.num_steps

    def _repeat(self, problem, x0, y0, steps):
        simulator, y_target, context = problem.simulator, problem.y_target, problem.context
        solver = self.with_options(on_failure="zero")
        objective = problem.objective_of(y0)

        def again(count, best, y, active, status, num_steps):
            active &= count < steps
            result = solver.solve(simulator, best.x, y_target, context, y0=y)
            y_now = simulator.forward(result.x, context)
            lowered = problem.objective_of(y_now)
            better = active & (lowered < best.objective)
            goes_on = better & ~_is_explained(problem, lowered)
            point = _Point(result.x, best.update + result.update, lowered)
            # Not better is not worse: what the last run could not improve is as good as this solver can make it.
            ended = tf.where(result.failed & (num_steps == 0), result.status, int(Status.STALLED))
            return (
                count + 1,
                batched.where_example(better, point, best),
                batched.where_example(better, y_now, y),
                goes_on,
                tf.where(active & ~goes_on, tf.where(better, int(Status.STALLED), ended), status),
                num_steps + tf.where(better, result.num_steps, 0),
            )

        usable = batched.all_finite(x0) & batched.all_finite(y_target)
        none = tf.zeros(tf.shape(x0)[:1], tf.int32)
        explained = usable & _is_explained(problem, objective)
        status = tf.where(usable, int(Status.MAX_STEPS), int(Status.NON_FINITE))
        start = (
            tf.constant(0),
            _Point(x0, tf.zeros_like(x0), objective),
            y0,
            usable & ~explained,
            tf.where(explained, int(Status.STALLED), status) + none,
            none,
        )
        _, best, _, _, status, num_steps = tf.while_loop(
            lambda count, best, y, active, *_: tf.reduce_any(active & (count < steps)),
            again,
            start,
            maximum_iterations=_largest(steps),
        )
        return best, status, num_steps

    def _start(self, problem, x0, *, keeps_best=False):
        batch = tf.shape(x0)[:1]
        active = batched.all_finite(x0) & batched.all_finite(problem.y_target)
        infinite = tf.fill(batch, tf.constant(np.inf, x0.dtype))
        return _Progress(
            count=tf.constant(0),
            x=x0,
            update=tf.zeros_like(x0),
            state=self.init(problem, x0),
            active=active,
            status=tf.where(active, int(Status.MAX_STEPS), int(Status.NON_FINITE)),
            num_steps=tf.zeros(batch, tf.int32),
            optimality=tf.fill(batch, tf.constant(np.nan, x0.dtype)),
            first_objective=infinite,
            best=_Point(x0, tf.zeros_like(x0), infinite) if keeps_best else (),
        )

    def _iterate(self, problem, progress, limit):
        def advance(progress):
            # An example at its own limit stays as it is, with the status of one that could go on.
            progress = progress._replace(active=progress.active & (progress.count < limit))
            return (self._advance(problem, progress, tolerates=True),)

        return tf.while_loop(
            lambda p: tf.reduce_any(p.active & (p.count < limit)),
            advance,
            (progress,),
            maximum_iterations=_largest(limit),
        )[0]

    def _advance(self, problem, progress, *, tolerates):
        step = self.step(problem, progress.x, progress.state)
        first = tf.where(progress.count == 0, step.objective, progress.first_objective)
        seen = tf.math.is_finite(step.objective)
        # Objectives are squares of residuals.
        reached = step.converged | (tf.abs(step.objective) <= self.residual_tolerance**2 * tf.abs(first))
        if tolerates:
            reached |= self._meets_tolerances(step)
        reached &= seen
        failure = tf.where(batched.all_finite(step.update) & seen, step.failure, int(Status.NON_FINITE))
        # An example that has come down already, and finds no step that is defined or acceptable, keeps what it has.
        nowhere = (failure == Status.REJECTED) | (failure == Status.BREAKDOWN)
        came_down = (progress.num_steps > 0) & (step.objective <= first)
        failure = tf.where(nowhere & came_down, int(Status.STALLED), failure)
        failure = tf.where(_is_explained(problem, step.objective), int(Status.STALLED), failure)
        failure = tf.where(reached, 0, failure)

        taken = progress.active & ~reached & (failure == 0)
        status = tf.where(failure > 0, failure, tf.where(reached, int(Status.CONVERGED), int(Status.MAX_STEPS)))
        nan = tf.constant(np.nan, progress.optimality.dtype)
        optimality = nan if step.optimality is None else tf.where(taken, nan, step.optimality)
        best = progress.best
        if best:
            improved = progress.active & (step.objective < best.objective)
            best = batched.where_example(improved, _Point(progress.x, progress.update, step.objective), best)
        x = progress.x + step.update if step.x is None else step.x
        return _Progress(
            count=progress.count + 1,
            x=batched.where_example(taken, x, progress.x),
            update=batched.where_example(taken, progress.update + step.update, progress.update),
            state=batched.where_example(taken, step.state, progress.state),
            active=taken,
            status=tf.where(progress.active, status, progress.status),
            num_steps=progress.num_steps + tf.cast(taken, tf.int32),
            optimality=tf.where(progress.active, optimality, progress.optimality),
            first_objective=first,
            best=best,
        )

    def _meets_tolerances(self, step):
        """Where the first-order test holds at the point that the step started from, boolean `[B]`."""
        return self._within(step.optimality, self.gtol) | self._is_small(step)

    def _is_small(self, step):
        return self._within(step.decrease, self.ftol) & self._within(step.length, self.xtol)

    @staticmethod
    def _within(measure, tolerance):
        """Whether a measure is at most its tolerance, or a few roundings; False where one of them is None."""
        if measure is None or tolerance is None:
            return False
        return measure <= max(tolerance, ROUNDINGS * np.finfo(measure.dtype.as_numpy_dtype).eps)


def _largest(steps):
    """Of steps that may be a number for each example; 0 of an empty batch."""
    return tf.maximum(tf.reduce_max(steps), 0) if tf.is_tensor(steps) else steps


def _is_explained(problem, objective):
    """Where L / m^2 is no more than the known noise makes it, boolean `[B]`; only `refine` asks."""
    return tf.zeros_like(objective, tf.bool) if problem.enough is None else objective <= problem.enough


def renewed(config):
    """A solver's config of an earlier version under today's names."""
    config = dict(config)
    if "tolerance" in config:
        config["residual_tolerance"] = config.pop("tolerance")
    # What it did is what `refine` does.
    if config.get("on_failure") == "keep_best":
        config["on_failure"] = "zero"
    return config


def _judged(solver, problem, x0, y0, point, status, num_steps):
    """The `SolverResult` of `refine`: y, objective and optimality of the point, and the status by a test there."""
    simulator, y_target, context = problem.simulator, problem.y_target, problem.context
    y = simulator.forward(point.x, context)
    # By L in physical units, which is what a caller compares: the problem's own rounds otherwise.
    objective, start = (simulator.objective(each, y_target, context) for each in (y, y0))
    kept = (objective <= start) & batched.all_finite(point.update)
    x, update, y = batched.where_example(kept, (point.x, point.update, y), (x0, tf.zeros_like(x0), y0))
    found = problem.evaluate(x)
    gtol = solver.gtol or 0.0
    small = found.optimality <= max(gtol, ROUNDINGS * np.finfo(x0.dtype.as_numpy_dtype).eps)
    status = tf.where(kept | (status != Status.CONVERGED), status, int(Status.STALLED))
    status = tf.where((found.is_rounding | small) & (status != Status.NON_FINITE), int(Status.CONVERGED), status)
    return SolverResult(x, update, y, status, num_steps, tf.where(kept, objective, start), found.optimality)


def bounded_gradient_step(problem, x):
    """The Cauchy step -g |g|^2 / |J g|^2 in units of `x_scale`, at most 1 long there (rms): downhill, never far.

    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., Eq. 4.11.
    """
    problem = problem.scaled_at(x)
    x_scale = tf.constant(problem.simulator.x_scale, x.dtype)
    longest = tf.sqrt(tf.cast(x.shape[1:].num_elements(), x.dtype))
    if problem.simulator.is_least_squares:
        _, residual, jvp, vjp = problem.linearize(x)
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
