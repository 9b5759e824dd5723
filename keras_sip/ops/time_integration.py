"""Stepping in time: a loop of static shapes whose derivatives are such loops again.

TensorFlow's own gradient of a `tf.while_loop` keeps every intermediate result of every step, and XLA compiles neither
the gradient of that gradient nor, for a new x, the old program. `integrate` differentiates itself instead. With the
step f and the whole run S_f, and everything that S_f depends on called p (first state, inputs, what f closes over):

- the gradient of S_f along cotangents w is a loop backward in time, B_f(p, w) = J^T w;
- B_f is linear in w, and its derivative along a direction u of p is the run of the tangent step
  f'(s, ds) = (f(s), f_s ds + f_p u):  J u = S_f'(p, u);
- <B_f(p, w), u> = <w, S_f'(p, u)>, so that its derivative with respect to p is B_f'((p, u), (0, w)).

Two loops that differentiate to each other: derivatives of any order, eagerly, in graphs and under XLA.

Source: A. Griewank and A. Walther, Evaluating Derivatives, 2nd ed. (2008), Chapters 3 and 5 (tangents, adjoints and
tangents of adjoints), 12 (checkpoints).
"""

import concurrent.futures
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part
from keras_sip.ops._integration_arguments import (
    check_state,
    checked_next,
    checked_num_steps,
    checked_save_at,
    is_continuous,
)

ZERO = tf.UnconnectedGradients.ZERO


@tf.autograph.experimental.do_not_convert
def integrate(
    step: Callable,
    state: Any,
    inputs: Any = None,
    *,
    num_steps: int | None = None,
    save_at: Sequence[int] | None = None,
    steps_per_checkpoint: int | None = None,
) -> Any:
    """The state after `num_steps` of  s_{k+1} = step(s_k, inputs[k], k):  for simulators that step in time.

    First and second derivatives, forward and reverse, work eagerly, in graphs and under XLA, with respect to the first
    state, the inputs and every tensor that `step` closes over. Programs do not grow with `num_steps`, and are compiled
    once. A gradient keeps the state of every `steps_per_checkpoint`-th step and computes those between anew, so that
    memory grows as the square root of `num_steps`; with 1 it keeps them all, and runs forward once less.

    Args:
        step: `(state, input_k, k)` -> the next state, of the same structure, shapes and dtypes; k is an int32 scalar.
            Built of differentiable TensorFlow operations and deterministic: a gradient calls it again. A value that
            changes from step to step belongs to `inputs`: the gradient of what is closed over is summed in every step.
        state: A tensor or nest of tensors of real or complex numbers, such as `[B, ...]`.
        inputs: A tensor or nest of tensors `[num_steps, ...]`, one entry a step; None gives `step` None.
        num_steps: A Python int; None takes the leading axis of `inputs`.
        save_at: Numbers of steps, rising, from 1 to `num_steps`, after which to save the state too.
        steps_per_checkpoint: A Python int; None takes the square root of `num_steps`.

    Returns:
        The last state; with `save_at` the pair (last state, saved states `[len(save_at), ...]`).

    Example, a driven pendulum, x = its torque in each step:

        step = ops.runge_kutta_4(lambda s, u, t: tf.stack([s[1], u - tf.sin(s[0])]), 0.1)
        last = ops.integrate(step, tf.zeros([2, batch]), tf.transpose(x))
    """
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs) if inputs is not None else ()
    num_steps = checked_num_steps(num_steps, inputs)
    check_state(state)
    spacing = steps_per_checkpoint or math.isqrt(num_steps - 1) + 1
    spacing = min(check_positive_int("steps_per_checkpoint", spacing), num_steps)
    flat_inputs = tf.nest.flatten(inputs)
    continuous = [is_continuous(entry) for entry in flat_inputs]

    def flat_step(entries, varying, k):
        varying = iter(varying)
        rows = [next(varying) if moves else entry[k] for moves, entry in zip(continuous, flat_inputs, strict=True)]
        packed = tf.nest.pack_sequence_as(inputs, rows) if rows else None
        following = step(tf.nest.pack_sequence_as(state, entries), packed, k)
        return checked_next(state, following)

    varying = [entry for moves, entry in zip(continuous, flat_inputs, strict=True) if moves]
    flat_state = tf.nest.flatten(state)
    closed_over = _closed_over(flat_step, flat_state, varying)
    saved_at = checked_save_at(save_at, num_steps)
    loop = _Loop(flat_step, closed_over, num_steps, spacing, saved_at)
    results, _ = _run(loop, flat_state, varying)
    last = tf.nest.pack_sequence_as(state, results[: len(flat_state)])
    if save_at is None:
        return last
    return last, tf.nest.pack_sequence_as(state, results[len(flat_state) :])


