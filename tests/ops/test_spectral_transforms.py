import pathlib

import numpy as np
import pytest
import scipy.fft
import tensorflow as tf

from keras_sip.ops import spectral_transforms as transforms
from keras_sip.ops import stencils
from numerics import laplacian_matrix

POISSON = pathlib.Path(__file__).parents[1] / "fixtures" / "poisson.npz"
LONG = transforms.LONGEST_MATRIX_AXIS + 1  # transformed by an FFT, shorter axes by a matrix
RESOLUTIONS = [(8,), (7,), (6, 5), (5, 8), (4, 6, 5), (5, 3, 4)]


def random_field(*shape, dtype="float64"):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


# Sine transform


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("resolution", [(7,), (6, 5), (64, 64), (3, 4, 5), (LONG,), (LONG, 3), (3, LONG)], ids=str)
def test_sine_transform_agrees_with_scipy(resolution, dtype):
    field = random_field(2, *resolution, 2, dtype=dtype)
    axes = range(1, 1 + len(resolution))
    received = transforms.sine_transform(tf.constant(field), axes)
    expected = scipy.fft.dstn(field.astype("float64"), type=1, norm="ortho", axes=axes)
    # Orthonormal: numbers near 1 stay near 1; sums of 400 of them lose about sqrt(400) roundings.
    np.testing.assert_allclose(received, expected, rtol=0, atol=40 * np.finfo(dtype).eps)
    assert received.dtype == dtype


def operations(function, field):
    graph = tf.function(function).get_concrete_function(field).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize("allowed", [True, False])
