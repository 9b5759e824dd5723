"""Refining a network's answer where the noise of y is known: as much as the residual asks for, and no more."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, SolverResult
from keras_sip.solvers.directional_products import component_products
from keras_sip.solvers.maximum_a_posteriori import MaximumAPosteriori
from keras_sip.solvers.problem import InverseProblem, half_square
from keras_sip.solvers.spectral_posterior import width_of_error
from keras_sip.solvers.status import Status
from keras_sip.solvers.whitened_problem import noise_deviation

# Shares of a step that are tried.
SHARES = (1.0, 0.25, 0.0625)


class _Progress(NamedTuple):
    count: tf.Tensor
    x: tf.Tensor
    update: tf.Tensor
    num_steps: tf.Tensor


def is_needed(solver: InverseSolver | None, simulator: Any, context: dict | None) -> bool:
    """Whether the noise is known, the solver has no prior to keep it from a fit of noise, and one can be measured."""
    known = "noise_level" in (context or {}) and simulator.is_least_squares and simulator.has("sample")
    return known and not hasattr(solver, "posterior")


def refine_noisy(
    simulator: Any, x0: tf.Tensor, y_target: tf.Tensor, context: dict | None, *, steps: int | tf.Tensor
) -> SolverResult:
    """Up to `steps` times x + dx,   dx = argmin |r(x) + J dx|^2 / sigma^2 + |dx|^2_{(s C)^-1}.

    C is the covariance of the simulator's samples, and s what the residual says of the answer's error,

        s = (|r|^2 / sigma^2 - M) / tr(J C J^T / sigma^2),   0 <= s <= 1,   M the number of data:

    an answer that explains y to its noise stays as it is, and no step goes far below the noise (discrepancy principle).
    Where the network knows more of x than a Gaussian does, that is kept. Where P is not diagonal in a basis, the prior
    itself, |x + dx - m|^2_{C^-1}, is added: far steps are the uncertain ones. No residual gets larger.

    Source: Hanke and Groetsch, Nonstationary iterated Tikhonov regularization, J. Optim. Theory Appl. 98 (1998); s by
    moments as in Efron and Morris, Stein's estimation rule and its competitors (1973).
    """
    solver = MaximumAPosteriori()
    x0, y_target, context = solver.prepare(simulator, x0, y_target, context)
    problem = InverseProblem(simulator, y_target, context).scaled_at(x0)
    form = solver.form_of(simulator)
    prior = None if form is not None else solver.for_answers(simulator).prior_of(simulator)

    def advance(progress):
        x = progress.x
        if form is not None:
            dx = form.change(problem, x, solver.noise)
        else:
            dx = _change_in_components(problem, x, prior, solver.noise)
        before = half_square(problem.residual(x))
        moved, found = tf.zeros_like(x), tf.zeros_like(before, tf.bool)
        for share in SHARES:
            lower = half_square(problem.residual(x + share * dx)) < before
            moved = batched.where_example(lower & ~found, share * dx, moved)
            found |= lower
        num_steps = progress.num_steps + tf.cast(found, tf.int32)
        return (_Progress(progress.count + 1, x + moved, progress.update + moved, num_steps),)

    zero = tf.constant(0)
    start = _Progress(zero, x0, tf.zeros_like(x0), tf.zeros(tf.shape(x0)[:1], tf.int32))
    found = tf.while_loop(lambda p: p.count < steps, advance, (start,), maximum_iterations=steps)[0]
    finite = batched.all_finite(x0) & batched.all_finite(y_target)
    status = tf.where(found.num_steps < steps, int(Status.STALLED), int(Status.MAX_STEPS))
    status = tf.where(finite, status, int(Status.NON_FINITE))
    x, update = batched.where_example(finite, (found.x, found.update), (x0, tf.zeros_like(x0)))
    y = simulator.forward(x, context)
    optimality = tf.fill(tf.shape(x0)[:1], tf.constant(float("nan"), x0.dtype))
    objective = simulator.objective(y, y_target, context)
    return SolverResult(x, update, y, status, found.num_steps, objective, optimality)


def _change_in_components(problem, x, prior, noise):
    """dx = -F^T s ((1 + s) I + s G G^T)^-1 (G r / sigma + z), G = F J^T / sigma, z the components of x."""
    residual, jacobian = component_products(problem, x, prior)
    deviation = tf.cast(noise_deviation(problem, residual, noise) + tf.zeros_like(residual), tf.float64)
    weight = tf.reshape(1.0 / deviation, [-1, jacobian.shape[2]])
    jacobian = tf.cast(jacobian, tf.float64) * weight[:, None]
    left = tf.cast(tf.reshape(residual, tf.shape(weight)), tf.float64) * weight
    square = tf.matmul(jacobian, jacobian, transpose_b=True)
    usable = batched.all_finite(square) & batched.all_finite(left)
    identity = tf.eye(square.shape[1], dtype=tf.float64)
    square = batched.where_example(usable, square, tf.zeros_like(square) + identity)
    left = batched.where_example(usable, left, tf.zeros_like(left))
    # Sensors that see nothing have no noise either.
    data = tf.reduce_sum(tf.cast(tf.reduce_any(jacobian != 0, axis=1), tf.float64), axis=1)
    width = width_of_error(tf.reduce_sum(tf.square(left), axis=1), data, tf.linalg.trace(square))
    wide = width[:, None, None]
    gradient = tf.linalg.matvec(jacobian, left) + tf.cast(prior.whiten(x).components, tf.float64)
    factor = tf.linalg.cholesky((1.0 + wide) * identity + wide * square)
    step = tf.linalg.cholesky_solve(factor, gradient[..., None])[..., 0]
    step = batched.where_example(usable, -width[:, None] * step, tf.zeros_like(step))
    rows = tf.constant(prior.factor.reshape(-1, prior.size), tf.float64)
    return tf.cast(tf.reshape(step @ rows, tf.shape(x)), x.dtype)
