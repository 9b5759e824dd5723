"""Table 1 of the paper: time per example to equal quality, network against solvers of a single problem."""

import time

import numpy as np
import tensorflow as tf

import keras_sip
from experiments.run import Models, Run
from keras_sip.simulators.base import split_observation

BATCH = 64
# A solver is called until its mean error in x is the network's, at most so often.
MOST_CALLS = 20
GRADIENT_STEPS, GRADIENT_STEP = 200, 0.03


def table1(run: Run, models: Models, refining_solver: keras_sip.InverseSolver) -> str:
    """Text of the table, for the first trained model with a solver.

    Quality is the mean error in x over the first examples of the evaluation set. The network and its refinement answer
    the whole batch at once; the solvers run on the same batch from x = 0.
    """
    method, model = next((method, model) for method, model in models.items() if model.solver is not None)
    first, x_true = run.shown_examples(BATCH)
    simulator = model.simulator
    y_target, context = split_observation(first)
    start = tf.zeros_like(x_true)

    seconds, x = _timed(tf.function(lambda: model(first, training=False), autograph=False))
    aim = _error(simulator, x, x_true)
    rows = [(f"network ({run.labels[method]})", seconds, aim, _objective(simulator, x, y_target, context), "1 call")]

    iterative = keras_sip.ReverseSimulation()
    rows.append(
        _to_equal_quality("iterative inverse solver", iterative, simulator, start, x_true, y_target, context, aim)
    )
    rows.append(_gradient_descent(simulator, start, x_true, y_target, context, aim))

    network_x = x
    refine = tf.function(
        lambda x: refining_solver.refine(simulator, x, y_target, context, steps=1),
        autograph=False,
        jit_compile=simulator.prefers_xla,
    )
    seconds, result = _timed(tf.function(lambda: refine(model(first, training=False)), autograph=False))
    before = simulator.objective(simulator.forward(network_x, context), y_target, context)
    objective = float(tf.reduce_mean(result.objective))
    rows.append(("network + refine", seconds, _error(simulator, result.x, x_true), objective, "chain"))
    lowered = float(tf.reduce_mean(tf.cast(result.objective < before, tf.float32)))
    nearer = float(
        tf.reduce_mean(
            tf.cast(simulator.distance(result.x, x_true) < simulator.distance(network_x, x_true), tf.float32)
        )
    )

    lines = [
        f"Time per example in a batch of {BATCH}, and what it buys (mean over the batch)",
        f"{'':26}{'ms':>10}{'/ network':>11}{'x error':>10}{'objective':>11}",
    ]
    fastest = rows[0][1]
    for name, seconds, error, objective, note in rows:
        milliseconds = 1e3 * seconds / BATCH
        lines.append(f"{name:26}{milliseconds:10.3g}{seconds / fastest:11.1f}{error:10.3f}{objective:11.4g}  {note}")
    lines.append(f"refine: objective lower on {lowered:.1%} of the examples, x error lower on {nearer:.1%}")
    return "\n".join(lines) + "\n"


def _to_equal_quality(name, solver, simulator, x, x_true, y_target, context, aim):
    """The solver called again and again from x = 0 until the mean error is the network's."""
    call = tf.function(
        lambda x: solver.solve(simulator, x, y_target, context).x, autograph=False, jit_compile=simulator.prefers_xla
    )
    seconds, _ = _timed(lambda: call(x))
    calls, error = 0, np.inf
    while error > aim and calls < MOST_CALLS:
        x, calls = call(x), calls + 1
        error = _error(simulator, x, x_true)
    objective = _objective(simulator, x, y_target, context)
    reached = "reached" if error <= aim else "NOT reached"
    return name, calls * seconds, error, objective, f"{calls} calls, {reached}"


def _gradient_descent(simulator, x, x_true, y_target, context, aim):
    """Normalised gradient steps x_scale * g / rms(g), of a fixed length, up to a cap."""
    size = tf.constant(simulator.x_scale, x.dtype)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = simulator.forward(x, context)
        cotangent = simulator.objective_gradient(y, y_target, context)
        gradient = size * tape.gradient(y, x, output_gradients=cotangent)
        length = tf.sqrt(tf.reduce_mean(tf.square(gradient), axis=[1, 2, 3], keepdims=True))
        return x - GRADIENT_STEP * size * gradient / tf.where(length > 0, length, tf.ones_like(length))

    step = tf.function(step, autograph=False, jit_compile=simulator.prefers_xla)
    seconds, _ = _timed(lambda: step(x))
    taken, error = 0, np.inf
    while error > aim and taken < GRADIENT_STEPS:
        x, taken = step(x), taken + 1
        error = _error(simulator, x, x_true)
    reached = "reached" if error <= aim else "cap"
    return "gradient descent", taken * seconds, error, _objective(simulator, x, y_target, context), f"{taken} {reached}"


def _timed(function, repeats=5):
    """(median seconds of a call, its result); the first call, which compiles, is not counted."""
    result, seconds = function(), []
    for _ in range(repeats):
        began = time.perf_counter()
        result = function()
        tf.nest.map_structure(lambda value: value.numpy() if tf.is_tensor(value) else value, result)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)), result


def _error(simulator, x, x_true):
    return float(tf.reduce_mean(simulator.distance(x, x_true)))


def _objective(simulator, x, y_target, context):
    y = simulator.forward(x, context)
    return float(tf.reduce_mean(simulator.objective(y, y_target, context)))
