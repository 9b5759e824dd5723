"""Levenberg-Marquardt: Gauss-Newton that damps itself, example by example."""

import dataclasses
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int
from keras_sip.ops import batched
from keras_sip.ops.trust_region import damping_for_radius
from keras_sip.solvers.base import InverseSolver, Status, Step
from keras_sip.solvers.linear_model import (
    check_least_squares,
    check_linear_options,
    damped,
    is_dense,
    linear_model,
)
from keras_sip.solvers.problem import ROUNDINGS, seen_half_square

# The first of several steps is damped by no less: that costs a step at most and keeps clear of plateaus
# (benchmarks/nist.py).
FIRST_DAMPING = 0.1
# With less, J^T J + lambda D^2 is no better conditioned than J^T J.
LEAST_DAMPING = 1e-6
# A step counts as descent from this gain on; below `POOR` the next one is shorter, above `GOOD` it may be longer.
LEAST_GAIN, POOR, GOOD = 1e-4, 0.25, 0.75
# Steps that change nothing that could be seen, nor halve what they promise.
MOST_IDLE = 20
# A part of r in the span of J below so many square roots of a rounding of r: its square, what a step could lower L by,
# is hidden by a sum's roundings.
HIDDEN = 10
# An undamped step this many times longer than x speaks of a singular J, not of a way down within reach.
FAR = 10
# A correction longer than this part of the step says that the second order knows no better either.
LONGEST_CORRECTION = 0.75


class _State(NamedTuple):
    """`radius` of dense steps, `damping` of those without matrices; `size` is what D and the radius are measured by.

    `promise` is the least since it has been noise; `idle` counts the steps since that have not halved it.
    """

    radius: tf.Tensor
    damping: tf.Tensor
    scaling: tf.Tensor
    size: tf.Tensor
    promise: tf.Tensor
    idle: tf.Tensor


class _Trial(NamedTuple):
    """The search for an acceptable step, per example; all but `update` in float64."""

    update: tf.Tensor
    radius: tf.Tensor
    accepted: tf.Tensor


class _SingleTrial(NamedTuple):
    """The same of a single step."""

    update: tf.Tensor
    damping: tf.Tensor
    accepted: tf.Tensor