def runge_kutta_4(rate: Callable, step_size: float, *, start_time: float = 0.0) -> Callable:
    """The classical Runge-Kutta step of  ds/dt = rate(s, input, t)  for `integrate`, of order 4 in `step_size`.

    Args:
        rate: `(state, input, t)` -> ds/dt, a nest like the state; the input is held over a step.
        step_size: dt.
        start_time: t at the beginning of step 0.

    Source: E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential Equations I, 2nd ed., Table II.1.2.
    """

    def moved(state, factor, slope):
        return tf.nest.map_structure(lambda s, ds: s + _number(factor * step_size, s.dtype) * ds, state, slope)

    def step(state, value, k):
        real = tf.nest.flatten(state)[0].dtype.real_dtype
        half, whole = _number(0.5 * step_size, real), _number(step_size, real)
        time = _number(start_time, real) + whole * tf.cast(k, real)
        first = rate(state, value, time)
        second = rate(moved(state, 0.5, first), value, time + half)
        third = rate(moved(state, 0.5, second), value, time + half)
        fourth = rate(moved(state, 1.0, third), value, time + whole)
        slope = tf.nest.map_structure(lambda a, b, c, d: a + 2 * (b + c) + d, first, second, third, fourth)
        return moved(state, 1 / 6, slope)

    return step


def _number(value, dtype):
    """A Python number in full precision: `tf.cast` would round it to float32 first."""
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)