def test_products_that_a_gpu_would_round_are_avoided(monkeypatch, allowed):
    """TensorFlow rounds the factors of float32 products to 10 bits on such GPUs, where that is allowed."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"] if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "tensor_float_32_execution_enabled", lambda: allowed)
    field = tf.constant(random_field(2, 7, 6, 1, dtype="float32"))

    def transform(field):
        return transforms.sine_transform(field, (1, 2))

    assert ("RFFT" in operations(transform, field)) == allowed
    assert "RFFT" not in operations(transform, tf.cast(field, tf.float64))
    expected = scipy.fft.dstn(field.numpy().astype("float64"), type=1, norm="ortho", axes=(1, 2))
    np.testing.assert_allclose(transform(field), expected, rtol=0, atol=40 * np.finfo("float32").eps)


@pytest.mark.parametrize("resolution", [(8, 9), (LONG, 4)], ids=str)
def test_sine_transform_is_its_own_inverse_and_transpose(resolution):
    field, other = tf.constant(random_field(2, *resolution, 1)), tf.constant(random_field(2, *resolution, 1)[::-1])
    with tf.GradientTape() as tape:
        tape.watch(field)
        modes = transforms.sine_transform(field, (1, 2))
    np.testing.assert_allclose(transforms.sine_transform(modes, (1, 2)), field, atol=1e-14)
    transposed = tape.gradient(modes, field, output_gradients=other)
    np.testing.assert_allclose(transposed, transforms.sine_transform(other, (1, 2)), atol=1e-14)


def test_sine_transform_may_take_one_axis_only():
    field = random_field(2, 5, 6, 3)
    expected = scipy.fft.dst(field, type=1, norm="ortho", axis=1)
    np.testing.assert_allclose(transforms.sine_transform(tf.constant(field), (1,)), expected, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("resolution", [(7,), (6, 5), (3, 4, 5), (LONG,), (LONG, 3), (3, LONG)], ids=str)
def test_cosine_transforms_agree_with_scipy_and_undo_each_other(resolution, dtype):
    field = random_field(2, *resolution, 2, dtype=dtype)
    axes = range(1, 1 + len(resolution))
    received = transforms.cosine_transform(tf.constant(field), axes)
    expected = scipy.fft.dctn(field.astype("float64"), type=2, norm="ortho", axes=axes)
    np.testing.assert_allclose(received, expected, rtol=0, atol=40 * np.finfo(dtype).eps)
    back = transforms.inverse_cosine_transform(received, axes)
    np.testing.assert_allclose(back, field, rtol=0, atol=40 * np.finfo(dtype).eps)
    assert back.dtype == dtype


@pytest.mark.parametrize("basis, boundary", [("fourier", "periodic"), ("sine", "dirichlet")])
@pytest.mark.parametrize("resolution", RESOLUTIONS, ids=str)
def test_frequencies_give_the_eigenvalues_of_the_laplacian(resolution, basis, boundary):
    """-(2 sin(pi q dx) / dx)^2 summed over the axes: two descriptions of the same modes."""
    frequencies = transforms.mode_frequencies(resolution, 0.5, basis)
    received = -sum(np.square(2 * np.sin(np.pi * q * 0.5) / 0.5) for q in frequencies)
    expected = transforms.laplacian_eigenvalues(resolution, 0.5, boundary, "float64")
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-12)


def test_cosine_frequencies_are_half_periods_of_the_domain():
    (q,) = transforms.mode_frequencies((5,), 0.5, "cosine")
    np.testing.assert_allclose(q, np.arange(5) / (2 * 2.5))
    with pytest.raises(ValueError, match="'fourier', 'sine', 'cosine'.*\n.*'wavelet'"):
        transforms.mode_frequencies((5,), 0.5, "wavelet")


# Fourier


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("resolution", RESOLUTIONS, ids=str)
def test_fourier_modes_agree_with_numpy_and_are_inverted(mode, resolution, dtype):
    field = random_field(2, *resolution, 3, dtype=dtype)
    modes = mode(transforms.fourier_modes)(tf.constant(field))
    expected = np.fft.rfftn(np.moveaxis(field, -1, 1), axes=range(2, 2 + len(resolution)))
    np.testing.assert_allclose(modes, expected, rtol=0, atol=100 * np.finfo(dtype).eps)
    back = mode(lambda modes: transforms.field_from_modes(modes, resolution))(modes)
    np.testing.assert_allclose(back, field, rtol=0, atol=20 * np.finfo(dtype).eps)
    assert back.dtype == dtype


@pytest.mark.parametrize("resolution", RESOLUTIONS, ids=str)
def test_periodic_filter_is_exact_diffusion(mode, resolution):
    """A wave cos(2 pi n.j / N) is an eigenvector: diffused by t it is multiplied by exp(-4 pi^2 |n / (N dx)|^2 t)."""
    spacing, time = 0.5, 0.03
    wave_vector = np.array([1, -1, 1][: len(resolution)])
    cells = np.stack(np.meshgrid(*map(np.arange, resolution), indexing="ij"), axis=-1)
    wave = np.cos(2 * np.pi * cells @ (wave_vector / resolution))[None, ..., None]
    transfer = np.exp(-4 * np.pi**2 * transforms.squared_frequencies(resolution, spacing) * time)
    received = mode(lambda field: transforms.periodic_filter(field, transfer))(tf.constant(wave))
    factor = np.exp(-4 * np.pi**2 * np.sum((wave_vector / resolution / spacing) ** 2) * time)
    np.testing.assert_allclose(received, factor * wave, rtol=0, atol=1e-14)


@pytest.mark.parametrize("resolution", RESOLUTIONS, ids=str)
def test_periodic_filter_is_symmetric_in_every_dimension(mode, resolution):
    """Its transpose, by TensorFlow's gradient, is itself."""
    field, other = random_field(2, *resolution, 2), random_field(2, *resolution, 2)[::-1].copy()
    transfer = 1 / (1 + transforms.squared_frequencies(resolution))

    def transpose(field, other):
        with tf.GradientTape() as tape:
            tape.watch(field)
            value = transforms.periodic_filter(field, transfer)
        return tape.gradient(value, field, output_gradients=other)

    received = mode(transpose)(tf.constant(field), tf.constant(other))
    np.testing.assert_allclose(received, transforms.periodic_filter(tf.constant(other), transfer), atol=1e-14)


def test_periodic_filter_takes_a_transfer_function_for_each_example():
    field = random_field(2, 6, 5, 1)
    received = transforms.periodic_filter(tf.constant(field), np.reshape([2.0, 3.0], [2, 1, 1, 1]))
    np.testing.assert_allclose(received, [2 * field[0], 3 * field[1]], atol=1e-14)