class _DampedTrial(NamedTuple):
    """The same without matrices."""

    update: tf.Tensor
    damping: tf.Tensor
    growth: tf.Tensor
    accepted: tf.Tensor


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt(InverseSolver):
    """(J^T J + lambda D^2) dx = -J^T r, D the largest norms that the columns of J have had.

    A step is taken only if it lowers its example's objective; otherwise it is made shorter and the example tries again.
    Where all tries of the first step fail, the status says REJECTED and the update falls back to a bounded step
    downhill; where those of a later one fail, the example keeps what it has: STALLED, or CONVERGED if no column of J
    promises a decrease that could be seen.

    **Dense** where x or y has few components: lambda gives |D dx| the radius of a trust region, from the singular
    values of J D^-1, which one decomposition finds for all tries. The gain ratio (actual over predicted decrease)
    changes the radius. In a solve of several steps D and the radius are measured by the residual while that is larger
    than the observation, so that a far start is forgotten; and each try is corrected to second order by what it found
    of the residual's curvature, where that lowers L further: curved valleys take a fifth of the steps (measured on
    NIST's sets). A decrease below the rounding of L counts as made, so that steps see further than L does.

    **Without matrices** above: each try by conjugate gradients, lambda itself changed by the gain ratio; D is exact
    where y has at most `probes` components, and an unbiased estimate from that many random projections of J elsewhere.

    Scale law: any diagonal scaling of x; any unit of y.

    Source: Moré, The Levenberg-Marquardt algorithm: implementation and theory (1978); the correction after Transtrum
    and Sethna, Improvements to the Levenberg-Marquardt algorithm (2012), with the difference that is known already for
    the derivative; without matrices: damping by the gain ratio after Nielsen 1999, Eq. 2.4.

    Args:
        damping: lambda at the first try, which gives the first radius. Of several steps the first takes 0.1 at least.
        max_tries: Tries in one step. In a solve of several steps the next one goes on with shorter ones.
        linear_solver, cg_steps, cg_tolerance: As in `GaussNewton`.
        probes: Random projections that estimate D.
    """

    on_failure: str = "gradient"
    damping: float = 1e-3
    max_tries: int = 8
    linear_solver: str = "auto"
    cg_steps: int = 20
    cg_tolerance: float = 1e-3
    probes: int = 8

    def __post_init__(self):
        super().__post_init__()
        check_number("damping", self.damping, exclusive=True)
        check_linear_options(self)
        for name in ("max_tries", "probes"):
            check_positive_int(name, getattr(self, name))

    def check(self, simulator):
        super().check(simulator)
        check_least_squares(simulator, self)

    def init(self, problem, x):
        batch = tf.shape(x)[:1]
        return _State(
            radius=tf.fill(batch, tf.constant(np.inf, tf.float64)),
            damping=tf.fill(batch, tf.constant(self.damping, x.dtype)),
            scaling=tf.zeros_like(x),
            size=tf.fill(batch, tf.constant(np.inf, x.dtype)),
            promise=tf.fill(batch, tf.constant(np.inf, tf.float64)),
            idle=tf.zeros(batch, tf.int32),
        )

    def step(self, problem, x, state):
        model = linear_model(problem, x, self, self.probes)
        objective = seen_half_square(model.residual)
        norms = model.column_norms()
        dense = is_dense(problem.simulator.x_shape, problem.simulator.y_shape, self.linear_solver)
        if dense and self.max_steps > 1:
            state = _measured_by(state, tf.maximum(batched.norm(model.residual), problem.observed_size()))
        state = state._replace(scaling=tf.maximum(state.scaling, norms))
        stuck = (model.is_flat() | ~model.is_finite()) & (objective > 0)
        reason = tf.where(model.is_finite(), int(Status.BREAKDOWN), int(Status.NON_FINITE))
        if dense:
            single = self.max_steps == 1 and self.damping >= LEAST_DAMPING
            step = (self._single if single else self._in_trust_region)(problem, x, model, objective, state)
        else:
            step = self._by_damping(problem, x, model, objective, norms, state)
        return step._replace(converged=step.converged & ~stuck, failure=tf.where(stuck, reason, step.failure))

    def refiner(self):
        # In a trust region, whatever is set for training.
        return self.with_options(max_steps=max(2, self.max_steps))

    # Dense ------------------------------------------------------------------------------------------------------------

    def _in_trust_region(self, problem, x, model, objective, state):
        singular = model.singular(state.scaling)
        square = 2 * model.square_of(model.residual)
        first_order = model.first_order(singular)
        # What rounding makes of L, and whether an undamped step promises no more than that.
        epsilon = np.finfo(x.dtype.as_numpy_dtype).eps
        share = model.rounding() * tf.sqrt(square / model.residual.shape[1:].num_elements())
        noise = ROUNDINGS * (epsilon * square / 2 + share)
        promise = first_order.decrease
        unseen = promise <= noise
        share_left = promise / tf.where(square > 0, square, tf.ones_like(square))
        # There the promise tells whether steps still get anywhere, and whether what is left is worth a word.
        idle = tf.where(unseen, state.idle + tf.cast(share_left >= 0.5 * state.promise, tf.int32), 0)
        little = tf.maximum(HIDDEN * epsilon**0.5 * tf.sqrt(square), ROUNDINGS * model.rounding())
        settled = (idle > 0) & (tf.sqrt(2 * promise) <= little)

        several = self.max_steps > 1
        start = tf.fill([1], tf.constant(max(self.damping, FIRST_DAMPING) if several else self.damping, tf.float64))
        radius = tf.where(
            tf.math.is_finite(state.radius),
            state.radius / model.unit,
            batched.norm(damped(singular, start[:, None])[0]),
        )
        trial = self._search(problem, x, model, singular, radius, noise, unseen, corrects=several)
        # Of a radius that is nothing beside x no further try comes.
        radius = trial.radius * model.unit
        spent = radius <= epsilon * tf.cast(batched.norm(state.scaling * x), tf.float64)
        # As far as L shows it dL/dx is 0. Where J is singular its columns span more than they tell, and their way down
        # is nowhere near: a minimum, unless y no longer sees some component of x, which is a plateau.
        optimality = first_order.measures["optimality"]
        level = optimality <= HIDDEN * epsilon**0.5
        hidden = 0.5 * tf.square(tf.cast(optimality, tf.float64)) * square <= HIDDEN * noise
        is_seen = batched.all_true(model.column_norms() >= epsilon * state.scaling)
        is_minimum = (level | hidden) & is_seen & (first_order.measures["length"] > FAR)
        ended = ~trial.accepted if not several else (~trial.accepted & spent) | (idle > MOST_IDLE)
        return Step(
            update=trial.update,
            objective=objective,
            # A promise that underflows is none that was kept.
            converged=((promise > 0) | level)
            & (first_order.is_rounding | settled | (ended & (is_minimum | (tf.sqrt(2 * promise) <= little)))),
            failure=tf.where(ended, int(Status.REJECTED), 0),
            state=state._replace(
                radius=radius,
                promise=tf.where(unseen, tf.minimum(share_left, state.promise), tf.constant(np.inf, tf.float64)),
                idle=idle,
            ),
            **first_order.measures,
        )

    def _search(self, problem, x, model, singular, radius, noise, unseen, *, corrects):
        """Make the step of each example shorter until it lowers its objective."""
        before = model.square_of(model.residual)

        def at(update):
            residual = problem.residual(x + update)
            return residual, model.square_of(residual)

        def attempt(trial):
            damping = damping_for_radius(singular.curvatures(), singular.slopes, trial.radius)[:, None]
            components, predicted = damped(singular, damping)
            length = batched.norm(components)
            update = model.displacement(singular, components)
            residual, after = at(update)
            if corrects:
                curved = model.misfit(residual - model.residual) - model.product(update)
                correction, _ = damped(singular._replace(slopes=singular.slopes_of(curved)), damping)
                second = update + model.displacement(singular, correction)
                lower = at(second)[1]
                better = (batched.norm(correction) <= LONGEST_CORRECTION * length) & (lower < before)
                better &= ~(lower >= after) & batched.all_finite(second)
                update = batched.where_example(better, second, update)
                after = tf.where(better, lower, after)
            actual = before - after
            gain = tf.where(unseen, tf.ones_like(actual), actual / predicted)
            seen = (gain >= LEAST_GAIN) & (actual > 0) & ~unseen
            good = (seen | (unseen & (actual >= -noise))) & batched.all_finite(update) & (predicted > 0)
            newly = good & ~trial.accepted
            # Where the parabola through both values and the slope has its minimum, as in MINPACK.
            slope = predicted + 0.5 * singular.square_length(components)
            shrink = tf.clip_by_value(0.5 * slope / (slope - actual), 0.1, 0.5)
            shrink = tf.where(
                tf.math.is_finite(after) & tf.math.is_finite(shrink), shrink, tf.constant(0.1, tf.float64)
            )
            is_free = damping[:, 0] == 0
            longer = tf.where(is_free, 2 * length, tf.maximum(trial.radius, 2 * length))
            after_good = tf.where((gain > GOOD) | (is_free & (gain >= POOR)), longer, trial.radius)
            after_good = tf.where(gain < POOR, 0.5 * length, after_good)
            radius = tf.where(good, after_good, shrink * length)
            return _Trial(
                update=batched.where_example(newly, update, trial.update),
                radius=tf.where(trial.accepted, trial.radius, radius),
                accepted=trial.accepted | newly,
            )

        # A bad or a vanishing residual cannot be lowered; to search for it would keep the others waiting.
        hopeless = ~tf.math.is_finite(before) | (before == 0) | ~model.is_finite()
        safe = tf.where(tf.math.is_finite(radius) & (radius > 0), radius, tf.ones_like(radius))
        return tf.while_loop(
            lambda trial: ~tf.reduce_all(trial.accepted),
            lambda trial: (attempt(trial),),
            (_Trial(tf.zeros_like(x), safe, hopeless),),
            maximum_iterations=self.max_tries,
        )[0]

    def _single(self, problem, x, model, objective, state):
        """The step of training: as the first of the others, by J^T J + lambda D^2, which takes no decomposition."""
        minimize = model.normal_equations()
        before = model.square_of(model.residual)

        def attempt(trial):
            update, predicted, slope = minimize(trial.damping)
            after = model.square_of(problem.residual(x + update))
            actual = before - after
            good = (actual > 0) & (actual >= LEAST_GAIN * predicted) & batched.all_finite(update)
            newly = good & ~trial.accepted
            # As in the trust region; with one unknown a step is so many times shorter.
            shrink = tf.clip_by_value(0.5 * slope / (slope - actual), 0.1, 0.5)
            shrink = tf.where(
                tf.math.is_finite(after) & tf.math.is_finite(shrink), shrink, tf.constant(0.1, tf.float64)
            )
            return _SingleTrial(
                update=batched.where_example(newly, update, trial.update),
                damping=tf.where(trial.accepted | newly, trial.damping, (1 + trial.damping) / shrink - 1),
                accepted=trial.accepted | newly,
            )

        hopeless = ~tf.math.is_finite(before) | (before == 0) | ~model.is_finite()
        start = tf.fill(tf.shape(before), tf.constant(self.damping, tf.float64))
        trial = tf.while_loop(
            lambda trial: ~tf.reduce_all(trial.accepted),
            lambda trial: (attempt(trial),),
            (_SingleTrial(tf.zeros_like(x), start, hopeless),),
            maximum_iterations=self.max_tries,
        )[0]
        optimality, is_rounding = model.slopes()
        unseen = optimality <= HIDDEN * np.finfo(x.dtype.as_numpy_dtype).eps ** 0.5
        return Step(
            update=trial.update,
            objective=objective,
            converged=is_rounding | (~trial.accepted & unseen),
            failure=tf.where(trial.accepted, 0, int(Status.REJECTED)),
            state=state,
            optimality=tf.cast(optimality, x.dtype),
        )

    # Without matrices -------------------------------------------------------------------------------------------------

    def _by_damping(self, problem, x, model, objective, norms, state):
        minimize = model.minimizer(state.scaling)
        trial = self._search_damping(problem, x, objective, minimize, state.damping)
        optimality, is_rounding = model.slopes(norms)
        epsilon = np.finfo(x.dtype.as_numpy_dtype).eps
        unseen = 0.5 * tf.square(optimality) <= ROUNDINGS * epsilon
        return Step(
            update=trial.update,
            objective=objective,
            converged=is_rounding | (~trial.accepted & unseen),
            failure=tf.where(trial.accepted, 0, int(Status.REJECTED)),
            state=state._replace(damping=trial.damping),
            optimality=optimality,
        )

    def _search_damping(self, problem, x, objective, minimize, damping):
        """Raise the damping of each example until its step lowers its objective."""

        def attempt(trial):
            update, predicted = minimize(trial.damping)
            gain = (objective - problem.objective(x + update)) / predicted
            good = (gain > 0) & (predicted > 0) & batched.all_finite(update)
            newly = good & ~trial.accepted
            # A damping below the first one is left at once: a history of good steps must not use up the tries.
            raised = tf.maximum(trial.damping, tf.cast(self.damping, gain.dtype)) * trial.growth
            relaxed = trial.damping * tf.maximum(tf.cast(1 / 3, gain.dtype), 1 - (2 * gain - 1) ** 3)
            return _DampedTrial(
                update=batched.where_example(newly, update, trial.update),
                damping=tf.where(trial.accepted, trial.damping, tf.where(newly, relaxed, raised)),
                growth=tf.where(good, trial.growth, 2 * trial.growth),
                accepted=trial.accepted | newly,
            )

        start = _DampedTrial(
            update=tf.zeros_like(x),
            damping=damping,
            growth=tf.fill(tf.shape(damping), tf.constant(2, damping.dtype)),
            accepted=~tf.math.is_finite(objective) | (objective == 0),
        )
        return tf.while_loop(
            lambda trial: ~tf.reduce_all(trial.accepted),
            lambda trial: (attempt(trial),),
            (start,),
            maximum_iterations=self.max_tries,
        )[0]

    def _meets_tolerances(self, step):
        """Stricter than elsewhere: what is left of r in the span of J, |P r| / |r|, is compared with `gtol` and `ftol`.

        Where columns are nearly alike, each may be level, and a step may promise little, far from the minimum.
        """
        if step.decrease is None:
            return super()._meets_tolerances(step)
        span = tf.sqrt(step.decrease)
        level = self._within(step.optimality, self.gtol) & self._within(span, self.gtol)
        hidden = HIDDEN * np.finfo(span.dtype.as_numpy_dtype).eps ** 0.5
        small = self.ftol is not None and (span <= max(self.ftol, hidden)) & self._within(step.length, self.xtol)
        return level | small


def _measured_by(state, size):
    """The state with D and radius in units of `size` `[B]`, that of the residual or, where it is larger, of y_target.

    Columns of J that were large far away, as the residual was, so do not hold back their components near the solution;
    where the residual is smaller than the observation, D is Moré's.
    """
    fallen = tf.where(tf.math.is_finite(state.size), tf.minimum(size / state.size, tf.ones_like(size)), 1.0)
    return state._replace(
        radius=state.radius * tf.cast(fallen, tf.float64),
        scaling=state.scaling * batched.expand(fallen, state.scaling),
        size=size,
    )
