"""The U-Net: size, structure, independent forward pass, padding, statistics, precision, compilation, saving, errors."""

import warnings

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from keras_sip import UNet


def _random_field(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _trainable_weights(network):
    return sum(int(np.prod(weights.shape)) for weights in network.trainable_variables)


def test_networks_of_the_paper_have_the_published_number_of_weights():
    assert _trainable_weights(UNet((64, 64, 1), 1)) == 37_697
    assert _trainable_weights(UNet((64, 64, 2), 2, levels=5)) == 49_570
    assert _trainable_weights(UNet((64, 64, 2), 2, levels=5, padding="periodic")) == 49_570


@pytest.mark.parametrize(("shape", "levels"), [((8, 24, 3), 3), ((5, 7, 1), 1), ((4, 8, 2), 3)])
@pytest.mark.parametrize("padding", ["zero", "periodic"])
def test_grids_may_be_rectangular_and_as_small_as_one_cell_at_the_bottom(shape, levels, padding):
    network = UNet(shape, 2, levels=levels, filters=4, padding=padding)
    assert network(np.zeros((2, *shape), "float32")).shape == (2, *shape[:2], 2)


@pytest.mark.parametrize(("padding", "boundary"), [("zero", "fill"), ("periodic", "wrap")])
def test_a_double_block_equals_scipy(padding, boundary):
    network = UNet((8, 12, 2), 1, levels=2, filters=3, padding=padding, seed=0)
    block = keras.Model(network.input, network.get_layer("stem_relu_2").output)
    inputs = _random_field((4, 8, 12, 2))

    x = inputs.astype("float64")
    for i in (1, 2):
        convolution, norm = network.get_layer(f"stem_conv_{i}"), network.get_layer(f"stem_norm_{i}")
        norm.gamma.assign(_random_field(3, seed=i))
        norm.beta.assign(_random_field(3, seed=-i % 7))
        x = _scipy_convolution(x, convolution.kernel.numpy(), boundary) + convolution.bias.numpy()
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = (x - mean) / np.sqrt(variance + 1e-5) * norm.gamma.numpy() + norm.beta.numpy()
        x = np.maximum(x, 0)

    # Values near 1 after sums of 27 products in float32, divided by standard deviations of 0.3: 1e-6 was seen.
    np.testing.assert_allclose(block(inputs, training=True), x, atol=1e-5)


def _scipy_convolution(x, kernel, boundary):
    outputs = [
        sum(
            scipy.signal.correlate2d(example[..., i], kernel[:, :, i, j], mode="same", boundary=boundary)
            for i in range(kernel.shape[2])
        )
        for example in x
        for j in range(kernel.shape[3])
    ]
    return np.reshape(outputs, (len(x), kernel.shape[3], *x.shape[1:3])).transpose(0, 2, 3, 1)


def test_the_skip_comes_first_and_the_upsampled_field_second():
    network = UNet((8, 8, 1), 1, levels=2, filters=3, seed=0)
    names = ("stem_relu_2", "down_1_relu_2", "up_1_concatenate")
    skip, below, joined = keras.Model(network.input, [network.get_layer(name).output for name in names])(
        _random_field((2, 8, 8, 1))
    )
    assert np.array_equal(joined[..., :3], skip)
    np.testing.assert_allclose(joined[..., 3:], tf.image.resize(below, (8, 8)), atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_periodic_padding_commutes_with_shifts_by_the_coarsest_cell_and_zero_padding_does_not(training):
    inputs = _random_field((2, 16, 24, 1))
    shift = {"shift": (4, -8), "axis": (1, 2)}
    errors = {}
    for padding in ("periodic", "zero"):
        network = UNet((16, 24, 1), 1, levels=3, filters=4, padding=padding, seed=0)
        network(inputs, training=True)
        shifted_before = network(np.roll(inputs, **shift), training=training)
        shifted_after = np.roll(network(inputs, training=training), **shift)
        errors[padding] = np.abs(shifted_before - shifted_after).max() / np.std(shifted_after)
    # Only the order of float32 sums differs; ten layers of them. A zero at the border is an error of order 1.
    assert errors["periodic"] < 1e-5
    assert errors["zero"] > 0.1


def test_moving_statistics_are_those_of_the_batch_from_the_first_one_on():
    network = UNet((16, 16, 1), 1, levels=3, filters=4, seed=0)
    inputs = 10 * _random_field((8, 16, 16, 1))
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    convolved = keras.Model(network.input, [norm.input for norm in norms] + [network.output])
    *batches, training_output = convolved(inputs, training=True)
    assert len(norms) == 10
    for norm, batch in zip(norms, batches, strict=True):
        batch = batch.numpy().astype("float64")
        mean, variance = batch.mean((0, 1, 2)), batch.var((0, 1, 2), ddof=1)
        # One float32 rounding; the starting values 0 and 1 have left no trace.
        np.testing.assert_allclose(norm.moving_mean, mean, atol=1e-5 * np.sqrt(variance.max()))
        np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-5)
    # Only n / (n - 1) of the variance is left between training and evaluation: 128 values per channel at the bottom.
    deviation = np.abs(network(inputs, training=False) - training_output).max()
    assert deviation < 2e-2 * np.abs(training_output).max()


@pytest.mark.parametrize(
    ("policy", "padding", "tolerance"),
    [
        # Roundings of 6e-8, six norms behind each other.
        ("float32", "zero", 1e-5),
        # Roundings of 5e-4, and a few ReLUs that switch; 1.4 % was seen in the gradient, compiled or not.
        ("mixed_float16", "periodic", 4e-2),
    ],
)
def test_forward_and_backward_under_xla_agree_with_float32_without_it(policy, padding, tolerance):
    inputs = _random_field((64, 8, 8, 1))

    def outputs_and_gradient(network):
        with tf.GradientTape() as tape:
            outputs = network(inputs, training=True)
            objective = tf.reduce_sum(tf.square(outputs - inputs)) / 2
        gradients = tape.gradient(objective, network.trainable_variables)
        return outputs, tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], 0)

    def build():
        return UNet((8, 8, 1), 1, levels=2, filters=4, padding=padding, seed=0)

    reference = outputs_and_gradient(build())
    keras.config.set_dtype_policy(policy)
    try:
        network = build()
    finally:
        keras.config.set_dtype_policy("float32")
    compiled = tf.function(outputs_and_gradient, jit_compile=True)(network)
    for ours, expected in zip(compiled, reference, strict=True):
        assert ours.dtype == tf.float32
        assert np.linalg.norm(ours - expected) < tolerance * np.linalg.norm(expected)


