import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_sip.ops import random_fields

PAPER_SHAPE = (1024, 64, 64, 1)


@pytest.fixture(scope="module")
def paper_noise():
    """Noise with the paper's settings: 64 x 64 cells of width 1, scale 10."""
    return random_fields.smooth_noise(PAPER_SHAPE, seed=3).numpy()


def noise_as_defined(shape, scale, smoothness, seed):
    """The definition word for word, in NumPy: complex noise without symmetry, a full complex FFT, its real part."""
    random = np.random.default_rng(seed)
    axes = tuple(range(1, len(shape) - 1))
    modes = random.normal(size=shape) + 1j * random.normal(size=shape)
    frequencies = np.meshgrid(*(np.fft.fftfreq(cells) for cells in shape[1:-1]), indexing="ij")
    squared = sum((scale * q) ** 2 for q in frequencies)
    kept = squared > 0.1
    modes *= np.where(kept, np.where(kept, squared, 1.0) ** -smoothness, 0)[None, ..., None]
    field = np.fft.ifftn(modes, axes=axes).real
    all_axes = tuple(range(1, len(shape)))
    field /= field.std(axis=all_axes, keepdims=True)
    return field - field.mean(axis=all_axes, keepdims=True)


# Distribution


@pytest.mark.parametrize("shape", [(4, 64, 64, 1), (3, 64, 64, 2), (3, 128, 1), (2, 16, 15, 12, 1)], ids=str)
def test_each_example_has_mean_0_and_standard_deviation_1(shape):
    noise = random_fields.smooth_noise(shape, seed=0, dtype="float64").numpy().reshape(shape[0], -1)
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=1e-14)
    np.testing.assert_allclose(noise.std(axis=1), 1, rtol=1e-14)


def test_marginal_distribution_is_that_of_the_definition(paper_noise):
    # Means over 1,024 examples; one example's E|f| scatters by 0.015 and its kurtosis by 0.3: four standard errors.
    assert np.abs(paper_noise).mean() == pytest.approx(0.803, abs=0.002)
    assert (paper_noise**4).mean() == pytest.approx(2.87, abs=0.04)


def test_power_lies_in_the_shells_of_the_definition(paper_noise):
    power = np.mean(np.abs(np.fft.fft2(paper_noise[..., 0])) ** 2, axis=0)
    squared = np.add.outer(*[(64 * np.fft.fftfreq(64)) ** 2] * 2).round()
    share = {shell: power[squared == shell].sum() / power.sum() for shell in range(14)}
    assert all(share[shell] < 1e-10 for shell in range(5))  # dropped: |kappa|^2 <= 0.1
    # A shell of m modes holds m / 2 independent exponential powers: its share scatters by at most a relative
    # sqrt(2 / m) in one example. Four standard errors over 1,024 examples.
    for shell, expected in {5: 0.400, 8: 0.077, 9: 0.066, 10: 0.105, 13: 0.063}.items():
        scatter = expected * np.sqrt(2 / np.sum(squared == shell) / len(paper_noise))
        assert share[shell] == pytest.approx(expected, abs=4 * scatter + 5e-4), shell


@pytest.mark.parametrize("resolution", [(8,), (7,), (6, 5), (5, 6), (4, 3, 4)], ids=str)
def test_every_mode_has_the_variance_of_the_definition(resolution):
    """Also those that are their own conjugates (mean and Nyquist waves), where real and complex noise differ."""
    shape = (20_000, *resolution, 1)
    axes = tuple(range(1, 1 + len(resolution)))
    received = random_fields.smooth_noise(shape, seed=1, scale=3.0, smoothness=0.5, dtype="float64").numpy()
    defined = noise_as_defined(shape, scale=3.0, smoothness=0.5, seed=1)
    for part in (np.real, np.imag):
        variances = [np.mean(part(np.fft.fftn(noise, axes=axes)) ** 2, axis=0) for noise in (received, defined)]
        # The variance of a Gaussian from n numbers has a standard error of sqrt(2 / n) = 1 %; the difference of two
        # such, 1.4 %; 5 of those. The floor is for parts that vanish.
        np.testing.assert_allclose(*variances, rtol=5 * np.sqrt(4 / shape[0]), atol=1e-12)


def test_noise_scales_with_the_cell_width():
    """Twice the cells of half the width see the same waves: only scale / spacing matters."""
    noise = random_fields.smooth_noise((2, 32, 32, 1), seed=0, spacing=2.0, scale=20.0, dtype="float64")
    np.testing.assert_allclose(noise, random_fields.smooth_noise((2, 32, 32, 1), seed=0, dtype="float64"), atol=1e-12)


