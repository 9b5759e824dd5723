"""The Fourier neural operator: size, independent forward pass, shifts, compilation, training, saving, errors."""

import warnings

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import keras_sip
from keras_sip import FNO
from keras_sip.networks.spectral_layers import SpectralConvolution

# Sums of dozens of products of numbers near 1 in float32.
TOLERANCE = 1e-5


def random_field(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def complex_count(network):
    """Weights, a pair of real numbers that stands for a complex one counted once."""
    return sum(
        int(np.prod(weights.shape)) // (2 if weights.path.endswith("spectral/kernel") else 1)
        for weights in network.trainable_variables
    )


def test_network_of_the_paper_has_the_published_number_of_weights():
    network = FNO((64, 64, 1), 1)
    assert complex_count(network) == 1_188_353
    assert network.count_params() == 2_368_001


def spectral_convolution(x, kernel, modes):
    """In NumPy with complex FFTs; the blocks of the kernel are those of positive and of negative waves."""
    axes = tuple(range(1, x.ndim - 1))
    spectrum = np.fft.rfftn(x, axes=axes)
    result = np.zeros((*spectrum.shape[:-1], kernel.shape[-1]), complex)
    kernel = kernel[0] + 1j * kernel[1]
    if x.ndim == 3:
        result[:, :modes] = np.einsum("bkc,kco->bko", spectrum[:, :modes], kernel[0])
    else:
        for block in (slice(modes), slice(-modes, None)):
            result[:, block, :modes] = np.einsum("blkc,lkco->blko", spectrum[:, block, :modes], kernel[block])
    return np.fft.irfftn(result, s=x.shape[1:-1], axes=axes)


@pytest.mark.parametrize(
    "resolution, modes", [((12, 10), 4), ((7, 9), 3), ((6, 8), 3), ((12,), 5), ((9,), 5), ((8,), 5)]
)
def test_convolution_is_that_of_complex_ffts(resolution, modes):
    layer = SpectralConvolution(3, modes, seed=0)
    x = random_field(2, *resolution, 2)
    received = layer(x)
    layer.kernel.assign(random_field(*layer.kernel.shape, seed=1))
    received = layer(x)
    expected = spectral_convolution(x.astype("float64"), layer.kernel.numpy().astype("float64"), modes)
    np.testing.assert_allclose(received, expected, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("resolution, padding", [((10, 12), 3), ((12, 8), 0), ((20,), 2)])
def test_network_equals_the_formula_in_numpy(resolution, padding):
    modes, layers = 4, 2
    network = FNO((*resolution, 2), 3, modes=modes, width=5, layers=layers, padding=padding, seed=0)
    named = {layer.name: layer for layer in network.layers}
    x = random_field(2, *resolution, 2)

    def dense(name, values):
        return values @ named[name].kernel.numpy().astype("float64") + named[name].bias.numpy()

    def gelu(values):
        return values * (1 + scipy.special.erf(values / np.sqrt(2))) / 2

    places = np.stack(np.meshgrid(*(np.arange(n) / (n - 1) for n in resolution), indexing="ij"), -1)
    v = np.concatenate([x, np.broadcast_to(places, (2, *places.shape))], axis=-1).astype("float64")
    v = np.pad(dense("lift", v), [(0, 0), *[(0, padding)] * len(resolution), (0, 0)])
    for i in range(1, layers + 1):
        kernel = named[f"layer_{i}_spectral"].kernel.numpy().astype("float64")
        v = spectral_convolution(v, kernel, modes) + dense(f"layer_{i}_local", v)
        v = gelu(v) if i < layers else v
    v = v[(slice(None), *(slice(n) for n in resolution))]
    expected = dense("head", gelu(dense("project", v)))
    np.testing.assert_allclose(network(x), expected, atol=TOLERANCE * np.abs(expected).max())


def test_convolution_commutes_with_shifts():
    layer, x = SpectralConvolution(2, 3, seed=0), random_field(2, 8, 9, 2)
    shift = {"shift": (3, -2), "axis": (1, 2)}
    expected = np.roll(layer(x), **shift)
    np.testing.assert_allclose(layer(np.roll(x, **shift)), expected, atol=TOLERANCE * np.abs(expected).max())


def test_forward_and_backward_under_xla_agree_with_those_without():
    network, x = FNO((8, 8, 1), 1, modes=3, width=4, layers=2, padding=2, seed=0), random_field(2, 8, 8, 1)

    def gradients(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(network(x)))
        return [loss, *tape.gradient(loss, network.trainable_variables)]

    expected = tf.function(gradients)(x)
    received = tf.function(gradients, jit_compile=True)(x)
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE * np.abs(b).max())


def test_kernels_start_uniform_between_zero_and_one_over_the_product_of_channels():
    layer = SpectralConvolution(4, 8, seed=0)
    layer.build((None, 16, 16, 5))
    assert layer.kernel.shape == (2, 16, 8, 5, 4)
    assert 0 <= np.min(layer.kernel) < np.max(layer.kernel) <= 1 / 20
    assert np.mean(layer.kernel) == pytest.approx(1 / 40, rel=0.05)
    kernels = [
        layer.kernel.numpy() for layer in FNO((16, 1), 1, modes=4, width=3, seed=0).layers if "spectral" in layer.name
    ]
    assert not any(np.array_equal(kernels[0], other) for other in kernels[1:])


def test_equal_seeds_give_equal_weights():
    first, again, other = (FNO((8, 8, 1), 1, modes=2, width=3, seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_trained_model_saves_loads_and_exports(tmp_path):
    simulator = keras_sip.Heat((8, 8), diffusion=0.2)
    network = FNO(simulator.y_shape, 1, modes=3, width=4, layers=2, padding=1, seed=0)
    model = keras_sip.SIPModel(network, simulator, keras_sip.DampedSpectralInverse(), input_scale=1.0)
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(keras_sip.dataset(simulator, 4, 0), steps_per_epoch=2, verbose=0)
    y, _ = keras_sip.evaluation_set(simulator, 3, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # TensorFlow under NumPy 2
        model.save(tmp_path / "fno.keras")
        loaded = keras.saving.load_model(tmp_path / "fno.keras")
    assert np.array_equal(loaded(y), model(y))
    keras_sip.export_saved_model(model, tmp_path / "exported")
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.signatures["infer"](y=y)["x"], model(y), atol=TOLERANCE)


def test_layers_compute_in_float16_and_the_output_in_float32(mixed_float16):
    network = FNO((8, 8, 1), 1, modes=2, width=3, layers=1, padding=0)
    assert network.get_layer("layer_1_spectral").compute_dtype == "float16"
    assert network(random_field(2, 8, 8, 1)).dtype == tf.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (8, 8, 8, 1)}, r"(?s)`input_shape` to be \(H, W, C\) or \(N, C\).*Give"),
        ({"input_shape": (8, 0, 1)}, r"(?s)`input_shape\[1\]`.*at least 1"),
        ({"modes": 0}, r"(?s)`modes`.*at least 1.*modes=0"),
        ({"modes": 6, "padding": 3}, r"(?s)`modes` of at most 5 on a \(padded\) grid of 11 x 11 cells.*modes=6.*fewer"),
        ({"padding": -1}, r"(?s)`padding`.*at least 0"),
        ({"layers": 1.5}, r"(?s)`layers`.*1.5 \(float\)"),
    ],
)
def test_wrong_arguments_say_expected_received_and_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        FNO(**{"input_shape": (8, 8, 1), "output_channels": 1, "modes": 3, **arguments})