# Eigenvalues


@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
@pytest.mark.parametrize("resolution", RESOLUTIONS, ids=str)
def test_laplacian_is_diagonal_in_the_modes_of_its_boundary(resolution, boundary):
    spacing = np.array([0.5, 2.0, 1.5][: len(resolution)])
    field = tf.constant(random_field(2, *resolution, 2))
    eigenvalues = transforms.laplacian_eigenvalues(resolution, spacing, boundary, "float64")
    if boundary == "periodic":
        received = transforms.periodic_filter(field, eigenvalues)
    else:
        axes = range(1, 1 + len(resolution))
        modes = transforms.sine_transform(field, axes)
        received = transforms.sine_transform(modes * eigenvalues[..., None], axes)
    np.testing.assert_allclose(received, stencils.laplacian(field, spacing, boundary), rtol=0, atol=1e-12)


def test_eigenvalues_are_those_of_the_matrix():
    matrix = laplacian_matrix((6, 5), spacing=0.5).toarray()
    received = np.sort(transforms.laplacian_eigenvalues((6, 5), 0.5, "dirichlet", "float64").ravel())
    np.testing.assert_allclose(received, np.linalg.eigvalsh(matrix), rtol=1e-12)


def test_eigenvalues_of_the_paper_s_grid_span_the_known_range():
    eigenvalues = transforms.laplacian_eigenvalues((64, 64), 1.0, "dirichlet", "float32")
    assert eigenvalues.dtype == np.float32
    assert -eigenvalues.max() == pytest.approx(0.00467, abs=5e-6)
    assert -eigenvalues.min() == pytest.approx(7.9953, abs=5e-5)


def test_constant_is_in_the_null_space_of_the_periodic_laplacian():
    eigenvalues = transforms.laplacian_eigenvalues((6, 5), 1.0, "periodic", "float64")
    assert np.argwhere(eigenvalues == 0).tolist() == [[0, 0]]


def test_direct_solution_agrees_with_an_independent_iterative_one():
    with np.load(POISSON) as arrays:
        x, y = arrays["x"], arrays["y"]
    eigenvalues = transforms.laplacian_eigenvalues((64, 64), 1.0, "dirichlet", "float64")
    modes = transforms.sine_transform(tf.constant(x), (1, 2))
    solution = transforms.sine_transform(modes / eigenvalues, (1, 2))
    # The other one was solved to 1e-12 of the residual; the condition number is 1712.
    np.testing.assert_allclose(solution, y, rtol=0, atol=1e-9 * np.abs(y).max())


# Modes of execution, batches, bad input


@pytest.mark.parametrize("resolution", [(8, 9), (4, LONG)], ids=str)
def test_sine_transform_is_the_same_eagerly_in_graphs_and_under_xla(mode, resolution):
    field = tf.constant(random_field(3, *resolution, 1))
    received = mode(lambda field: transforms.sine_transform(field, (1, 2)))(field)
    np.testing.assert_allclose(received, transforms.sine_transform(field, (1, 2)), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "function",
    [
        lambda field: transforms.sine_transform(field, (1, 2)),
        lambda field: transforms.periodic_filter(field, 1 / (1 + transforms.squared_frequencies(field.shape[1:3]))),
    ],
    ids=["sine_transform", "periodic_filter"],
)
@pytest.mark.parametrize("resolution", [(12, 9), (LONG, 4)], ids=str)
def test_examples_are_apart(check_examples_are_apart, function, resolution):
    field = random_field(3, *resolution, 1)
    check_examples_are_apart(function, field)
    one_by_one = tf.concat([function(tf.constant(field[i : i + 1])) for i in range(3)], axis=0)
    np.testing.assert_allclose(function(tf.constant(field)), one_by_one, rtol=0, atol=1e-14)


def test_an_unknown_boundary_is_refused():
    with pytest.raises(ValueError, match="dirichlet.*periodic.*\n.*'neumann'"):
        transforms.laplacian_eigenvalues((4,), 1.0, "neumann", "float32")
