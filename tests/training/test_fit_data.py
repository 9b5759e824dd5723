"""What fit, evaluate and predict take, and that nothing of it is dropped: every kind of array and dataset."""

import copy
import pickle

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip import SIPModel
from keras_sip.kernel_errors import SimulatorKernelError

MATRIX = np.array([[1.0, 0.5, -0.3], [0.2, -1.0, 0.8]], "float32")


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Mixture(keras_sip.Simulator):
    """y = x A, two unknowns seen by three sensors; known is the gain of each example."""

    x_shape, y_shape = (2,), (3,)
    prefers_xla = False

    def forward(self, x, context=None):
        return x @ tf.constant(MATRIX)

    def inverse(self, y_target, x_near, context=None):
        return y_target @ tf.constant(np.linalg.pinv(MATRIX))

    def sample(self, batch_size, seed):
        x = tf.random.stateless_normal((batch_size, 2), seed)
        return {"x": x, "y": self.forward(x)}


SIMULATOR = Mixture()
X = np.random.default_rng(0).standard_normal((6, 2)).astype("float32")
Y = X @ MATRIX
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 0.0, 1.5], "float32")


def make_model(method="sip", optimizer="sgd", **options):
    network = keras_sip.MLP(3, 2, (4,), seed=0)
    model = SIPModel(network, SIMULATOR, keras_sip.AnalyticInverse(), method, input_scale=1.0, x_scale=[1.0, 2.0])
    model.compile(optimizer, **{"run_eagerly": True, **options})
    return model


class Batches(keras.utils.PyDataset):
    """Two batches of three examples each."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return tuple(array[3 * index : 3 * index + 3] for array in self.arrays)


class Frame:
    """What NumPy reads as an array and is none, as pandas' are."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


def in_hdf5(folder):
    file = h5py.File(folder / "data.h5", "w")
    file["y"], file["x"], file["w"] = Y, X, WEIGHTS
    return file["y"], file["x"], file["w"]


KINDS = {
    "numpy": lambda folder: (Y, X, WEIGHTS),
    "lists": lambda folder: (Y.tolist(), X.tolist(), WEIGHTS.tolist()),
    "tensors": lambda folder: (tf.constant(Y), tf.constant(X), tf.constant(WEIGHTS)),
    "variables": lambda folder: (tf.Variable(Y), tf.Variable(X), tf.Variable(WEIGHTS)),
    "h5py": in_hdf5,
    "frames": lambda folder: (Frame(Y), Frame(X), Frame(WEIGHTS)),
    "tf.data": lambda folder: (tf.data.Dataset.from_tensor_slices((Y, X, WEIGHTS)).batch(3), None, None),
    "PyDataset": lambda folder: (Batches(Y, X, WEIGHTS), None, None),
}


@pytest.fixture(scope="module")
def expected():
    """(weights after one epoch, what is measured before it) by NumPy: dL/dz = -U, the weighted means of the metrics."""
    model = make_model("supervised")
    x = model(Y).numpy()
    weighted = WEIGHTS / WEIGHTS.sum()
    measured = {
        "loss": np.sum(weighted * 0.5 * np.sum((x @ MATRIX - Y) ** 2, 1)),
        "x_error": np.sum(weighted * np.mean(np.abs(x - X), 1)),
        "x_error_scaled": np.sum(weighted * np.mean(np.abs(x - X) / [1.0, 2.0], 1)),
        "bad_input": 0.0,
    }
    for first in (0, 3):
        part = slice(first, first + 3)
        with tf.GradientTape() as tape:
            z = model.network(Y[part])
            loss = tf.reduce_sum(WEIGHTS[part, None] / 3 * 0.5 * tf.square(z - X[part] / [[1.0, 2.0]]))
        gradients = tape.gradient(loss, model.network.trainable_variables)
        for variable, gradient in zip(model.network.trainable_variables, gradients, strict=True):
            variable.assign_sub(0.01 * gradient)
    return model.get_weights(), measured


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_weights_of_every_kind_of_data_count(kind, expected, tmp_path):
    y, x, weights = KINDS[kind](tmp_path)
    size = None if x is None else 3
    for method in ("supervised", "sip"):
        model = make_model(method)
        measured = model.evaluate(y, x, sample_weight=weights, batch_size=size, verbose=0, return_dict=True)
        assert measured == pytest.approx(expected[1], rel=1e-5)
        model.fit(y, x, sample_weight=weights, batch_size=size, shuffle=False, verbose=0)
        for received, wanted in zip(model.get_weights(), expected[0], strict=True):
            np.testing.assert_allclose(received, wanted, rtol=1e-5, atol=1e-7)
    answers = model.predict(y if x is not None else Y, batch_size=size and 4, verbose=0)
    np.testing.assert_allclose(answers, model(Y), rtol=1e-6)


