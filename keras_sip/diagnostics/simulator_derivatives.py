"""What a simulator computes: derivatives, independent examples, and the same numbers however it is compiled."""

import numpy as np
import tensorflow as tf

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.findings import Check, failed, note, passed, what_raised
from keras_sip.ops import batched
from keras_sip.simulators.base import root_mean_square

# Steps of the central differences, in units of the size of x. Truncation and rounding call for different ones in
# different simulators: the best of them counts, and a wrong derivative agrees with none.
STEPS = {"float32": (1e-1, 3e-2, 1e-2, 3e-3, 1e-3), "float64": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)}
AGREEMENT = {"float32": 1e-2, "float64": 1e-5}


def variables(case):
    with tf.GradientTape() as tape:
        case.forward(case.x)
    names = [variable.name for variable in tape.watched_variables()]
    if names:
        return failed(
            f"forward reads the trainable variables {names}",
            "Create them with trainable=False, or pass what they hold as part of x or of the context.",
        )
    return passed("none that train")


def jvp(case):
    received = case.linearized[1](case.direction)
    error, step = _best_difference(case, lambda difference: examples.example_errors(received, difference))
    return _agreement(case, "J v", error, step)


def vjp(case):
    # With w along J v the product <J^T w, v> is |J v|: no cancellation hides an error.
    w = case.linearized[1](case.direction)
    w /= batched.expand(batched.safe_scale(w), w)
    received = _dots(case.linearized[2](w), case.direction)

    def errors(difference):
        expected = _dots(w, difference)
        size = _norms(w) * _norms(difference)
        return np.abs(received - expected) / np.where(size > 0, size, 1.0)

    error, step = _best_difference(case, errors)
    return _agreement(case, "J^T w", error, step)


def dot_test(case):
    product, transposed = case.linearized[1](case.direction), case.linearized[2](case.cotangent)
    size = np.maximum(_norms(product) * _norms(case.cotangent), _norms(transposed) * _norms(case.direction))
    difference = np.abs(_dots(product, case.cotangent) - _dots(transposed, case.direction))
    error = np.max(difference / np.where(size > 0, size, 1.0))
    if not error <= case.rounding:
        return failed(
            f"<J v, w> and <v, J^T w> differ by {error:.2g}",
            "Make the backward pass of a custom gradient linear in the incoming gradient.",
        )
    return passed(f"<J v, w> = <v, J^T w> to {error:.1g}")


def gradient(case):
    transposed = case.eager[1]
    if not examples.is_finite(transposed):
        return failed("J^T w is not finite at ordinary examples", GUARD)
    if not np.any(transposed):
        return failed("J^T w is 0 at every example: nothing to learn from", CONNECTED)
    return passed("finite at the examples")


def gradient_at_zero(case):
    return _gradient_at(case, tf.zeros_like(case.x), "x = 0")


def gradient_at_uniform(case):
    size = tf.constant(root_mean_square(case.x), case.x.dtype)
    return _gradient_at(case, tf.zeros_like(case.x) + size, "uniform x")


def batch(case):
    whole = case.eager
    function = case.compiled(jit_compile=False)
    single = zip(*(function(*case.arguments(slice(i, i + 1))) for i in range(len(case.x))), strict=True)
    error = max(examples.worst_error(np.concatenate(part), all_) for part, all_ in zip(single, whole, strict=True))
    if not error <= 10 * case.rounding:
        return failed(f"an example alone differs from the same in a batch by {error:.2g}", INDEPENDENT)
    return passed(f"a batch is a loop over examples (to {error:.1g})")


def nan_example(case):
    spoiled = case.x.numpy()
    spoiled[1].flat[0] = np.nan
    others = np.arange(len(spoiled)) != 1
    good = case.eager
    try:
        bad = case.transposed(tf.constant(spoiled), case.cotangent)
    except Exception as error:  # whatever a user's simulator raises
        return what_raised(error, INDEPENDENT, case, stops=False)
    if not all(np.array_equal(a.numpy()[others], b.numpy()[others]) for a, b in zip(good, bad, strict=True)):
        return failed("a NaN in one example changes y or J^T w of others", INDEPENDENT)
    return passed("leaves the others bit-identical")