class _Loop(NamedTuple):
    step: Callable  # (state, inputs of a step, k) -> state, lists of tensors
    closed_over: list  # real or complex tensors that the step uses
    num_steps: int
    spacing: int  # steps from one checkpoint to the next
    saved_at: tuple  # numbers of steps

    @property
    def num_segments(self):
        return -(-self.num_steps // self.spacing)

    def segment_end(self, segment):
        return tf.minimum((segment + 1) * self.spacing, self.num_steps)

    def slot(self, k):
        """Where the state after step k is saved; behind all others if nowhere."""
        slots = np.full(self.num_steps, len(self.saved_at), np.int32)
        slots[np.array(self.saved_at) - 1] = np.arange(len(self.saved_at))
        return tf.constant(slots)[k]


def _run(loop, state, inputs):
    """S_f: the last and the saved states, differentiable; the checkpoints."""
    kept = []

    @tf.custom_gradient
    def run(*_):
        last, saved, checkpoints = _unrecorded(_forward, loop, state, inputs)
        kept.extend(checkpoints)

        def gradient(*cotangents):
            return _pull_back(loop, state, inputs, list(cotangents), checkpoints)

        return (*last, *saved), gradient

    return list(run(*state, *inputs, *loop.closed_over)), kept


def _pull_back(loop, state, inputs, cotangents, checkpoints):
    """B_f: J^T w with respect to the first state, the inputs and what is closed over, differentiable."""
    # Two operations, so that a tape that watches w alone does not compute the derivative in the points, and back.
    linear = _linear_in_cotangents(loop, state, inputs, cotangents, checkpoints)
    zeros = _curved_in_points(loop, state, inputs, cotangents)
    return [a + b for a, b in zip(linear, zeros, strict=True)]


def _linear_in_cotangents(loop, state, inputs, cotangents, checkpoints):
    """B_f, differentiable in w alone: the derivative is a run of the tangent step."""

    @tf.custom_gradient
    def run(*_):
        def gradient(*directions):
            results = _run_tangent(loop, state, inputs, directions)[1]
            return _tangents(results, len(state))

        return _unrecorded(_backward, loop, state, inputs, cotangents, checkpoints), gradient

    return list(run(*cotangents))


def _curved_in_points(loop, state, inputs, cotangents):
    """Zeros like B_f, with its derivative in the first state, the inputs and what is closed over."""
    points = [*state, *inputs, *loop.closed_over]

    @tf.custom_gradient
    def run(*_):
        def gradient(*directions):
            tangent, _, checkpoints = _run_tangent(loop, state, inputs, directions)
            ds, dx, _ = _split(directions, len(state), len(inputs))
            w_last, w_saved = cotangents[: len(state)], cotangents[len(state) :]
            w = [*map(tf.zeros_like, w_last), *w_last, *map(tf.zeros_like, w_saved), *w_saved]
            pulled = _pull_back(tangent, [*state, *ds], [*inputs, *dx], w, checkpoints)
            parts = _split(pulled, 2 * len(state), 2 * len(inputs))
            return [entry for part in parts for entry in _halves(part)[0]]

        return [tf.zeros_like(point) for point in points], gradient

    return list(run(*points))


def _run_tangent(loop, state, inputs, directions):
    """(the loop of f', its last and saved states, its checkpoints) along directions of the points."""
    ds, dx, dc = _split(directions, len(state), len(inputs))
    tangent = loop._replace(step=_tangent_step(loop, dc), closed_over=[*loop.closed_over, *dc])
    return tangent, *_run(tangent, [*state, *ds], [*inputs, *dx])


def _tangents(results, size):
    """The tangents of the last and the saved states, of results (last, d last, saved, d saved)."""
    return [*results[size : 2 * size], *results[3 * size :]]


def _tangent_step(loop, closed_over_direction):
    """f': (s, ds), (x, dx) -> (f, f_s ds + f_x dx + f_c dc), by the derivative of the adjoint's linear map."""

    def step(pair, pair_inputs, k):
        state, ds = _halves(pair)
        inputs, dx = _halves(pair_inputs)
        any_w = [tf.zeros_like(entry) for entry in state]
        with tf.GradientTape() as tape_of_transpose:
            tape_of_transpose.watch(any_w)
            following, transposed = _step_and_adjoint(loop, state, inputs, k, any_w)
        directions = [*ds, *dx, *closed_over_direction]
        moved = tape_of_transpose.gradient(transposed, any_w, directions, unconnected_gradients=ZERO)
        return [*following, *moved]

    return step


def _step_and_adjoint(loop, state, inputs, k, w):
    points = [*state, *inputs, *loop.closed_over]
    with tf.GradientTape() as tape:
        tape.watch(points)
        following = loop.step(state, inputs, k)
    adjoint = tape.gradient(following, points, w, unconnected_gradients=ZERO)
    return following, [tf.convert_to_tensor(entry) for entry in adjoint]  # a gather's is sparse


def _forward(loop, state, inputs):
    """(last state, saved states, states at the checkpoints), lists; by raw loops, not to be differentiated."""
    saved = [_zeros(len(loop.saved_at) + 1, entry) for entry in state] if loop.saved_at else []
    checkpoints = [_zeros(loop.num_segments, entry) for entry in state]

    def one_step(k, state, saved):
        state = loop.step(state, _rows(inputs, k), k)
        return k + 1, state, _written(saved, loop.slot(k), state) if saved else saved

    def one_segment(segment, state, saved, checkpoints):
        checkpoints = _written(checkpoints, segment, state)
        end = loop.segment_end(segment)
        _, state, saved = tf.while_loop(lambda k, *_: k < end, one_step, (segment * loop.spacing, state, saved))
        return segment + 1, state, saved, checkpoints

    start = (tf.constant(0), state, saved, checkpoints)
    _, last, saved, checkpoints = tf.while_loop(lambda i, *_: i < loop.num_segments, one_segment, start)
    return last, [array.stack()[:-1] for array in saved], [array.stack() for array in checkpoints]


def _backward(loop, state, inputs, cotangents, checkpoints):
    """J^T w for the first state, the inputs and what is closed over; by raw loops, not to be differentiated."""
    w, w_saved = cotangents[: len(state)], cotangents[len(state) :]
    w_saved = [tf.concat([entry, tf.zeros_like(entry[:1])], 0) for entry in w_saved]
    of_inputs = [_zeros(loop.num_steps, entry[0]) for entry in inputs]
    of_closed_over = [tf.zeros_like(entry) for entry in loop.closed_over]

    def one_segment(segment, w, of_inputs, of_closed_over):
        begin, end = segment * loop.spacing, loop.segment_end(segment)

        def recompute(k, state, states):
            states = _written(states, k - begin, state)
            return k + 1, loop.step(state, _rows(inputs, k), k), states

        states = [_zeros(loop.spacing, entry) for entry in state]
        first = (begin, _rows(checkpoints, segment), states)
        k, last, states = tf.while_loop(lambda k, *_: k < end - 1, recompute, first)
        states = _written(states, k - begin, last)

        def one_step(k, w, of_inputs, of_closed_over):
            if w_saved:
                w = [a + b for a, b in zip(w, _rows(w_saved, loop.slot(k)), strict=True)]
            here = [array.read(k - begin) for array in states]
            here = [tf.ensure_shape(entry, like.shape) for entry, like in zip(here, state, strict=True)]
            _, adjoint = _step_and_adjoint(loop, here, _rows(inputs, k), k, w)
            w, to_inputs, to_closed_over = _split(adjoint, len(state), len(inputs))
            of_closed_over = [a + b for a, b in zip(of_closed_over, to_closed_over, strict=True)]
            return k - 1, w, _written(of_inputs, k, to_inputs), of_closed_over

        latest = (end - 1, w, of_inputs, of_closed_over)
        _, w, of_inputs, of_closed_over = tf.while_loop(lambda k, *_: k >= begin, one_step, latest)
        return segment - 1, w, of_inputs, of_closed_over

    start = (tf.constant(loop.num_segments - 1), w, of_inputs, of_closed_over)
    _, w, of_inputs, of_closed_over = tf.while_loop(lambda i, *_: i >= 0, one_segment, start)
    return [*w, *(array.stack() for array in of_inputs), *of_closed_over]


def _closed_over(step, state, inputs):
    """The real and complex tensors that `step` uses besides its arguments."""

    def traced(state, inputs, k):
        return step(state, inputs, k)

    specs = [
        [tf.TensorSpec(entry.shape, entry.dtype) for entry in state],
        [tf.TensorSpec(entry.shape[1:], entry.dtype) for entry in inputs],
    ]
    graph = tf.function(traced, autograph=False).get_concrete_function(*specs, tf.TensorSpec([], tf.int32))
    names = [variable.name for variable in graph.trainable_variables]
    if names:
        raise ValueError(
            three_part(
                "`step` to read no trainable variables",
                f"{names}",
                "Read them once before the loop, `w = tf.convert_to_tensor(variable)`, and let `step` use the tensors.",
            )
        )
    return [entry for entry in graph.captured_inputs if is_continuous(entry)]


def _zeros(count, like):
    """An array of `count` entries like `like`, of shapes that XLA knows before the loop."""
    # The array of an unknown batch would have no shape before the first write.
    shape = tf.concat([[count], tf.shape(like)], 0)
    array = tf.TensorArray(like.dtype, count, element_shape=like.shape, clear_after_read=False)
    return array.unstack(tf.zeros(shape, like.dtype))


def _written(arrays, index, entries):
    return [array.write(index, entry) for array, entry in zip(arrays, entries, strict=True)]


def _rows(tensors, index):
    return [tensor[index] for tensor in tensors]


# AutoGraph would warn that it cannot convert a thread.
@tf.autograph.experimental.do_not_convert
def _unrecorded(function, *arguments):
    """`function` of the arguments, unseen by the tapes outside, which would differentiate its loops in vain.

    Tapes belong to a thread, and `step` closes over tensors that they watch: another thread works in the same graph.
    """
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def run():
        if graph is None:
            # One graph, not num_steps times the operations of a step.
            return tf.function(lambda: function(*arguments), autograph=False).get_concrete_function()()
        with graph.as_default():
            return function(*arguments)

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def _halves(entries):
    return list(entries[: len(entries) // 2]), list(entries[len(entries) // 2 :])


def _split(entries, first, second):
    """Lists of the first `first`, the next `second` and all other entries."""
    entries = list(entries)
    return entries[:first], entries[first : first + second], entries[first + second :]
