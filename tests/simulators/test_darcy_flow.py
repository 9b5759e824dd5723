"""Darcy flow against sparse solutions, analytic ones and conservation, with derivatives of both kinds."""

import fractions

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf

import keras_sip
from keras_sip.ops import derivatives
from keras_sip.ops.diffusion import solve_diffusion
from numerics import central_difference, relative_error

SEED = (1, 2)


def sparse_solution(log_a, source, spacing):
    """Assembled cell by cell, solved by SciPy."""
    a, (height, width) = np.exp(log_a), log_a.shape
    matrix = scipy.sparse.lil_matrix((a.size, a.size))
    for i, j in np.ndindex(height, width):
        row = i * width + j
        for p, q in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            inside = 0 <= p < height and 0 <= q < width
            flux = 2 * a[i, j] * a[p, q] / (a[i, j] + a[p, q]) if inside else 2 * a[i, j]
            matrix[row, row] += flux
            if inside:
                matrix[row, p * width + q] -= flux
    solution = scipy.sparse.linalg.spsolve(matrix.tocsc(), np.ravel(source * spacing**2 * np.ones_like(a)))
    return solution.reshape(a.shape)


@pytest.mark.parametrize("resolution", [(1, 1), (1, 4), (5, 8), (9, 6), (12, 12)])
@pytest.mark.parametrize("deviation", [1.0, 4.0])
def test_pressure_is_that_of_the_sparse_system(resolution, deviation):
    generator = np.random.default_rng(0)
    log_a, source = deviation * generator.standard_normal((2, *resolution)), generator.standard_normal((2, *resolution))
    received = solve_diffusion(tf.constant(log_a), tf.constant(source), spacing=0.1)
    expected = [sparse_solution(*example, 0.1) for example in zip(log_a, source, strict=True)]
    # Sparse elimination subtracts, and is the less precise one of the two.
    assert relative_error(received, expected) < 1e-12


@pytest.mark.parametrize("cells", [24, 64])
def test_float32_pressure_of_samples_is_right_to_rounding(cells):
    simulator = keras_sip.DarcyFlow((cells, cells), medium="two_phase")
    sample = simulator.sample(1, SEED)
    expected = sparse_solution(np.float64(sample["x"][0, ..., 0]), 1.0, 1 / cells)
    assert relative_error(sample["y"][0, ..., 0], expected) < 1e-6


def test_pressure_converges_with_second_order():
    """-div(e^(s + t) grad u) = f with u = sin(pi s) sin(pi t)."""

    def error(cells):
        s, t = np.meshgrid(*[(np.arange(cells) + 0.5) / cells] * 2, indexing="ij")
        sine, cosine = np.sin, np.cos
        u = sine(np.pi * s) * sine(np.pi * t)
        source = 2 * np.pi**2 * u
        source -= np.pi * (cosine(np.pi * s) * sine(np.pi * t) + sine(np.pi * s) * cosine(np.pi * t))
        received = solve_diffusion((s + t)[None], (np.exp(s + t) * source)[None], spacing=1 / cells)
        return np.max(np.abs(received[0] - u))

    assert np.log2(error(12) / error(24)) == pytest.approx(2.0, abs=0.1)


def test_all_that_the_source_gives_leaves_through_the_boundary():
    x = keras_sip.DarcyFlow((8, 11), dtype="float64").sample(2, SEED)["x"].numpy()[..., 0]
    spacing = 1 / 11
    u, a = solve_diffusion(tf.constant(x), tf.ones([], tf.float64), spacing=spacing).numpy(), np.exp(x)
    edges = [(u * a)[:, 0], (u * a)[:, -1], (u * a)[:, :, 0], (u * a)[:, :, -1]]
    outflow = sum(2 * np.sum(edge, axis=1) for edge in edges)
    np.testing.assert_allclose(outflow, 8 * 11 * spacing**2, rtol=1e-12)


def test_pressure_is_inverse_to_permeability_and_linear_in_the_source():
    simulator = keras_sip.DarcyFlow((6, 5), dtype="float64")
    sample = simulator.sample(2, SEED)
    np.testing.assert_allclose(simulator.forward(sample["x"] + np.log(4.0)), sample["y"] / 4, rtol=1e-12)
    tripled = keras_sip.DarcyFlow((6, 5), dtype="float64", source=-3.0)
    np.testing.assert_allclose(tripled.forward(sample["x"]), -3 * sample["y"], rtol=1e-12)


