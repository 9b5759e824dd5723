"""Truncated conjugate gradients on one large quadratic model, such as that of a network's loss in all its weights."""

from typing import NamedTuple

import tensorflow as tf

# Martens 2010, Section 4.4: progress is judged over the last max(10, i / 10) steps.
SHORTEST_WINDOW = 10


class Minimizer(NamedTuple):
    """Where truncated conjugate gradients stopped.

    Attributes:
        point: p `[n]`.
        value: q(p), a scalar; 0 at p = 0.
        num_steps: Steps taken, int32.
    """

    point: tf.Tensor
    value: tf.Tensor
    num_steps: tf.Tensor


class _Iterate(NamedTuple):
    count: tf.Tensor
    point: tf.Tensor
    residual: tf.Tensor  # -gradient of q at the point
    direction: tf.Tensor
    square: tf.Tensor
    values: tf.Tensor  # q after each step so far
    sound: tf.Tensor


def minimize_quadratic(matvec, gradient, start, *, max_steps, tolerance):
    """Lower  q(p) = g . p + 1/2 p . B p  over vectors `[n]`, from `start`, until steps no longer pay.

    Stops after step i where, over the last k = max(10, i / 10) of them, q has fallen by less than k * tolerance of
    itself: what counts is the value of the model, and that settles long before the residual of B p = -g does. Also
    where the curvature along a direction is not positive, or something is not finite; the point is then the last sound
    one. One product with B per step, and one for a start.

    Args:
        matvec: v `[n]` -> B v, B symmetric and positive (semi)definite.
        gradient: g `[n]`.
        start: `[n]`.
        max_steps: A Python int.
        tolerance: Least relative progress per step; 0 takes all steps.

    Returns:
        A `Minimizer`.

    Source: Martens, Deep learning via Hessian-free optimization (2010), Sections 4.4 and 4.5.
    """
    residual = -gradient - matvec(start)
    # q(p) = -1/2 p . (b + r) with b = -g and r = b - B p.
    first = _value(start, gradient, residual)
    square = tf.tensordot(residual, residual, 1)
    iterate = _Iterate(
        count=tf.constant(0),
        point=start,
        residual=residual,
        direction=residual,
        square=square,
        values=tf.concat([first[None], tf.zeros([max_steps], first.dtype)], 0),
        sound=tf.math.is_finite(square) & (square > 0),
    )

    def goes_on(iterate):
        count = iterate.count
        window = tf.maximum(SHORTEST_WINDOW, count // 10)
        now, before = iterate.values[count], iterate.values[tf.maximum(count - window, 0)]
        least = tf.cast(window, now.dtype) * tf.cast(tolerance, now.dtype) * tf.abs(now)
        settled = (count > window) & (now < 0) & (before - now < least)
        return iterate.sound & ~settled

    def step(iterate):
        product = matvec(iterate.direction)
        curvature = tf.tensordot(iterate.direction, product, 1)
        length = iterate.square / curvature
        point = iterate.point + length * iterate.direction
        residual = iterate.residual - length * product
        square = tf.tensordot(residual, residual, 1)
        value = _value(point, gradient, residual)
        sound = (curvature > 0) & tf.math.is_finite(value) & tf.math.is_finite(square)
        count = iterate.count + 1
        candidate = _Iterate(
            count=count,
            point=point,
            residual=residual,
            direction=residual + square / iterate.square * iterate.direction,
            square=square,
            values=tf.tensor_scatter_nd_update(iterate.values, count[None, None], value[None]),
            sound=square > 0,
        )
        stopped = iterate._replace(sound=tf.constant(False))
        return (tf.nest.map_structure(lambda new, old: tf.where(sound, new, old), candidate, stopped),)

    last = tf.while_loop(goes_on, step, (iterate,), maximum_iterations=max_steps)[0]
    return Minimizer(last.point, last.values[last.count], last.count)


def _value(point, gradient, residual):
    return 0.5 * tf.tensordot(point, gradient - residual, 1)
