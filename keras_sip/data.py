"""Data in the simulator's precision: drawn from a simulator, or of any kind that Keras takes."""

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part
from keras_sip.ops import batched
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.base import Simulator, check_simulator_interface, join_observation, split_observation

# Keeps evaluation examples apart from training ones of the same seed; any constant does.
EVALUATION_STREAM = 1_000_003


def dataset(simulator: Simulator, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
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

    draws = Draws(simulator, batch_size, seed, start_step)
    # On the CPU wherever the training runs: compiled, where the simulator gains by it there.
    batch = tf.function(draws.batch, jit_compile=simulator.prefers_xla or None, autograph=False)
    steps = tf.data.Dataset.counter(start_step)
    batches = steps.map(batch, num_parallel_calls=1, deterministic=True).prefetch(2)
    batches.draws = draws
    return _from_step_0(batches, start_step, dataset, simulator, batch_size, seed)


class Draws(NamedTuple):
    """What batches of `dataset` are drawn from; they carry it as `draws`.

    Attributes:
        simulator, batch_size, seed, start_step: The arguments of `dataset`.
    """

    simulator: Simulator
    batch_size: int
    seed: Any
    start_step: int

    def batch(self, step: tf.Tensor) -> tuple[Any, tf.Tensor]:
        """(observation, x) of a step, an int64 scalar."""
        seed = tf.stack([tf.cast(self.seed, tf.int64), step])
        return _observation_and_x(self.simulator.sample(self.batch_size, seed))


def evaluation_set(simulator: Simulator, num_examples: int, seed: int) -> tuple[Any, tf.Tensor]:
    """A fixed set `(observation, x)` of tensors, apart from the training examples of every seed."""
    _check_samples(simulator)
    check_positive_int("num_examples", num_examples)
    seed = check_positive_int("seed", seed, minimum=0)
    return _observation_and_x(simulator.sample(num_examples, (seed, -EVALUATION_STREAM)))


def from_arrays(
    simulator: Simulator,
    y: Any,
    x: Any = None,
    context: dict | None = None,
    sample_weight: Any = None,
    *,
    batch_size: int = 32,
    shuffle: bool = False,
    seed: int | None = None,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Batches from arrays that a user brings, checked on the host and kept in the simulator's precision.

    Keras' own array input casts float64 to float32, which ruins ill-posed inversions; this does not.

    Args:
        simulator: The simulator that the arrays belong to.
        y: Observations `[N, *y_shape]`; arrays are NumPy's, tensors, or what NumPy reads (pandas, h5py, lists).
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
        return _epoch(arrays, batch_size, shuffle=shuffle)

    seed = check_positive_int("seed", seed, minimum=0)
    examples = len(tf.nest.flatten(arrays)[0])
    steps_per_epoch = -(-examples // batch_size)

    def batch(step):
        # Each row's place in the epoch's order by itself: to sort all rows would take longer than the training step.
        # Of seeds that differ in few bits the orders would be alike.
        of_epoch = tf.stack([tf.constant(seed, tf.int64), step // steps_per_epoch])
        order_seed = tf.random.stateless_uniform([2], of_epoch, None, None, tf.int32, alg="philox")
        first = (step % steps_per_epoch) * batch_size
        places = tf.range(first, tf.minimum(first + batch_size, examples))
        rows = tf.random.experimental.index_shuffle(places, order_seed, max_index=examples - 1)
        return tf.nest.map_structure(lambda array: tf.gather(array, rows), arrays)

    batches = tf.data.Dataset.counter(start_step).map(batch, num_parallel_calls=1).prefetch(2)
    options = {"batch_size": batch_size, "seed": seed}
    return _from_step_0(batches, start_step, from_arrays, simulator, y, x, context, sample_weight, **options)


def checked_arrays(
    simulator: Simulator, y: Any, x: Any = None, context: dict | None = None, sample_weight: Any = None
) -> Any:
    """The structure that fit reads, of user arrays checked for shape, length, precision and finite values."""
    context = context if not isinstance(context, dict) else {name: _array(value) for name, value in context.items()}
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
    """What Keras is to iterate over: arrays as checked batches in the simulator's precision, datasets as they are.

    Raises:
        ValueError: x, weights or a batch size beside a dataset, which has its own.
    """
    if _holds_arrays(observation):
        y, context = split_observation(observation)
        return from_arrays(simulator, y, x, context, sample_weight, batch_size=batch_size or 32, shuffle=shuffle)
    given = {"x": x, "sample_weight": sample_weight, "batch_size": batch_size}
    names = [name for name, value in given.items() if value is not None]
    if names or observation is None or isinstance(observation, tuple):
        kind = type(observation).__name__
        raise ValueError(
            three_part(
                "observations as arrays, with x and sample weights as arrays beside them, or one dataset of all three",
                f"a {kind}" + (f" and {', '.join(names)} beside it" if names else ""),
                "Pass arrays, as fit(observation, x, sample_weight=...), or a dataset of batches (observation, x, "
                "sample_weight), such as keras_sip.from_arrays(simulator, y, x, sample_weight=...).",
            )
        )
    return observation


def fit_data(
    simulator: Simulator, observation: Any, x: Any, sample_weight: Any, options: dict, *, steps_per_execution: int
) -> tuple[Any, dict]:
    """(training data, options) of Keras' fit, validation data among the options, both as Keras is to iterate over them.

    Args:
        options: Arguments of Keras' fit.
    """
    options = dict(options)
    batch_size = options.pop("batch_size", None)
    shuffle = options.pop("shuffle", True)
    data = as_batches(simulator, observation, x, sample_weight, batch_size=batch_size, shuffle=shuffle)
    passes = options.get("epochs", 1) - options.get("initial_epoch", 0)
    together = {"steps_per_execution": steps_per_execution}
    steps = options.get("steps_per_epoch")
    data = with_steps(data, steps, name="steps_per_epoch", passes=passes, **together)
    if options.get("validation_data") is not None:
        parts = keras.utils.unpack_x_y_sample_weight(options["validation_data"])
        validation_batch_size = options.pop("validation_batch_size", None)
        if _holds_arrays(parts[0]):
            validation_batch_size = validation_batch_size or batch_size
        validation = as_batches(simulator, *parts, batch_size=validation_batch_size)
        steps = options.get("validation_steps")
        options["validation_data"] = with_steps(validation, steps, name="validation_steps", **together)
    # Shuffled already where it should be; Keras would warn that it cannot shuffle a dataset.
    return data, {**options, "shuffle": False}


def as_observations(simulator: Simulator, observation: Any, *, batch_size: int | None = None) -> Any:
    """`as_batches` to predict on: arrays may hold non-finite examples, which are answered with NaN."""
    if not _holds_arrays(observation):
        return as_batches(simulator, observation, batch_size=batch_size)
    observation = as_observation(simulator, tf.nest.map_structure(_array, observation))
    return _epoch(observation, check_positive_int("batch_size", batch_size or 32))


def with_steps(data: Any, steps: int | None, *, name: str, steps_per_execution: int = 1, passes: int = 1) -> Any:
    """The data of so many passes of exactly `steps` steps, `name` in fit.

    Raises:
        ValueError: Endless data and no number of steps; or so many steps that Keras, which takes `steps_per_execution`
            at a time, would take more.
    """
    if steps is None and _is_endless(data):
        raise ValueError(
            three_part(
                f"`{name}` with data that have no end",
                f"an endless {type(data).__name__} and {name}=None",
                f"Say how many batches make one pass: {name}=100, or end the data with data.take(100).",
            )
        )
    if steps is None or steps % steps_per_execution == 0:
        return data
    if passes == 1 and isinstance(data, tf.data.Dataset):
        return data.take(steps)
    raise ValueError(
        three_part(
            f"`{name}` to be a multiple of steps_per_execution, where there are several epochs or no tf.data.Dataset",
            f"{name}={steps}, steps_per_execution={steps_per_execution}",
            f"Keras would take {-(-steps // steps_per_execution) * steps_per_execution} steps: change one of the two.",
        )
    )


def first_observations(data: Any, examples: int) -> list:
    """Observations of the first whole batches of training data, at least `examples` of them where there are as many.

    Data that are a function of the step (`dataset`, `from_arrays` with a seed) give those of step 0 wherever they
    begin. Of a generator, whose batches could not be had again, there are none.
    """
    data = getattr(data, "from_step_0", lambda: data)()
    if isinstance(data, keras.utils.PyDataset):
        batches = (data[index] for index in range(data.num_batches or examples))
    elif isinstance(data, tf.data.Dataset):
        batches = iter(data)
    else:
        return []
    found, count, size = [], 0, None
    for batch in batches:
        observation = keras.utils.unpack_x_y_sample_weight(batch)[0]
        length = len(tf.nest.flatten(observation)[0])
        size = size or length
        if length == size:
            found.append(observation)
            count += size
        if count >= examples or length < size:
            break
    return found


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


def without_bad_examples(observation: Any) -> tuple[Any, tf.Tensor]:
    """(observation, good): examples with a non-finite entry are all zeros, and False in the boolean `good` `[B]`."""
    entries = tf.nest.flatten(observation)
    finite = [batched.all_finite(entry) for entry in entries if entry.dtype.is_floating]
    good = tf.reduce_all(tf.stack(finite), axis=0)
    clean = [batched.where_example(good, entry, tf.zeros_like(entry)) for entry in entries]
    return tf.nest.pack_sequence_as(observation, clean), good


def unless_bad(good: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """`value` `[B, ...]` of the examples that are `good` `[B]`, NaN of the others."""
    return batched.where_example(good, value, tf.fill(tf.shape(value), tf.constant(np.nan, value.dtype)))


def _epoch(arrays, batch_size, *, shuffle=False):
    """One pass over arrays in batches, of known length."""
    examples = len(tf.nest.flatten(arrays)[0])
    rows = tf.data.Dataset.range(examples)
    if shuffle:
        rows = rows.shuffle(examples)

    def gather(rows):
        return tf.nest.map_structure(lambda array: tf.gather(array, rows), arrays)

    return rows.batch(batch_size).map(gather, num_parallel_calls=1).prefetch(2)


def _from_step_0(batches, start_step, function, *arguments, **options):
    """`batches` with a note of how to have those of step 0: a run that goes on must find what the whole run found.

    Without a note they are those already, and need not be traced again.
    """
    if start_step:
        batches.from_step_0 = functools.partial(function, *arguments, **options)
    return batches


def _holds_arrays(data):
    """Whether an observation is of arrays, or what NumPy reads as one: tensors, variables, pandas, h5py, lists."""
    return tf.is_tensor(data) or isinstance(data, (dict, list, int, float)) or hasattr(data, "__array__")


def _is_endless(data):
    if isinstance(data, tf.data.Dataset):
        return int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    return isinstance(data, keras.utils.PyDataset) and data.num_batches is None


def _array(value):
    return value if tf.is_tensor(value) else np.asarray(value)


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
