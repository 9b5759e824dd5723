"""Conjugate gradients on batches: every example is a linear system of its own, with its own scalars and its own end.

For right-hand sides in any unit (1e-25 to 1e25 in float32) they work on numbers near 1 and scale back at the end.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.ops import batched

# Of LSQR's second stopping rule: a gradient of so many roundings of |J| |misfit| is one of them.
ROUNDINGS = 4


class Solution(NamedTuple):
    """What conjugate gradients found, per example.

    An example that neither converged nor used up `max_steps` broke down: it met a direction of non-positive
    curvature or a non-finite number, and `solution` is the last iterate before that (zeros at first).

    Attributes:
        solution: `[B, ...]`.
        num_steps: Accepted steps, int32 `[B]`.
        converged: Whether `residual_norm` fell to the tolerance, or to where all further steps would be of rounding
            errors, boolean `[B]`.
        residual_norm: Norm of the residual over that at the start, `[B]`; NaN where the start was not finite. As the
            recurrence has it: rounding keeps the true residual above about 1e-7 (float32) of the largest term in it.
    """

    solution: tf.Tensor
    num_steps: tf.Tensor
    converged: tf.Tensor
    residual_norm: tf.Tensor


class _Iterate(NamedTuple):
    solution: tf.Tensor
    misfit: tf.Tensor  # b - A x of CG `[B, *x]`, b - J x of CGLS `[B, *y]`
    direction: tf.Tensor
    square: tf.Tensor  # squared norm `[B]` of the residual that is to vanish
    noise: tf.Tensor  # what rounding makes of `square`, `[B]`
    stretch: tf.Tensor  # the largest |J d|^2 / |d|^2 so far, an estimate of |J|^2, `[B]`


def conjugate_gradient(matvec, b, *, max_steps, tolerance):
    """Solve A x = b for a symmetric positive semidefinite A, from x = 0.

    An example stops where |b - A x| <= tolerance |b|, after `max_steps` steps, or where it breaks down (see
    `Solution`); it is then frozen, bit for bit. One product with A per step.

    Args:
        matvec: v -> A v, both `[B, ...]`, linear in v, one A for each example.
        b: `[B, ...]`.
        max_steps: A Python int.
        tolerance: A number, relative.

    Source: Hestenes and Stiefel, Methods of Conjugate Gradients for Solving Linear Systems (1952), Section 3.
    """
    b = tf.convert_to_tensor(b)
    unit = batched.safe_scale(b)
    usable = batched.all_finite(b)
    residual = batched.where_example(usable, b / batched.expand(unit, b), tf.zeros_like(b))
    square = batched.dot(residual, residual)
    # The recurrence of CG lets its residual fall without end: there is no noise to fall into.
    start = _Iterate(tf.zeros_like(b), residual, residual, square, noise=0.0 * square, stretch=0.0 * square)

    def step(iterate):
        product = matvec(iterate.direction)
        curvature = batched.dot(iterate.direction, product)
        length = batched.expand(iterate.square / curvature, b)
        residual = iterate.misfit - length * product
        square = batched.dot(residual, residual)
        return curvature, iterate._replace(
            solution=iterate.solution + length * iterate.direction,
            misfit=residual,
            direction=residual + batched.expand(square / iterate.square, b) * iterate.direction,
            square=square,
        )

    result = _iterate(step, start, usable, max_steps, tolerance)
    return result._replace(solution=result.solution * batched.expand(unit, b))


def cgls(jvp, vjp, r, *, damping, max_steps, tolerance):
    """Minimise |J d + r|^2 + damping |d|^2, that is solve (J^T J + damping I) d = -J^T r, from d = 0.

    Conjugate gradients on these normal equations that keep the misfit -r - J d in y space: unlike CG with the
    product J^T J they do not square the condition number in the residual (CGLS). An example stops where the gradient
    |J^T (r + J d) + damping d| <= tolerance |J^T r| or is all rounding, after `max_steps` steps or at a breakdown (see
    `Solution`; its `residual_norm` is that of the gradient). Every iterate lowers the objective. One jvp and one vjp
    per step.

    The units of x and y don't matter: r and J need not be near 1, nor their squares be representable.

    Args:
        jvp: v `[B, *x]` -> J v `[B, *y]`, linear.
        vjp: w `[B, *y]` -> J^T w `[B, *x]`, linear.
        r: `[B, *y]`, the residual.
        damping: A number or `[B]`, at least 0.
        max_steps: A Python int.
        tolerance: A number, relative.

    Source: Björck, Numerical Methods for Least Squares Problems (1996), Algorithm 7.4.1; Hestenes and Stiefel (1952),
    Section 10; the damped form and the stopping rule as in Paige and Saunders, LSQR, ACM TOMS 8 (1982).
    """
    r = tf.convert_to_tensor(r)
    r_unit = batched.safe_scale(r)
    misfit = -r / batched.expand(r_unit, r)
    steepest = vjp(misfit)
    usable = batched.all_finite(r) & batched.all_finite(steepest)
    misfit = batched.where_example(usable, misfit, tf.zeros_like(misfit))
    steepest = batched.where_example(usable, steepest, tf.zeros_like(steepest))
    # J is measured in a unit too, so that J^T J, which may not be representable, never occurs. For the same reason the
    # damping enters as rows, sqrt(damping) I below J, and is not squared: XLA would square the unit first.
    per_j_unit = 1.0 / batched.safe_scale(steepest)
    steepest *= batched.expand(per_j_unit, steepest)
    damping_rows = batched.expand(tf.sqrt(tf.cast(damping, r.dtype)) * per_j_unit, steepest)
    square = batched.dot(steepest, steepest)
    start = _Iterate(tf.zeros_like(steepest), misfit, steepest, square, noise=0.0 * square, stretch=0.0 * square)
    epsilon = np.finfo(r.dtype.as_numpy_dtype).eps
    smallest_misfit = epsilon**2 * batched.dot(misfit, misfit)

    def step(iterate):
        product = jvp(iterate.direction) * batched.expand(per_j_unit, r)
        damped = damping_rows * iterate.direction
        curvature = batched.dot(product, product) + batched.dot(damped, damped)
        length = iterate.square / curvature
        solution = iterate.solution + batched.expand(length, steepest) * iterate.direction
        misfit = iterate.misfit - batched.expand(length, r) * product
        descent = vjp(misfit) * batched.expand(per_j_unit, steepest) - damping_rows * (damping_rows * solution)
        square = batched.dot(descent, descent)
        stretch = tf.maximum(iterate.stretch, curvature / batched.dot(iterate.direction, iterate.direction))
        rows = damping_rows * solution
        size = batched.dot(misfit, misfit) + batched.dot(rows, rows)
        # Steps beyond this are built of rounding errors, and grow without bound.
        noise = tf.where(size <= smallest_misfit, square, (ROUNDINGS * epsilon) ** 2 * stretch * size)
        return curvature, _Iterate(
            solution=solution,
            misfit=misfit,
            direction=descent + batched.expand(square / iterate.square, steepest) * iterate.direction,
            square=square,
            noise=noise,
            stretch=stretch,
        )

    result = _iterate(step, start, usable, max_steps, tolerance)
    return result._replace(solution=result.solution * batched.expand(r_unit * per_j_unit, steepest))


def _iterate(step, start, usable, max_steps, tolerance):
    """Repeat `step` in the examples that are `usable` until they stop; the `Solution` in the units of `start`.

    `step` maps an `_Iterate` to the curvature along its direction, `[B]`, and the next one.
    """
    start_norm = tf.sqrt(start.square)
    threshold = tf.cast(tolerance, start_norm.dtype) * start_norm

    def is_small(iterate):
        return (tf.sqrt(iterate.square) <= threshold) | (iterate.square <= iterate.noise)

    def any_active(iterate, num_steps, active):
        return tf.reduce_any(active)

    def advance(iterate, num_steps, active):
        curvature, candidate = step(iterate)
        sound = (curvature > 0) & tf.math.is_finite(candidate.square) & batched.all_finite(candidate.solution)
        accepted = active & sound
        iterate = batched.where_example(accepted, candidate, iterate)
        return iterate, num_steps + tf.cast(accepted, tf.int32), accepted & ~is_small(iterate)

    num_steps = tf.zeros_like(usable, tf.int32)
    iterate, num_steps, _ = tf.while_loop(
        any_active, advance, (start, num_steps, usable & ~is_small(start)), maximum_iterations=max_steps
    )
    relative = tf.sqrt(iterate.square) / tf.where(start_norm > 0, start_norm, tf.ones_like(start_norm))
    nan = tf.constant(float("nan"), relative.dtype)
    return Solution(iterate.solution, num_steps, usable & is_small(iterate), tf.where(usable, relative, nan))
