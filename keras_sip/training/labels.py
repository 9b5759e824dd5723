"""Two-stage training: an inverse solver labels a data set once, then a network learns the labels."""

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_positive_int
from keras_sip.simulators.base import check_simulator_interface, split_observation
from keras_sip.training.checks import checked_solver


def label_with_solver(simulator, solver, observation, x0=None, *, batch_size=256):
    """(x, sample_weight): a cause of every observation as the solver finds it, and 0 where it failed, else 1.

    The labels of Eq. 4, for method "supervised":

        y, _ = keras_sip.evaluation_set(simulator, 10_000, seed=0)
        x, weight = keras_sip.label_with_solver(simulator, keras_sip.LevenbergMarquardt(max_steps=50), y)
        data = keras_sip.from_arrays(simulator, y, x, sample_weight=weight, batch_size=100, seed=0)

    Where an observation has several causes, which of them is found depends on x0, so that labels of neighbouring
    observations may belong to different branches; a network then learns their mean, which is no cause at all. Method
    "sip" solves from the network's own prediction and stays on its branch.

    Args:
        simulator: The process P.
        solver: An `InverseSolver`, with as many `max_steps` as it takes.
        observation: y `[N, *y_shape]`, or {"y": ..., "context": ...}.
        x0: Where the solver starts, `[N, *x_shape]` or `[*x_shape]`; None is 0.
        batch_size: Problems solved at a time.

    Returns:
        NumPy arrays `[N, *x_shape]` and float32 `[N]`.

    Source: the paper, Section 3.1, Eq. 4.
    """
    check_simulator_interface(simulator)
    solver = checked_solver(solver, simulator)
    check_positive_int("batch_size", batch_size)
    y, context = split_observation(observation)
    y, context = simulator.as_y(y, name="y"), simulator.as_context(context)
    start = np.zeros(simulator.x_shape) if x0 is None else np.asarray(x0)
    start = np.broadcast_to(start, (len(y), *simulator.x_shape)).astype(simulator.dtype)

    @tf.function(reduce_retracing=True, autograph=False)
    def solve(x0, y, context):
        return solver.solve(simulator, x0, y, context)

    xs, weights = [], []
    for first in range(0, len(y), batch_size):
        rows = slice(first, first + batch_size)
        known = context and {name: entry[rows] for name, entry in context.items()}
        result = solve(tf.constant(start[rows]), y[rows], known)
        xs.append(result.x.numpy())
        weights.append(1.0 - result.failed.numpy().astype("float32"))
    return np.concatenate(xs), np.concatenate(weights)
