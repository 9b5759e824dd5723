"""What solvers ask of a simulator: one step of each kind compiles under XLA, once, and costs so many adjoint steps."""

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.findings import Check, failed, note, passed, skipped, what_raised
from keras_sip.kernel_errors import explained
from keras_sip.ops import derivatives
from keras_sip.solvers.gauss_newton import GaussNewton
from keras_sip.solvers.linear_model import LARGEST_DENSE
from keras_sip.solvers.newton import Newton

CG_STEPS = 5
REPEATS = 3
# A program that is compiled anew takes far longer than one that is there.
COMPILED_ANEW, SHORTEST_COMPILATION = 10.0, 0.1


def products(case):
    """J v and J^T w in one program, as conjugate gradients take them."""

    def both(x, w, v, context=None):
        _, product, transposed = derivatives.linearize(lambda x: case.simulator.forward(x, context), x)
        return product(v), transposed(w)

    function = tf.function(both, jit_compile=True, autograph=False)
    x, w, *known = case.arguments()
    received = function(x, w, case.direction, *known)
    expected = case.linearized[1](case.direction), case.linearized[2](case.cotangent)
    error = max(examples.worst_error(a, b) for a, b in zip(received, expected, strict=True))
    if not error <= 10 * case.rounding:
        return failed(f"J v or J^T w differ from eager ones by {error:.2g}", STATE)
    _, is_anew = _seconds(lambda x: function(x, w, case.direction, *known), x)
    if is_anew:
        return failed("XLA compiles them anew for every new x", ANEW)
    return passed(f"J v and J^T w = eager to {error:.1g}; compiled once")


def conjugate_gradient_step(case):
    if not case.simulator.is_least_squares:
        return skipped("L is no half sum of squares")
    return _step(
        case,
        GaussNewton(linear_solver="conjugate_gradient", cg_steps=CG_STEPS),
        f"Gauss-Newton with {CG_STEPS} CG steps",
    )


def dense_step(case):
    if not case.simulator.is_least_squares:
        return skipped("L is no half sum of squares")
    size = min(math.prod(case.simulator.x_shape), math.prod(case.simulator.y_shape))
    if size > LARGEST_DENSE:
        return skipped(f"x and y have more than {LARGEST_DENSE} components")
    return _step(case, GaussNewton(linear_solver="dense"), "dense Gauss-Newton")


def newton_step(case):
    if math.prod(case.simulator.x_shape) > LARGEST_DENSE:
        return skipped(f"x has more than {LARGEST_DENSE} components")
    try:
        return _step(case, Newton(), "Newton")
    except Exception as error:  # whatever a user's simulator raises
        if explained(error):
            return what_raised(error, SECOND, case)
        reason = type(error).__name__
        return note(f"no second derivatives ({reason}): Newton and SaddleFreeNewton are out", SECOND)


STATE = "Look for Python state, NumPy random numbers or undefined modes; if P amplifies rounding, use float64."
ANEW = (
    "An index or a size follows from a loop's counter: step in time with keras_sip.ops.integrate, or gather with "
    "constant indices."
)
TWICE = "Use operations that TensorFlow differentiates twice; a custom gradient's backward pass too."
SECOND = "Where second derivatives are wanted, let custom gradients be made of differentiable operations."

STEP_CHECKS = [
    Check("J v under XLA", products, TWICE, ("jvp", "XLA = eager")),
    Check("CG step", conjugate_gradient_step, TWICE, ("J v under XLA",)),
    Check("dense step", dense_step, TWICE, ("J v under XLA",)),
    Check("Newton step", newton_step, SECOND, ("J v under XLA",)),
]


def _step(case, solver, name):
    """Whether one step of `solver` compiles, once, and what it costs."""
    y_target = tf.roll(case.y, 1, axis=0)
    function = tf.function(
        lambda x: solver.solve(case.simulator, x, y_target, case.context).update, jit_compile=True, autograph=False
    )
    seconds, is_anew = _seconds(function, case.x)
    if is_anew:
        return failed(f"XLA compiles a step ({name}) anew for every new x", ANEW)
    x, w, *known = case.arguments()
    adjoint = case.compiled(jit_compile=True)
    adjoint_seconds, _ = _seconds(lambda x: adjoint(x, w, *known), x)
    return passed(f"compiles; {name} costs {seconds / adjoint_seconds:.2g} adjoint steps")


def _seconds(function, x):
    """(median time of a run at the same x, whether a new x is compiled anew)."""
    same = median_seconds(lambda: function(x))
    others = [x + step * tf.abs(x) / 64 for step in (1, 2)]
    new = min(_timed(functools.partial(function, other)) for other in others)
    return same, new > COMPILED_ANEW * same and new > SHORTEST_COMPILATION


def median_seconds(function: Callable[[], Any]) -> float:
    """Median time of a few calls after the first, which compiles."""
    _timed(function)
    return statistics.median(_timed(function) for _ in range(REPEATS))


def _timed(function):
    begin = time.perf_counter()
    # To NumPy: a GPU's result is waited for.
    tf.nest.map_structure(np.asarray, function())
    return time.perf_counter() - begin