@pytest.mark.parametrize("beside", [{"y": X}, {"sample_weight": WEIGHTS}, {"batch_size": 3}])
def test_what_would_be_ignored_beside_a_dataset_is_refused(beside):
    data = tf.data.Dataset.from_tensor_slices(Y).batch(3)
    for call in (make_model().fit, make_model().evaluate):
        name = next(iter(beside)).replace("y", "x") if "y" in beside else next(iter(beside))
        with pytest.raises(ValueError, match=rf"Expected observations as arrays(?s:.*){name} beside it(?s:.*)Pass "):
            call(data, **beside)


def test_a_pair_in_place_of_observation_and_x_is_refused():
    with pytest.raises(ValueError, match=r"fit\(observation, x"):
        make_model().fit((Y, X))


def test_endless_data_need_a_number_of_steps_which_is_named():
    endless = keras_sip.dataset(SIMULATOR, 3, seed=0)
    with pytest.raises(ValueError, match=r"`steps_per_epoch` with data that have no end(?s:.*)steps_per_epoch=100"):
        make_model().fit(endless)
    with pytest.raises(ValueError, match="`validation_steps` with data that have no end"):
        make_model().fit(Y, X, validation_data=endless)
    with pytest.raises(ValueError, match="`steps` with data that have no end"):
        make_model().evaluate(endless)


def test_what_has_no_meaning_here_is_refused():
    for option in ({"class_weight": {0: 1.0}}, {"validation_split": 0.5}):
        with pytest.raises(ValueError, match=rf"Expected fit without {next(iter(option))}(?s:.*)\n.*\n"):
            make_model().fit(Y, X, **option)


def test_exactly_as_many_steps_as_asked_for_whatever_the_steps_of_an_execution():
    model = make_model(run_eagerly=False, steps_per_execution=4, jit_compile=False)
    data = keras_sip.dataset(SIMULATOR, 3, seed=0)
    model.fit(data, steps_per_epoch=6, verbose=0)
    assert int(model.optimizer.iterations) == 6
    model.evaluate(data, steps=3, verbose=0)
    with pytest.raises(ValueError, match=r"steps_per_epoch=6, steps_per_execution=4(?s:.*)would take 8 steps"):
        model.fit(data, steps_per_epoch=6, epochs=2, verbose=0)


def test_names_fit_the_values_of_evaluate():
    for options, labels in (({}, X), ({"evaluate_solver": True}, X), ({}, None)):
        model = make_model(**options)
        names = model.metrics_names
        listed = dict(zip(names, model.evaluate(Y, labels, verbose=0), strict=True))
        named = model.evaluate(Y, labels, verbose=0, return_dict=True)
        assert {name: value for name, value in listed.items() if not np.isnan(value)} == named
        assert np.isnan(listed["x_error"]) == (labels is None)


