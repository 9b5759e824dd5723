import pathlib

import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops import stencils
from numerics import laplacian_matrix

POISSON = pathlib.Path(__file__).parents[1] / "fixtures" / "poisson.npz"
RESOLUTIONS = [(7,), (6, 5), (1, 4), (4, 3, 5)]


def random_field(*shape, dtype="float64"):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_laplacian_is_the_matrix_assembled_cell_by_cell(resolution, boundary, dtype):
    field = random_field(3, *resolution, 2, dtype=dtype)
    matrix = laplacian_matrix(resolution, spacing=0.5, periodic=boundary == "periodic")
    expected = np.moveaxis((matrix @ np.moveaxis(field, 0, -1).reshape(np.prod(resolution), -1)), 0, 1)
    expected = expected.reshape(2, 3, *resolution)
    received = np.moveaxis(stencils.laplacian(tf.constant(field), 0.5, boundary), -1, 0)
    # Entries up to about 100 from sums of seven terms.
    np.testing.assert_allclose(received, expected, rtol=0, atol=1000 * np.finfo(dtype).eps)
    assert received.dtype == dtype


def test_laplacian_agrees_with_an_independent_implementation():
    with np.load(POISSON) as arrays:
        x, y, laplace_y = arrays["x"], arrays["y"], arrays["laplace_y"]
    received = stencils.laplacian(tf.constant(y[..., None]), 1.0, "dirichlet")[..., 0]
    np.testing.assert_allclose(received, laplace_y, rtol=0, atol=1e-13 * np.abs(y).max())
    # y was solved for to 1e-12 relative.
    np.testing.assert_allclose(received, x, rtol=0, atol=1e-9)


def test_laplacian_is_second_order_accurate():
    """On sin(2 pi x) cos(4 pi y), periodic: halving the spacing divides the error by four."""
    errors = []
    for cells in (32, 64):
        centres = (np.arange(cells) + 0.5) / cells
        f = np.sin(2 * np.pi * centres)[:, None] * np.cos(4 * np.pi * centres)
        received = stencils.laplacian(tf.constant(f[None, ..., None]), 1 / cells, "periodic")[0, ..., 0]
        errors.append(np.abs(received + 20 * np.pi**2 * f).max() / np.abs(f).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.02)


def test_spacing_may_differ_between_axes():
    """Exact for a quadratic away from the boundary: the Laplacian of x^2 + 3 y^2 is 8 on any grid."""
    x, y = np.meshgrid(0.5 * np.arange(5), 2.0 * np.arange(6), indexing="ij")
    received = stencils.laplacian(tf.constant((x**2 + 3 * y**2)[None, ..., None]), (0.5, 2.0), "dirichlet")
    np.testing.assert_allclose(received[0, 1:-1, 1:-1, 0], 8, rtol=1e-13)


def test_laplacian_is_the_same_eagerly_in_graphs_and_under_xla(mode):
    field = tf.constant(random_field(3, 8, 9, 2))
    received = mode(lambda f: stencils.laplacian(f, 2.0, "periodic"))(field)
    np.testing.assert_allclose(received, stencils.laplacian(field, 2.0, "periodic"), rtol=0, atol=1e-14)


def test_laplacian_is_symmetric_so_it_is_its_own_gradient():
    """<g, L f> = <L g, f>, the left side by the gradient of TensorFlow."""
    field, cotangent = tf.constant(random_field(2, 6, 7, 1)), tf.constant(random_field(2, 6, 7, 1)[::-1])
    with tf.GradientTape() as tape:
        tape.watch(field)
        value = stencils.laplacian(field, 1.0, "dirichlet")
    gradient = tape.gradient(value, field, output_gradients=cotangent)
    np.testing.assert_allclose(gradient, stencils.laplacian(cotangent, 1.0, "dirichlet"), atol=1e-14)


def test_examples_are_apart(check_examples_are_apart):
    check_examples_are_apart(lambda f: stencils.laplacian(f, 1.0, "periodic"), random_field(3, 9, 8, 1))


def test_an_unknown_boundary_is_refused():
    with pytest.raises(ValueError, match="dirichlet.*periodic.*\n.*'neumann'"):
        stencils.laplacian(tf.zeros([1, 4, 1]), 1.0, "neumann")
