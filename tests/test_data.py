"""Pipelines from simulators and from a user's arrays: reproducible, resumable, in the simulator's precision."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from keras_sip.data import without_bad_examples
from numerics import relative_error

POISSON = keras_sip.Poisson((8, 6))
SENSORS = problems.MaskedSensors()


def take(data, count):
    """The first batches as NumPy arrays."""
    return list(itertools.islice(data.as_numpy_iterator(), count))


def equal(one, other):
    """Whether two structures of arrays are equal, bit for bit."""
    tf.nest.assert_same_structure(one, other)
    return all(np.array_equal(a, b) for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True))


# From a simulator


@pytest.mark.parametrize("simulator", [POISSON, SENSORS], ids=["field", "context"])
def test_run_goes_on_where_it_stopped(simulator):
    batches = take(keras_sip.dataset(simulator, batch_size=3, seed=5), 4)
    for step in range(4):
        assert equal(batches[step], take(keras_sip.dataset(simulator, 3, seed=5, start_step=step), 1)[0])


def test_batches_of_other_steps_and_seeds_differ():
    fields = [x for seed in (0, 1, 2) for _, x in take(keras_sip.dataset(POISSON, 2, seed), 3)]
    assert all(np.std(one - other) > 0.5 for one, other in itertools.combinations(fields, 2))


def test_batch_is_the_simulator_s_sample_of_seed_and_step():
    (_, (y, x)) = take(keras_sip.dataset(POISSON, 3, seed=7), 2)
    sample = POISSON.sample(3, (7, 1))
    # Compiled in the pipeline, eager here.
    assert relative_error(x, sample["x"]) < 1e-5
    assert relative_error(y, sample["y"]) < 1e-5


def test_observation_carries_the_context():
    (observation, x) = take(keras_sip.dataset(SENSORS, 5, seed=0), 1)[0]
    assert set(observation) == {"y", "context"}
    assert observation["context"]["mask"].shape == (5, 4)
    assert np.array_equal(observation["y"], SENSORS(x, observation["context"]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_data_keeps_the_simulator_s_precision(dtype):
    simulator = keras_sip.Poisson((8, 6), dtype=dtype)
    spec = tf.TensorSpec((4, 8, 6, 1), dtype)
    assert keras_sip.dataset(simulator, 4, seed=0).element_spec == (spec, spec)
    assert {part.dtype for part in keras_sip.evaluation_set(simulator, 4, seed=0)} == {tf.as_dtype(dtype)}
    y, x = take(keras_sip.from_arrays(simulator, np.ones((4, 8, 6, 1)), np.ones((4, 8, 6, 1))), 1)[0]
    assert y.dtype == x.dtype == dtype


def test_evaluation_set_is_fixed_and_no_part_of_the_training_data():
    y, x = keras_sip.evaluation_set(POISSON, 4, seed=3)
    assert equal((y, x), keras_sip.evaluation_set(POISSON, 4, seed=3))
    assert np.array_equal(y, POISSON(x))
    assert not equal(x, keras_sip.evaluation_set(POISSON, 4, seed=4)[1])
    for seed in (3, 4):
        for _, training_x in take(keras_sip.dataset(POISSON, 4, seed), 5):
            assert np.std(x - training_x) > 0.5


def test_simulator_without_samples_is_refused_with_the_way_out():
    for call in (
        lambda: keras_sip.dataset(problems.CURVED, 4, seed=0),
        lambda: keras_sip.evaluation_set(problems.CURVED, 4, seed=0),
    ):
        with pytest.raises(NotImplementedError, match="keras_sip.from_arrays"):
            call()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 0}, "`batch_size` to be an integer of at least 1"),
        ({"seed": -1}, "`seed` to be an integer of at least 0"),
        ({"seed": 1.5}, "Received seed=1.5"),
        ({"start_step": -1}, "`start_step` to be an integer of at least 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_sip.dataset(POISSON, **{"batch_size": 2, "seed": 0, **arguments})
    field = np.ones((3, 8, 6, 1))
    with pytest.raises(ValueError, match=message):
        keras_sip.from_arrays(POISSON, field, **{"seed": 0, **arguments})


def test_something_else_than_a_simulator_is_refused():
    with pytest.raises(TypeError, match="a keras_sip.Simulator with `x_shape`"):
        keras_sip.dataset(np.tanh, 2, seed=0)


# From arrays

N = 10
Y = np.arange(N * 4.0).reshape(N, 4)
X = np.arange(N * 3.0).reshape(N, 3)
MASK = np.tile([1.0, 0.0, 1.0, 1.0], (N, 1))


def rows_of(batches):
    """The indices of the examples in the order they came."""
    return np.concatenate([x[:, 0] / 3 for _, x in batches]).astype(int)


def test_arrays_come_once_in_order_with_a_smaller_last_batch():
    batches = list(keras_sip.from_arrays(problems.CURVED, Y, X, batch_size=4).as_numpy_iterator())
    assert [len(y) for y, _ in batches] == [4, 4, 2]
    assert np.array_equal(np.concatenate([y for y, _ in batches]), Y)
    assert np.array_equal(np.concatenate([x for _, x in batches]), X)


def test_seed_shuffles_every_epoch_anew_and_without_end():
    rows = rows_of(take(keras_sip.from_arrays(problems.CURVED, Y, X, batch_size=4, seed=1), 9))
    epochs = rows.reshape(3, N)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(N), (3, 1)))
    assert not np.array_equal(epochs[0], np.arange(N))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_order_is_a_function_of_seed_and_epoch():
    def rows(seed):
        return rows_of(take(keras_sip.from_arrays(problems.CURVED, Y, X, batch_size=4, seed=seed), 6))

    assert np.array_equal(rows(1), rows(1))
    assert not np.array_equal(rows(1), rows(2))


def test_every_row_comes_at_every_place_of_an_epoch_alike():
    batches = take(keras_sip.from_arrays(problems.CURVED, Y, X, batch_size=N, seed=0), 400)
    orders = rows_of(batches).reshape(400, N)
    counts = np.array([np.bincount(places, minlength=N) for places in orders.T])
    # Chi squared of 81 degrees of freedom is below 150 but once in 100,000 times.
    assert np.sum((counts - 40.0) ** 2 / 40.0) < 150


@pytest.mark.parametrize("start_step", [1, 3, 5])
def test_shuffled_arrays_go_on_where_a_run_stopped(start_step):
    options = {"batch_size": 4, "seed": 3}
    whole = take(keras_sip.from_arrays(problems.CURVED, Y, X, **options), 7)
    rest = take(keras_sip.from_arrays(problems.CURVED, Y, X, **options, start_step=start_step), 7 - start_step)
    assert equal(whole[start_step:], rest)


def test_rows_stay_together_when_shuffled():
    data = keras_sip.from_arrays(SENSORS, Y, X, {"mask": MASK}, np.arange(N), batch_size=3, seed=0)
    for observation, x, weight in take(data, 4):
        assert np.array_equal(observation["y"][:, 0] / 4, weight)
        assert np.array_equal(x[:, 0] / 3, weight)
        assert observation["context"]["mask"].shape == (len(weight), 4)


def test_shuffle_without_a_seed_is_one_epoch_in_another_order_each_time():
    data = keras_sip.from_arrays(problems.CURVED, Y, X, batch_size=4, shuffle=True)
    first, second = (rows_of(data.as_numpy_iterator()) for _ in range(2))
    assert np.array_equal(np.sort(first), np.arange(N))
    assert np.array_equal(np.sort(second), np.arange(N))
    assert not np.array_equal(first, second)


def test_start_step_needs_a_seed():
    with pytest.raises(ValueError, match="Received start_step=2, seed=None"):
        keras_sip.from_arrays(problems.CURVED, Y, X, start_step=2)


@pytest.mark.parametrize(
    "arguments, structure",
    [
        ({}, "y"),
        ({"x": X}, ("y", "x")),
        ({"x": X, "sample_weight": np.ones(N)}, ("y", "x", "weight")),
        ({"sample_weight": np.ones(N)}, ("y", (), "weight")),
        ({"context": {"mask": MASK}}, {"y": "y", "context": {"mask": "mask"}}),
        ({"x": X, "context": {"mask": MASK}}, ({"y": "y", "context": {"mask": "mask"}}, "x")),
    ],
    ids=["y", "y_x", "y_x_weight", "y_weight", "context", "context_x"],
)
@pytest.mark.parametrize("seed", [None, 0])
def test_structure_is_the_one_that_fit_reads(arguments, structure, seed):
    spec = keras_sip.from_arrays(SENSORS, Y, **arguments, seed=seed).element_spec
    tf.nest.assert_same_structure(spec, structure)
    for part, name in zip(tf.nest.flatten(spec), tf.nest.flatten(structure), strict=True):
        assert part.dtype == ("float32" if name == "weight" else "float64")


def test_keras_fits_and_evaluates_on_it_in_float64():
    inputs = keras.Input((4,), dtype="float64")
    model = keras.Model(inputs, keras.layers.Dense(3, dtype="float64", kernel_initializer="zeros")(inputs))
    weights = np.linspace(0.5, 2.0, N)
    data = keras_sip.from_arrays(problems.CURVED, Y, X, sample_weight=weights, batch_size=4)
    model.compile("sgd", "mse")
    expected = np.sum(weights * np.mean(X**2, axis=1)) / N
    assert model.evaluate(data, verbose=0) == pytest.approx(expected, rel=1e-6)
    endless = keras_sip.from_arrays(problems.CURVED, Y, X, batch_size=4, seed=0)
    history = model.fit(endless, steps_per_epoch=4, epochs=2, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 2


@pytest.mark.parametrize("name", ["y", "x", "context['mask']", "sample_weight"])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_non_finite_entries_are_counted_and_named_by_example(name, bad):
    arrays = {"y": Y.copy(), "x": X.copy(), "context['mask']": MASK.copy(), "sample_weight": np.ones(N)}
    for example in (3, 7):
        arrays[name][example] = bad
    with pytest.raises(ValueError) as caught:
        keras_sip.from_arrays(
            SENSORS, arrays["y"], arrays["x"], {"mask": arrays["context['mask']"]}, arrays["sample_weight"]
        )
    expected, received, remedy = str(caught.value).split("\n")
    assert expected == f"Expected `{name}` to hold finite numbers."
    assert received == "Received NaN or Inf in 2 of 10 examples: [3, 7]."
    assert remedy.startswith("Remove these examples")


def test_one_bad_entry_makes_an_example_bad_and_a_long_list_is_cut():
    y = np.ones((40, 8, 6, 1))
    y[::2, 1, 5] = np.nan
    with pytest.raises(ValueError, match=r"20 of 40 examples: \[0, 2, 4, 6, 8, 10, 12, 14, 16, 18\] and more"):
        keras_sip.from_arrays(POISSON, y)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"y": Y[:, :3]}, ValueError, "`y` of shape ('batch', 4) and dtype float64"),
        ({"y": Y.astype("float32")}, TypeError, "dtype float32"),
        ({"y": Y.astype(int)}, TypeError, "dtype int64"),
        ({"y": Y[:0]}, ValueError, "at least one example"),
        ({"x": X[:, :1]}, ValueError, "`x` of shape ('batch', 3)"),
        ({"x": X[:7]}, ValueError, "`x` to have as many examples as `y`, 10"),
        ({"context": {"mask": MASK[:9]}}, ValueError, "`context['mask']` to have as many examples as `y`, 10"),
        ({"context": {"level": 0.5}}, ValueError, "`context['level']` to have as many examples as `y`, 10"),
        ({"context": MASK}, TypeError, "`context` to be a dict"),
        ({"sample_weight": np.ones(11)}, ValueError, "`sample_weight` to have as many examples as `y`, 10"),
        ({"sample_weight": np.ones((N, 4))}, ValueError, "`sample_weight` to be one number for each example"),
        ({"batch_size": 0}, ValueError, "`batch_size`"),
    ],
)
def test_wrong_arrays_are_refused_with_what_was_expected(arguments, error, message):
    with pytest.raises(error) as caught:
        keras_sip.from_arrays(SENSORS, **{"y": Y, **arguments})
    assert message in str(caught.value)
    assert "\nReceived " in str(caught.value)


def test_tensors_and_lists_are_arrays_too():
    for y in (tf.constant(Y), Y.tolist()):
        assert np.array_equal(take(keras_sip.from_arrays(SENSORS, y, batch_size=N), 1)[0], Y)


def test_bad_examples_are_zeroed_and_reported():
    observation = {"y": Y.copy(), "context": {"mask": MASK.copy(), "sensor": np.arange(N)}}
    observation["y"][2, 1] = np.nan
    observation["context"]["mask"][5, 0] = np.inf
    clean, good = without_bad_examples(tf.nest.map_structure(tf.constant, observation))
    assert np.flatnonzero(~good.numpy()).tolist() == [2, 5]
    for received, entry in zip(tf.nest.flatten(clean), tf.nest.flatten(observation), strict=True):
        assert np.all(received.numpy()[[2, 5]] == 0)
        assert np.array_equal(received.numpy()[good], entry[good])
