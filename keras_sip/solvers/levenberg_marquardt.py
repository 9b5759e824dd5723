"""Levenberg-Marquardt: Gauss-Newton that damps itself, example by example."""

import dataclasses
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, Status, Step
from keras_sip.solvers.linear_model import check_least_squares, check_linear_options, linear_model
from keras_sip.solvers.problem import half_square


class _State(NamedTuple):
    damping: tf.Tensor
    scaling: tf.Tensor


class _Trial(NamedTuple):
    """The search for an acceptable damping, per example."""

    update: tf.Tensor
    damping: tf.Tensor
    growth: tf.Tensor
    accepted: tf.Tensor


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt(InverseSolver):
    """(J^T J + lambda D) dx = -J^T r, D = diag(J^T J) (Marquardt scaling).

    A step is taken only if it lowers its example's objective; otherwise lambda grows and the example tries again. The
    gain ratio (actual over predicted decrease) sets lambda for the next step. Where all tries of the first step fail,
    the status says REJECTED and the update falls back to a bounded step downhill; where those of a later one fail,
    the example has come as far as its precision allows, and keeps what it has.

    Dense where x has few components: by one singular value decomposition of J D^-1/2 for all tries of a step. Without
    matrices above: each try by conjugate gradients; D is then exact where y has at most `probes` components, and an
    unbiased estimate from that many random projections of J elsewhere. Both transform as D does under a scaling of x.

    Scale law: any diagonal scaling of x; any unit of y.

    Source: Marquardt 1963; Moré 1978 (D never decreases); damping by the gain ratio after Nielsen 1999, Eq. 2.4.

    Args:
        damping: lambda at the first try.
        max_tries: Dampings tried in one step.
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
        return _State(tf.fill(tf.shape(x)[:1], tf.constant(self.damping, x.dtype)), tf.zeros_like(x))

    def step(self, problem, x, state):
        model = linear_model(problem, x, self, self.probes)
        objective = half_square(model.residual)
        norms = model.column_norms()
        scaling = tf.maximum(state.scaling, norms)
        minimize = model.minimizer(scaling)
        trial = self._search(problem, x, objective, minimize, state.damping)
        stuck = (model.is_flat() | ~model.is_finite()) & (objective > 0)
        is_rounding, measures = model.first_order(norms)
        failure = tf.where(trial.accepted, 0, int(Status.REJECTED))
        failure = tf.where(stuck, int(Status.BREAKDOWN), failure)
        failure = tf.where(model.is_finite(), failure, int(Status.NON_FINITE))
        return Step(
            update=trial.update,
            objective=objective,
            converged=is_rounding & ~stuck,
            failure=failure,
            state=_State(trial.damping, scaling),
            **measures,
        )

    def _search(self, problem, x, objective, minimize, damping):
        """Raise the damping of each example until its step lowers its objective."""

        def attempt(trial):
            update, predicted = minimize(trial.damping)
            gain = (objective - problem.objective(x + update)) / predicted
            good = (gain > 0) & (predicted > 0) & batched.all_finite(update)
            newly = good & ~trial.accepted
            # A damping below the first one is left at once: a history of good steps must not use up the tries.
            raised = tf.maximum(trial.damping, tf.cast(self.damping, gain.dtype)) * trial.growth
            relaxed = trial.damping * tf.maximum(tf.cast(1 / 3, gain.dtype), 1 - (2 * gain - 1) ** 3)
            return _Trial(
                update=batched.where_example(newly, update, trial.update),
                damping=tf.where(trial.accepted, trial.damping, tf.where(newly, relaxed, raised)),
                growth=tf.where(good, trial.growth, 2 * trial.growth),
                accepted=trial.accepted | newly,
            )

        start = _Trial(
            update=tf.zeros_like(x),
            damping=damping,
            growth=tf.fill(tf.shape(damping), tf.constant(2, damping.dtype)),
            # A bad or a vanishing residual cannot be lowered; to search for it would keep the others waiting.
            accepted=~tf.math.is_finite(objective) | (objective == 0),
        )
        return tf.while_loop(
            lambda trial: ~tf.reduce_all(trial.accepted),
            lambda trial: (attempt(trial),),
            (start,),
            maximum_iterations=self.max_tries,
        )[0]