def test_a_scale_that_the_grid_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"scale=0\.1.*\n.*larger `scale`"):
        random_fields.smooth_noise((1, 8, 8, 1), seed=0, scale=0.1)


# Reproducibility


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 64, 64, 1), (3, 7, 5, 1)], ids=str)
def test_noise_is_the_same_eagerly_in_graphs_and_under_xla(mode, shape, dtype):
    received = mode(lambda: random_fields.smooth_noise(shape, 5, dtype=dtype))()
    expected = random_fields.smooth_noise(shape, 5, dtype=dtype)
    np.testing.assert_allclose(received, expected, rtol=0, atol=100 * np.finfo(dtype).eps)
    assert received.shape == shape and received.dtype == dtype


def test_noise_is_the_same_on_every_machine_and_version():
    noise = random_fields.smooth_noise((2, 8, 8, 1), seed=(7, 11), scale=4.0)
    np.testing.assert_allclose(noise[1, 2, 3:6, 0], [-0.435723, -1.336936, -1.557392], atol=1e-5)


def test_single_precision_is_the_rounded_double_precision():
    single = random_fields.smooth_noise((4, 64, 64, 1), seed=0)
    double = random_fields.smooth_noise((4, 64, 64, 1), seed=0, dtype="float64")
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5)


@pytest.mark.parametrize("resolution", [(8, 8), (7, 5)], ids=str)
def test_an_example_does_not_depend_on_the_size_of_its_batch(resolution):
    large = random_fields.smooth_noise((5, *resolution, 1), seed=0, dtype="float64")
    small = random_fields.smooth_noise((2, *resolution, 1), seed=0, dtype="float64")
    np.testing.assert_allclose(small, large[:2], rtol=0, atol=1e-13)


def test_examples_and_seeds_are_independent():
    """Correlations of white noise over 4,096 cells have a standard error of 1 / 64."""
    noise = tf.concat([random_fields.normal((3, 64, 64, 1), seed) for seed in (0, 1, (1, 0))], axis=0)
    correlations = np.corrcoef(noise.numpy().reshape(9, -1))
    assert np.abs(correlations - np.eye(9)).max() < 5 / 64


# Seeds


def test_equal_seeds_in_different_forms_are_one_seed():
    expected = [0, 5]
    for seed in (5, (0, 5), np.int32(5), tf.constant(5), np.array([0, 5]), tf.constant([0, 5]), (0, tf.constant(5))):
        received = random_fields.as_seed(seed)
        assert received.dtype == tf.int64
        np.testing.assert_array_equal(received, expected)
    np.testing.assert_array_equal(random_fields.as_seed(-1), random_fields.as_seed(tf.constant(-1)))


def test_large_integers_are_distinct_seeds():
    seeds = [0, 2**31, 2**32, 2**63, 2**64 - 1, 2**64, 2**127, 2**128 - 2, -(2**70)]
    assert len({tuple(random_fields.as_seed(seed).numpy()) for seed in seeds}) == len(seeds)
    np.testing.assert_array_equal(random_fields.as_seed((2**64 - 1, 2**63)), [-1, -(2**63)])


@pytest.mark.parametrize("seed", [2**128, 1.5, True, "0", (1, 2, 3), (0.5, 1), np.zeros(3, int)], ids=str)
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises((TypeError, ValueError), match="Expected .*seed(.|\n)*Received"):
        random_fields.as_seed(seed)


def test_split_seeds_are_distinct_and_reproducible(mode):
    seeds = mode(lambda: random_fields.split_seed(3, 100))()
    assert seeds.shape == (100, 2)
    assert len(np.unique(seeds, axis=0)) == 100
    np.testing.assert_array_equal(seeds, random_fields.split_seed(3, 100))
    assert not np.array_equal(seeds, random_fields.split_seed(4, 100))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_numbers_are_standard_and_the_same_under_xla(dtype):
    shape = (64, 16, 17)

    def draw():
        return random_fields.normal(shape, (3, 4), dtype=dtype)

    eager, graph, xla = draw().numpy(), tf.function(draw)().numpy(), tf.function(draw, jit_compile=True)().numpy()
    # Libraries' logarithms and cosines may differ in the last bit of float64.
    tolerance = {"float32": 0.0, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(graph, eager, rtol=0, atol=tolerance)
    np.testing.assert_allclose(xla, eager, rtol=0, atol=tolerance)
    assert scipy.stats.kstest(eager.ravel(), "norm").pvalue > 0.01
    np.testing.assert_array_equal(random_fields.normal(tf.constant(shape), (3, 4), dtype=dtype), eager)
