"""tf.data pipelines: (observation, x) from a simulator or from a user's arrays, in the simulator's precision."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part
from keras_sip.ops import batched
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.base import Simulator, check_simulator_interface, join_observation, split_observation

# Keeps evaluation examples apart from training ones of the same seed; any constant does.
EVALUATION_STREAM = 1_000_003


def dataset(simulator, batch_size, seed, start_step=0):
    """Endless batches `(observation, x)` drawn from the simulator, generated in the graph.

    The batch of a step is a function of (seed, step) alone: a run that stopped after n steps goes on with
    `start_step=n` and sees what it would have seen.

    Args:
        simulator: A `Simulator` that defines `sample`.
        batch_size: Examples in a batch.
        seed: A non-negative int below 2**31.
        start_step: The first step.

    Returns:
        A `tf.data.Dataset` of (y or {"y", "context"}, x), in the simulator's precision.
    """
    _check_samples(simulator)
    check_positive_int("batch_size", batch_size)
    seed = check_positive_int("seed", seed, minimum=0)
    start_step = check_positive_int("start_step", start_step, minimum=0)

    # On the CPU wherever the training runs: compiled, where the simulator gains by it there.
    @tf.function(jit_compile=simulator.prefers_xla or None, autograph=False)
    def batch(step):
        return _observation_and_x(simulator.sample(batch_size, tf.stack([tf.constant(seed, tf.int64), step])))

    steps = tf.data.Dataset.counter(start_step)
    return steps.map(batch, num_parallel_calls=1, deterministic=True).prefetch(2)


def evaluation_set(simulator, num_examples, seed):
    """A fixed set `(observation, x)` of tensors, apart from the training examples of every seed."""
    _check_samples(simulator)
    check_positive_int("num_examples", num_examples)
    seed = check_positive_int("seed", seed, minimum=0)
    return _observation_and_x(simulator.sample(num_examples, (seed, -EVALUATION_STREAM)))


def from_arrays(
    simulator, y, x=None, context=None, sample_weight=None, *, batch_size=32, shuffle=False, seed=None, start_step=0
):
    """Batches from arrays that a user brings, checked on the host and kept in the simulator's precision.

    Keras' own array input casts float64 to float32, which ruins ill-posed inversions; this does not.

    Args:
        simulator: The simulator that the arrays belong to.
        y: Observations `[N, *y_shape]`.
        x: Causes `[N, *x_shape]` for metrics or supervised training, or None.
        context: Dict of arrays `[N, ...]`, or None.
        sample_weight: `[N]`, or None.
        batch_size: Examples in a batch; the last one of an epoch may be smaller.
        shuffle: Without a seed: one epoch in random order, another order each time it is read.
        seed: None: one epoch. An int: endless, shuffled anew in each epoch, the order a function of (seed,
            epoch) alone.
        start_step: With a seed: the batch to begin with, to go on where a run stopped.

    Returns:
        A `tf.data.Dataset` of observation, (observation, x) or (observation, x, sample_weight), as Keras' fit reads it.

    Raises:
        ValueError: Wrong shapes or lengths, or non-finite entries, with the indices of the first such examples.
        TypeError: Arrays less precise than the simulator.
    """
    check_simulator_interface(simulator)
    check_positive_int("batch_size", batch_size)
    arrays = checked_arrays(simulator, y, x, context, sample_weight)
    start_step = check_positive_int("start_step", start_step, minimum=0)
    if seed is None:
        if start_step:
            raise ValueError(
                three_part(
                    "a seed together with start_step: without a seed there is one epoch, in order",
                    f"start_step={start_step}, seed=None",
                    "Pass a seed, or leave start_step out.",
                )
            )
        rows = tf.data.Dataset.from_tensors(arrays).unbatch()
        if shuffle:
            rows = rows.shuffle(len(tf.nest.flatten(arrays)[0]))
        return rows.batch(batch_size).prefetch(2)

    seed = check_positive_int("seed", seed, minimum=0)
    examples = len(tf.nest.flatten(arrays)[0])
    steps_per_epoch = -(-examples // batch_size)

    def batch(step):
        order_seed = tf.stack([tf.constant(seed, tf.int64), step // steps_per_epoch])
        order = tf.argsort(tf.random.stateless_uniform([examples], order_seed, alg="philox"))
        first = (step % steps_per_epoch) * batch_size
        rows = order[first : first + batch_size]
        return tf.nest.map_structure(lambda array: tf.gather(array, rows), arrays)

    return tf.data.Dataset.counter(start_step).map(batch, num_parallel_calls=1).prefetch(2)


def checked_arrays(simulator, y, x=None, context=None, sample_weight=None):
    """The structure that fit reads, of user arrays checked for shape, length, precision and finite values."""
    tensors = {"y": simulator.as_y(y, name="y")}
    if x is not None:
        tensors["x"] = simulator.as_x(x)
    for name, value in (simulator.as_context(context) or {}).items():
        tensors[f"context[{name!r}]"] = value
    if sample_weight is not None:
        tensors["sample_weight"] = _checked_weights(sample_weight)
    examples = tensors["y"].shape[0]
    if examples == 0:
        raise ValueError(
            three_part("`y` to hold at least one example", "none", "Pass `[N, ...]` with N of at least 1.")
        )
    for name, tensor in tensors.items():
        if tensor.shape.rank == 0 or tensor.shape[0] != examples:
            raise ValueError(
                three_part(
                    f"`{name}` to have as many examples as `y`, {examples}",
                    f"shape {tuple(tensor.shape)}",
                    "Pass arrays whose leading axis is the example.",
                )
            )
        _check_finite(name, tensor)
    observation = join_observation(tensors["y"], simulator.as_context(context))
    if sample_weight is not None:
        return (observation, tensors.get("x", ()), tensors["sample_weight"])
    return (observation, tensors["x"]) if x is not None else observation


def as_observation(simulator: Simulator, observation: Any) -> Any:
    """An observation, y or {"y": ..., "context": ...}, as checked tensors in the simulator's precision."""
    y, context = split_observation(observation)
    return join_observation(simulator.as_y(y, name="y"), simulator.as_context(context))