def test_products_are_right_eagerly_in_graphs_and_under_xla():
    """J v, J^T w, and a Hessian product, which needs the derivative of J^T w."""
    simulator = keras_sip.DarcyFlow((5, 4), dtype="float64", observed=0.7)
    generator = np.random.default_rng(1)
    x, v, w = (tf.constant(generator.standard_normal((2, 5, 4, 1))) for _ in range(3))

    def transposed(x):
        return derivatives.vjp(simulator.forward, x, w)[1]

    def products(x):
        _, product, transposed_product = derivatives.linearize(simulator.forward, x)
        return product(v), transposed_product(w), derivatives.jvp(transposed, x, v)[1]

    def as_numpy(function):
        return lambda x: function(tf.constant(x)).numpy()

    slope = central_difference(as_numpy(simulator.forward), x.numpy(), v.numpy(), 1e-5)
    curvature = central_difference(as_numpy(transposed), x.numpy(), v.numpy(), 1e-5)
    for compiled in (products, tf.function(products), tf.function(products, jit_compile=True)):
        tangent, gradient, second = compiled(x)
        assert relative_error(tangent, slope) < 1e-8
        assert np.sum(gradient * v) == pytest.approx(np.sum(slope * w), rel=1e-8)
        assert relative_error(second, curvature) < 1e-8


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 40.0])
def test_a_bad_example_is_nan_alone_and_raises_nothing(value):
    simulator = keras_sip.DarcyFlow((4, 5))
    x = simulator.sample(3, SEED)["x"].numpy()
    spoiled = x.copy()
    spoiled[1, 2, 2] = value
    for compiled in (simulator.forward, tf.function(simulator.forward)):
        received, gradient = derivatives.vjp(compiled, tf.constant(spoiled), tf.ones((3, 4, 5, 1)))
        expected = simulator.forward(x)
        assert np.all(np.isnan(received[1]))
        np.testing.assert_array_equal(tf.gather(received, [0, 2]), tf.gather(expected, [0, 2]))
        assert np.all(np.isfinite(tf.gather(gradient, [0, 2])))


def test_no_digit_is_lost_at_the_largest_contrast():
    """Against elimination in exact fractions, where plain float64 elimination keeps three digits or none."""
    log_a = 15.0 * np.sign(np.random.default_rng(0).standard_normal((1, 4, 3)))
    received = solve_diffusion(tf.constant(log_a), tf.ones([], tf.float64)).numpy()[0]
    # Powers of e are rounded as the solver rounds them.
    a = [[fractions.Fraction(value) for value in row] for row in np.exp(log_a[0] - np.mean(log_a))]
    cells = list(np.ndindex(4, 3))
    matrix = [[fractions.Fraction(0)] * 12 + [fractions.Fraction(1)] for _ in cells]
    for row, (i, j) in enumerate(cells):
        for p, q in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if (p, q) not in cells:
                matrix[row][row] += 2 * a[i][j]
                continue
            flux = 2 * a[i][j] * a[p][q] / (a[i][j] + a[p][q])
            matrix[row][row] += flux
            matrix[row][cells.index((p, q))] -= flux
    for pivot in range(12):
        for row in range(12):
            if row != pivot:
                factor = matrix[row][pivot] / matrix[pivot][pivot]
                matrix[row] = [m - factor * n for m, n in zip(matrix[row], matrix[pivot], strict=True)]
    exact = np.array([float(matrix[row][12] / matrix[row][row]) for row in range(12)]).reshape(4, 3)
    np.testing.assert_allclose(received, exact * np.exp(-np.mean(log_a)), rtol=1e-11)


def test_samples_are_what_is_said_of_the_media():
    smooth = keras_sip.DarcyFlow((16, 16), deviation=0.5).sample(256, SEED)["x"].numpy()
    # 256 fields of a few independent waves each: five standard deviations of the mean square are 10 %.
    assert np.sqrt(np.mean(smooth**2)) == pytest.approx(0.5, rel=0.1)
    # Neighbours are alike: a sharp field has a correlation near 0.
    assert np.mean(smooth[:, 1:] * smooth[:, :-1]) > 0.9 * np.mean(smooth**2)
    phases = keras_sip.DarcyFlow((16, 16), medium="two_phase").sample(64, SEED)["x"].numpy()
    np.testing.assert_allclose(np.unique(phases), np.log([3.0, 12.0]), rtol=1e-6)
    assert np.mean(phases > 2) == pytest.approx(0.5, abs=0.05)


def test_sensors_are_a_fixed_fraction_of_the_cells():
    everywhere, some = keras_sip.DarcyFlow((10, 10)), keras_sip.DarcyFlow((10, 10), observed=0.1)
    sample = some.sample(3, SEED)
    assert np.sum(some.sensors) == 10
    np.testing.assert_array_equal(sample["y"], everywhere.sample(3, SEED)["y"] * some.sensors.astype("float32"))
    other = keras_sip.DarcyFlow((10, 10), observed=0.1, sensor_seed=1)
    assert np.any(other.sensors != some.sensors)


@pytest.mark.parametrize("arguments", [{"observed": 0.0}, {"observed": 1.5}, {"medium": "rough"}, {"deviation": 0.0}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=f"Expected `{next(iter(arguments))}`"):
        keras_sip.DarcyFlow((4, 4), **arguments)