def test_the_head_computes_in_float32_and_the_rest_in_float16(mixed_float16):
    network = UNet((8, 8, 1), 1, levels=2, filters=4)
    assert {layer.compute_dtype for layer in network.layers[1:-1]} == {"float16"}
    assert network(_random_field((1, 8, 8, 1))).dtype == tf.float32


def test_a_float64_field_gives_what_its_float32_cast_gives():
    network = UNet((8, 8, 1), 1, levels=2, filters=4, seed=0)
    field = np.random.default_rng(0).normal(size=(2, 8, 8, 1))
    outputs = network(tf.constant(field))
    assert outputs.dtype == tf.float32
    assert np.array_equal(outputs, network(tf.constant(field, tf.float32)))


def test_kernels_and_biases_start_uniform_within_one_over_the_root_of_fan_in():
    network = UNet((16, 16, 1), 1, levels=2, seed=0)
    layers = _convolutions(network)
    for layer in layers:
        bound = np.prod(layer.kernel.shape[:3]) ** -0.5
        kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
        assert max(np.abs(kernel).max(), np.abs(bias).max()) <= bound
        assert np.abs(bias).max() > 0
        # The variance of a uniform variable is bound^2 / 3; that of n samples scatters by sqrt(0.8 / n) of it.
        np.testing.assert_allclose(kernel.var(), bound**2 / 3, rtol=5 * np.sqrt(0.8 / kernel.size))
    assert sum(layer.kernel.shape[2] == 32 for layer in layers) == 1


def test_equal_seeds_give_equal_weights_and_layers_differ_from_each_other():
    networks = [UNet((8, 8, 1), 1, levels=2, seed=seed) for seed in (3, 3, 4)]
    first, again, other = ([layer.get_weights() for layer in _convolutions(network)] for network in networks)
    for (kernel, bias), (same_kernel, same_bias), (other_kernel, _) in zip(first, again, other, strict=True):
        assert np.array_equal(kernel, same_kernel) and np.array_equal(bias, same_bias)
        assert not np.array_equal(kernel, other_kernel)
    kernels = [kernel for kernel, _ in first if kernel.shape == (3, 3, 16, 16)]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels) == 4


def _convolutions(network):
    return [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("padding", ["zero", "periodic"])
def test_a_saved_network_predicts_the_same_bits_and_nothing_warns(policy, padding, tmp_path, request):
    if policy == "mixed_float16":
        request.getfixturevalue("mixed_float16")
    network = UNet((8, 8, 1), 1, levels=2, filters=4, padding=padding, seed=0)
    inputs = _random_field((4, 8, 8, 1))
    network(inputs, training=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # TensorFlow under NumPy 2
        network.save(tmp_path / "unet.keras")
        loaded = keras.saving.load_model(tmp_path / "unet.keras")
    assert loaded.to_json() == network.to_json()
    for training in (False, True):
        assert np.array_equal(loaded(inputs, training=training), network(inputs, training=training))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, r"(?s)`levels`.*at least 1.*levels=0"),
        ({"filters": 0}, r"(?s)`filters`.*at least 1.*filters=0"),
        ({"output_channels": "1"}, r"(?s)`output_channels`.*integer.*'1' \(str\)"),
        ({"padding": "same"}, r"(?s)'zero', 'periodic'.*padding='same'.*Choose"),
        ({"input_shape": (64, 64)}, r"(?s)\(H, W, C\).*input_shape=\(64, 64\).*\(64, 64, 1\)"),
        ({"input_shape": 64}, r"(?s)\(H, W, C\).*input_shape=64 \(int\)"),
        ({"input_shape": (None, 64, 1)}, r"(?s)`input_shape\[0\]`.*integer.*None"),
        ({"input_shape": (64, 60, 1)}, r"(?s)divisible by 2\^\(levels - 1\) = 8.*\(64, 60, 1\).*fewer levels"),
        ({"seed": "0"}, r"(?s)`seed`.*integer.*'0' \(str\)"),
    ],
)
def test_wrong_arguments_say_expected_received_and_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(**{"input_shape": (64, 64, 1), "output_channels": 1, **arguments})