def test_nan_in_an_observation_is_answered_with_nan_alike_and_leaves_the_others(tmp_path):
    model = make_model()
    spoilt = Y.copy()
    spoilt[2, 1] = np.nan
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures
    of_refine = model.refine(spoilt, 2)
    answers = {
        "predict": model.predict(spoilt, verbose=0),
        "refine": of_refine.x.numpy(),
        "served": served["infer"](y=tf.constant(spoilt))["x"].numpy(),
        "served refine": served["refine"](y=tf.constant(spoilt), steps=tf.constant(2))["x"].numpy(),
    }
    others = [0, 1, 3, 4, 5]
    for name, x in answers.items():
        assert np.isnan(x[2]).all() and np.isfinite(x[others]).all(), name
    np.testing.assert_allclose(answers["predict"][others], model.predict(Y, verbose=0)[others], rtol=1e-6)
    assert of_refine.status[2] == keras_sip.Status.NON_FINITE and np.isnan(of_refine.objective[2])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_of_a_model_are_equal_models_that_train_alike(duplicate):
    model = make_model(optimizer="adam")
    model.fit(Y, X, batch_size=3, shuffle=False, verbose=0)
    other = duplicate(model)
    assert other.network is not model.network
    for each in (model, other):
        each.fit(Y, X, batch_size=3, shuffle=False, verbose=0)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_kernel_of_the_simulator_that_raises_is_named_with_the_remedy():
    def flow(x):
        # Of an x of 0, as every network's answer to 0 is here, the matrix is singular.
        return tf.linalg.solve(tf.linalg.diag(x), tf.ones_like(x)[..., None])[..., 0]

    simulator = keras_sip.from_function(flow, 3)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model = SIPModel(network, simulator, None, "adjoint")
    model.compile("sgd", run_eagerly=True)
    for call in (model.fit, model.evaluate):
        with pytest.raises(SimulatorKernelError, match=r"MatrixSolve(?s:.*)from_function(?s:.*)keras_sip.ops.solve"):
            call(np.zeros((2, 3), "float32"), verbose=0)


# Networks of other forms ----------------------------------------------------------------------------------------------


class TwoInputs(Mixture):
    """The network is given the sensors in two parts, and the number of the instrument."""

    def network_input(self, observation):
        y, _ = keras_sip.split_observation(observation)
        return {"left": y[:, :1], "right": 100.0 * y[:, 1:], "instrument": tf.ones(tf.shape(y)[:1], tf.int32)}


def test_a_network_of_several_inputs_takes_a_dict_each_in_its_own_scale(tmp_path):
    inputs = {
        "left": keras.Input((1,), name="left"),
        "right": keras.Input((2,), name="right"),
        "instrument": keras.Input((), dtype="int32", name="instrument"),
    }
    embedded = keras.layers.Embedding(3, 2)(inputs["instrument"])
    joined = keras.layers.Concatenate()([inputs["left"], inputs["right"], embedded])
    simulator = TwoInputs()
    model = SIPModel(keras.Model(inputs, keras.layers.Dense(2)(joined)), simulator, keras_sip.AnalyticInverse())
    # 256 samples give a root mean square within 4 standard errors, 18 %.
    sizes = np.sqrt(np.sum(MATRIX**2, 0))
    np.testing.assert_allclose(model.input_scale["left"], sizes[:1], rtol=0.18)
    np.testing.assert_allclose(model.input_scale["right"], 100 * sizes[1:], rtol=0.18)
    model.compile(keras.optimizers.Adam(0.05), steps_per_execution=25)
    model.fit(keras_sip.dataset(simulator, 32, seed=0), steps_per_epoch=200, verbose=0)
    # Linear, so that the network can be exact.
    assert model.evaluate(Y, X, verbose=0, return_dict=True)["x_error"] < 0.02
    keras.saving.register_keras_serializable(package="keras_sip_tests")(TwoInputs)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras").predict(Y), model.predict(Y))


def test_a_network_of_two_outputs_is_refused():
    inputs = keras.Input((3,))
    network = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)])
    with pytest.raises(ValueError, match=r"`network` to have one output, x(?s:.*)2 outputs(?s:.*)Concatenate"):
        SIPModel(network, SIMULATOR, keras_sip.AnalyticInverse())


def test_a_frozen_network_predicts_and_refuses_to_be_trained():
    network = keras_sip.MLP(3, 2, (4,), seed=0)
    network.trainable = False
    model = SIPModel(network, SIMULATOR, keras_sip.AnalyticInverse())
    model.compile("sgd", run_eagerly=True)
    assert model.predict(Y, verbose=0).shape == (6, 2)
    with pytest.raises(ValueError, match=r"trainable weights(?s:.*)frozen(?s:.*)trainable = True"):
        model.fit(Y, X, verbose=0)


def test_unknown_options_of_solvers_and_methods_get_three_parts():
    for cls, name in ((keras_sip.GaussNewton, "steps"), (keras_sip.SIP, "solver_steps")):
        with pytest.raises(TypeError, match=rf"Expected options of {cls.__name__}: .*\nReceived {name}=3\.\nCorrect"):
            cls(**{name: 3})
