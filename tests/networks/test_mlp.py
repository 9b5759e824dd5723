"""The multilayer perceptron: size, initial weights, output, saving, errors."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sip import MLP


def test_networks_of_the_paper_have_the_published_number_of_weights():
    assert MLP(2, 2).count_params() == 4_354
    assert MLP(1, 1, (16, 64, 16), activation="sigmoid").count_params() == 2_177


@pytest.mark.parametrize("hidden", [(5, 3), [4], ()])
def test_output_equals_the_formula_in_numpy(hidden):
    network = MLP(2, 3, hidden, activation="tanh", seed=1)
    inputs = np.random.default_rng(0).normal(size=(7, 2)).astype("float32")
    expected = inputs.astype("float64")
    *layers, head = network.layers[1:]
    for layer in layers:
        expected = np.tanh(expected @ layer.kernel.numpy() + layer.bias.numpy())
    expected = expected @ head.kernel.numpy() + head.bias.numpy()
    # Sums of at most 5 products of numbers near 1: a few float32 roundings of 6e-8.
    np.testing.assert_allclose(network(inputs), expected, atol=1e-6)


def test_kernels_and_biases_start_uniform_within_one_over_the_root_of_fan_in():
    for layer in MLP(2, 2, (400, 400), seed=0).layers[1:]:
        bound = layer.kernel.shape[0] ** -0.5
        for weights in (layer.kernel.numpy(), layer.bias.numpy()):
            assert np.abs(weights).max() <= bound
            if weights.size >= 400:
                # The variance of a uniform variable is bound^2 / 3; that of n samples scatters by sqrt(0.8 / n) of it,
                # 4.5 % at n = 400.
                np.testing.assert_allclose(weights.var(), bound**2 / 3, rtol=5 * np.sqrt(0.8 / weights.size))


def test_equal_seeds_give_equal_weights_and_layers_differ_from_each_other():
    first, again, other = (MLP(4, 4, (4,), seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert not np.array_equal(first[0], first[2])


def test_without_a_seed_the_random_state_of_keras_decides():
    networks = []
    for seed in (5, 5, 6):
        keras.utils.set_random_seed(seed)
        networks.append(MLP(2, 2).get_weights())
    first, again, other = networks
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_hidden_layers_compute_in_float16_and_the_output_in_float32(mixed_float16):
    network = MLP(2, 2, (8,))
    assert network.get_layer("hidden_1").compute_dtype == "float16"
    assert network(np.ones((3, 2), "float32")).dtype == tf.float32


def test_a_saved_network_predicts_the_same_bits_and_nothing_warns(tmp_path):
    network = MLP(2, 2, seed=0)
    inputs = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # TensorFlow under NumPy 2
        network.save(tmp_path / "mlp.keras")
        loaded = keras.saving.load_model(tmp_path / "mlp.keras")
    assert np.array_equal(loaded(inputs), network(inputs))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 0}, r"(?s)`input_size`.*at least 1.*input_size=0"),
        ({"output_size": 1.5}, r"(?s)`output_size`.*output_size=1.5 \(float\)"),
        ({"hidden": 32}, r"(?s)`hidden`.*tuple.*hidden=32 \(int\).*hidden=\(32,\)"),
        ({"hidden": (32, -1)}, r"(?s)`hidden\[1\]`.*at least 1.*-1"),
        ({"activation": "rleu"}, r"(?s)`activation`.*name of a Keras activation.*'rleu'.*Choose"),
        ({"seed": -1}, r"(?s)`seed`.*at least 0.*seed=-1"),
    ],
)
def test_wrong_arguments_say_expected_received_and_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"input_size": 2, "output_size": 2, **arguments})
