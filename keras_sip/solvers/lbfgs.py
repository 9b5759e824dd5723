"""Limited-memory BFGS by TensorFlow Probability: for any differentiable objective, first derivatives only."""

import dataclasses
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_sip._on_use import tensorflow_probability as tfp
from keras_sip.errors import check_positive_int, three_part
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, Status, Step
from keras_sip.solvers.curvature import check_few_components

# Where a step lowers L by no more than this part, J is asked whether it may be the last.
LITTLE = 1e-4


class _State(NamedTuple):
    """`is_fresh` `[B]`: whether the memory starts anew from here; `begins`: whether there is none yet."""

    memory: Any
    begins: tf.Tensor
    is_fresh: tf.Tensor


class _Results(NamedTuple):
    """The fields of TFP's `LBfgsOptimizerResults`, which is not public."""

    converged: tf.Tensor
    failed: tf.Tensor
    num_iterations: tf.Tensor
    num_objective_evaluations: tf.Tensor
    position: tf.Tensor
    objective_value: tf.Tensor
    objective_gradient: tf.Tensor
    position_deltas: tf.Tensor
    gradient_deltas: tf.Tensor


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LBFGS(InverseSolver):
    """dx = -t B g: B from the last pairs of steps and changes of the gradient g, t by Hager and Zhang's line search.

    A step is one iteration of `tfp.optimizer.lbfgs_minimize`, or of `bfgs_minimize` where `full_matrix`, on the
    displacement from where it starts, in units of `x_scale`. The first B is the length of the Cauchy step along g.

    In float32 the line search fails where the objective's changes are nothing but rounding, and leaves the example
    anywhere. So a step counts only where it lowers its example's objective. Else the example forgets its pairs and
    starts again down its gradient; where that does not lower the objective either, it keeps what it has: STALLED, or
    CONVERGED where the first-order test holds. If that happens in the first step, the status says REJECTED, and the
    update falls back to a bounded step downhill.

    Scale law: rotations and a common factor of x where `x_scale` follows; any unit of y.

    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., Algorithms 7.5 and 6.1; Hager and Zhang, ACM TOMS 32
    (2006), for the line search.

    Args:
        memory: Pairs kept.
        full_matrix: BFGS: keep all of B instead, for x of at most 256 components.
        line_search_steps: Iterations of the line search at most.
    """

    on_failure: str = "gradient"
    memory: int = 10
    full_matrix: bool = False
    line_search_steps: int = 20

    compiles_as_one = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("memory", "line_search_steps"):
            check_positive_int(name, getattr(self, name))
        if not isinstance(self.full_matrix, bool):
            raise TypeError(
                three_part("`full_matrix` to be True or False", f"full_matrix={self.full_matrix!r}", "Pass a bool.")
            )

    def check(self, simulator):
        super().check(simulator)
        if self.full_matrix:
            check_few_components(simulator, self)

    def init(self, problem, x):
        size = x.shape[1:].num_elements()
        shape = (size, size) if self.full_matrix else (self.memory, 2, size)
        memory = tf.zeros(tf.concat([tf.shape(x)[:1], shape], axis=0), x.dtype)
        no = tf.zeros_like(memory[:, 0, 0] if self.full_matrix else memory[:, 0, 0, 0], tf.bool)
        return _State(memory, begins=~no, is_fresh=no)

    def step(self, problem, x, state):
        size = x.shape[1:].num_elements()
        unit = tf.constant(problem.simulator.x_scale, x.dtype)

        def value_and_gradient(displacement):
            objective, gradient = problem.gradient(x + unit * tf.reshape(displacement, tf.shape(x)))
            return objective, tf.reshape(unit * gradient, [-1, size])

        value_and_gradient = _one_function(value_and_gradient, problem.simulator)
        here = tf.zeros([tf.shape(x)[0], size], x.dtype)
        objective, gradient = value_and_gradient(here)
        steepest = batched.max_abs(gradient)
        usable = tf.math.is_finite(objective) & tf.math.is_finite(steepest)

        restarted = self._restart(problem, x, unit, gradient)
        memory = batched.where_example(state.begins, restarted, state.memory)
        iterate = self._bfgs if self.full_matrix else self._lbfgs
        displacement, lowered, memory = iterate(value_and_gradient, here, objective, gradient, ~usable, memory)

        descends = usable & (lowered < objective) & batched.all_finite(displacement)
        fresh = state.begins | state.is_fresh
        failure = tf.where(descends | ~fresh, 0, int(Status.REJECTED))
        failure = tf.where(steepest == 0, int(Status.BREAKDOWN), failure)
        failure = tf.where(usable, failure, int(Status.NON_FINITE))
        may_be_last = usable & (~descends | (objective - lowered <= LITTLE * tf.abs(objective)))
        optimality, is_rounding = self._slope(problem, x, objective, gradient, may_be_last)
        displacement = batched.where_example(descends, displacement, tf.zeros_like(displacement))
        return Step(
            update=unit * tf.reshape(displacement, tf.shape(x)),
            objective=objective,
            converged=is_rounding,
            failure=failure,
            state=_State(
                memory=batched.where_example(descends, memory, restarted),
                begins=tf.zeros_like(state.begins),
                is_fresh=~descends,
            ),
            optimality=optimality,
        )

    def _slope(self, problem, x, objective, gradient, wanted):
        """(optimality, is_rounding) `[B]`; of a half sum of squares, whose J costs products, only where `wanted`."""
        if not problem.simulator.is_least_squares:
            optimality, level = problem.scaled_slope(objective, tf.reshape(gradient, tf.shape(x)))
            return optimality, level & (objective == 0)
        unknown = tf.fill(tf.shape(objective), tf.constant(np.nan, x.dtype))

        def look():
            found = problem.evaluate(x)
            return tf.where(wanted, found.optimality, unknown), found.is_rounding & wanted

        return tf.cond(tf.reduce_any(wanted), look, lambda: (unknown, tf.zeros_like(wanted)))

    def _restart(self, problem, x, unit, gradient):
        """A memory that makes the next step the Cauchy step, or one x_scale long where L is no sum of squares."""
        norm = batched.norm(gradient)
        safe = tf.where(norm > 0, norm, tf.ones_like(norm))
        direction = gradient / safe[:, None]
        if problem.simulator.is_least_squares:
            product = _one_function(lambda v: problem.linearize(x)[2](v), problem.simulator)
            slope = batched.norm(product(unit * tf.reshape(direction, tf.shape(x))))
            length = 1.0 / tf.square(slope)
        else:
            length = tf.sqrt(tf.cast(gradient.shape[1], x.dtype)) / safe
        length = tf.where(tf.math.is_finite(length) & (length > 0), length, tf.ones_like(length))
        if self.full_matrix:
            return length[:, None, None] * tf.eye(gradient.shape[1], dtype=x.dtype)
        # A pair (s, y) with s = length * y makes B that length, and leaves it so along y.
        direction = tf.where(norm[:, None] > 0, direction, tf.ones_like(direction))
        pair = tf.stack([length[:, None] * direction, direction], axis=1)
        return tf.pad(pair[:, None], [[0, 0], [self.memory - 1, 0], [0, 0], [0, 0]])

    def _lbfgs(self, function, here, objective, gradient, excluded, memory):
        """(displacement, objective there, memory) of one iteration; TFP has the pairs' axis first."""
        # As many iterations as the memory is long: TFP then looks at all of it. Zeros in it do nothing.
        results = _Results(
            converged=tf.zeros_like(excluded),
            failed=excluded,
            num_iterations=tf.constant(self.memory),
            num_objective_evaluations=tf.constant(0),
            position=here,
            objective_value=objective,
            objective_gradient=gradient,
            position_deltas=tf.transpose(memory[:, :, 0], [1, 0, 2]),
            gradient_deltas=tf.transpose(memory[:, :, 1], [1, 0, 2]),
        )
        results = tfp.optimizer.lbfgs_minimize(
            function,
            initial_position=None,
            previous_optimizer_results=results,
            num_correction_pairs=self.memory,
            tolerance=0.0,
            max_iterations=self.memory + 1,
            max_line_search_iterations=self.line_search_steps,
        )
        pairs = tf.stack([results.position_deltas, results.gradient_deltas], axis=2)
        return results.position, results.objective_value, tf.transpose(pairs, [1, 0, 2, 3])

    def _bfgs(self, function, here, objective, gradient, excluded, memory):
        results = tfp.optimizer.bfgs_minimize(
            function,
            initial_position=here,
            initial_inverse_hessian_estimate=memory,
            scale_initial_inverse_hessian=False,
            validate_args=False,
            tolerance=0.0,
            max_iterations=1,
            max_line_search_iterations=self.line_search_steps,
        )
        return results.position, results.objective_value, results.inverse_hessian_estimate


def _one_function(function, simulator):
    """`function` for all places that call it; inlined there, it would be optimized, or compiled by XLA, for each."""
    if tf.executing_eagerly():
        return function
    attributes = {"_noinline": True}
    compile_it = simulator.prefers_xla or None
    return tf.function(function, autograph=False, jit_compile=compile_it, experimental_attributes=attributes)