def as_batches(
    simulator: Simulator,
    observation: Any,
    x: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    shuffle: bool = False,
) -> Any:
    """What Keras is to iterate over: arrays as checked batches in the simulator's precision, datasets as they are."""
    if not isinstance(observation, (np.ndarray, tf.Tensor, dict, list)):
        return observation
    y, context = split_observation(observation)
    return from_arrays(simulator, y, x, context, sample_weight, batch_size=batch_size or 32, shuffle=shuffle)


def unpack(simulator: Simulator, data: Any) -> tuple:
    """(observation, x, weight, good) of a batch as Keras hands it over.

    Examples whose observation is not finite are zeros of weight 0 and False in the boolean `good` `[B]`; x is None
    where there are no labels.
    """
    observation, x, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    observation, good = without_bad_examples(as_observation(simulator, observation))
    labelled = x is not None and not isinstance(x, tuple)
    weight = tf.cast(good, simulator.dtype)
    if sample_weight is not None:
        weight *= tf.reshape(tf.cast(sample_weight, weight.dtype), tf.shape(weight))
    return observation, simulator.as_x(x) if labelled else None, weight, good


def without_bad_examples(observation):
    """(observation, good): examples with a non-finite entry are all zeros, and False in the boolean `good` `[B]`."""
    entries = tf.nest.flatten(observation)
    finite = [batched.all_finite(entry) for entry in entries if entry.dtype.is_floating]
    good = tf.reduce_all(tf.stack(finite), axis=0)
    clean = [batched.where_example(good, entry, tf.zeros_like(entry)) for entry in entries]
    return tf.nest.pack_sequence_as(observation, clean), good


def _checked_weights(sample_weight):
    weights = np.asarray(sample_weight, np.float32)
    if weights.ndim != 1:
        raise ValueError(
            three_part(
                "`sample_weight` to be one number for each example, `[N]`",
                f"shape {weights.shape}",
                "Weigh examples here; cells are weighed in the simulator's residual.",
            )
        )
    return tf.constant(weights)


def _check_finite(name, tensor):
    if not tensor.dtype.is_floating:
        return
    values = tensor.numpy()
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if bad.size:
        raise ValueError(
            three_part(
                f"`{name}` to hold finite numbers",
                f"NaN or Inf in {bad.size} of {len(values)} examples: {bad[:10].tolist()}"
                + (" and more" if bad.size > 10 else ""),
                "Remove these examples, or replace their values.",
            )
        )


def _check_samples(simulator):
    check_simulator_interface(simulator)
    if not simulator.has(Ability.SAMPLE):
        simulator.sample(1, (0, 0))


def _observation_and_x(sample):
    return join_observation(sample["y"], sample.get("context")), sample["x"]