def graph(case):
    return _compiled_as_eager(case, jit_compile=False)


def xla(case):
    return _compiled_as_eager(case, jit_compile=True)


GUARD = (
    "Guard sqrt, norms, logarithms and divisions with a double where: y = where(ok, f(where(ok, x, 1)), value), "
    "so that the branch not taken has a finite derivative too."
)
CONNECTED = "Use differentiable TensorFlow operations all the way from x to y; rounding, argmax and .numpy() cut it."
INDEPENDENT = "Reduce over the axes of an example only (axis=1, 2, ...), never over the leading batch axis."
STATIC = (
    "Use TensorFlow operations of static shapes: tf.where for `if`, tf.while_loop with maximum_iterations for loops; "
    "no tf.py_function, boolean_mask or .numpy()."
)
DIFFERENTIABLE = "Use differentiable TensorFlow operations; a custom gradient must accept every w [B, *y_shape]."

DERIVATIVE_CHECKS = [
    Check("variables", variables, "Create variables once, in `__init__`, with trainable=False.", ("forward",)),
    Check("gradient", gradient, DIFFERENTIABLE, ("forward",)),
    Check("gradient, x = 0", gradient_at_zero, GUARD, ("forward",)),
    Check("gradient, flat x", gradient_at_uniform, GUARD, ("forward",)),
    Check("NaN example", nan_example, INDEPENDENT, ("gradient",)),
    # Where examples are coupled, J of an example is not all of the derivative.
    Check("jvp", jvp, DIFFERENTIABLE, ("gradient", "NaN example")),
    Check("vjp", vjp, DIFFERENTIABLE, ("gradient", "NaN example")),
    Check("dot test", dot_test, DIFFERENTIABLE, ("gradient", "NaN example")),
    Check("graph = eager", graph, STATIC, ("gradient",)),
    Check("batch", batch, "Write `forward` for a batch of any size.", ("graph = eager",)),
    Check("XLA = eager", xla, STATIC, ("graph = eager",)),
]


def _gradient_at(case, x, place):
    y, transposed = case.transposed(x, case.cotangent)
    if not examples.is_finite(y):
        return note(
            f"P is not finite at {place}",
            "An untrained network starts near 0: keep its output where P is defined (`project`, or log x).",
        )
    if not examples.is_finite(transposed):
        return failed(f"J^T w is not finite at {place}, though P is", GUARD)
    return passed(f"finite at {place}")


def _best_difference(case, errors):
    """(error of the worst example, step that served it best), each example at the step that serves it best."""
    steps = STEPS[case.simulator.dtype]
    tried = [errors(case.central_difference(step)) for step in steps]
    tried = np.nan_to_num(np.stack(tried), nan=np.inf)
    worst = np.argmax(np.min(tried, axis=0))
    return np.min(tried[:, worst]), steps[np.argmin(tried[:, worst])]


def _agreement(case, product, error, step):
    if not error <= AGREEMENT[case.simulator.dtype]:
        return failed(
            f"{product} differs from central differences by {error:.2g} at best",
            "Correct the custom gradient, or what cuts the gradient (stop_gradient, casts to int, lookups). At kinks "
            "(clips, ReLU) differences are inexact: pass x=... away from them to this check.",
        )
    return passed(f"{product} = central difference to {error:.1g} (step {step:g})")


def _compiled_as_eager(case, *, jit_compile):
    function = case.compiled(jit_compile=jit_compile)
    static = function.get_concrete_function().structured_outputs[0].shape[1:]
    if static != tuple(case.simulator.y_shape):
        return failed(f"compiled, y has the static shape {('batch', *static)}", STATIC)
    received = function(*case.arguments())
    error = max(examples.worst_error(a, b) for a, b in zip(received, case.eager, strict=True))
    if not error <= 10 * case.rounding:
        return failed(
            f"y or J^T w differ from eager ones by {error:.2g}",
            "Look for Python state, NumPy random numbers or undefined modes; if P amplifies rounding, use float64.",
        )
    return passed(f"y and J^T w to {error:.1g}")


def _dots(a, b):
    return np.sum(examples.rows(a) * examples.rows(b), axis=1)


def _norms(a):
    return np.linalg.norm(examples.rows(a), axis=1)
