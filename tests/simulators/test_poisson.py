"""Poisson against sparse direct solves, another simulation library and analytic solutions."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg
import tensorflow as tf

import keras_sip
from numerics import laplacian_matrix, relative_error

# A direct solve by fast transforms loses a few digits of rounding, not more.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
FIXTURE = Path(__file__).parents[1] / "fixtures" / "poisson.npz"


def white_noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("resolution, spacing", [((64, 64), 1.0), ((33, 20), 1.0), ((33, 20), 0.5), ((17,), 0.5)])
def test_dirichlet_solution_is_that_of_a_sparse_direct_solver(resolution, spacing, dtype):
    x = white_noise(2, *resolution, 1)
    solve = scipy.sparse.linalg.factorized(laplacian_matrix(resolution, spacing))
    expected = np.reshape([solve(example.ravel()) for example in x], x.shape)
    y = keras_sip.Poisson(resolution, spacing=spacing, dtype=dtype)(x)
    assert y.dtype == dtype
    assert relative_error(y, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("resolution, spacing", [((12, 9), 0.5), ((9, 12), 1.0), ((5, 4, 6), 1.0)])
def test_periodic_solution_is_the_least_squares_one_of_mean_zero(resolution, spacing, dtype):
    x = white_noise(2, *resolution, 1)
    # The pseudo-inverse drops what a singular Laplacian cannot reach and returns the solution without a constant.
    # Its one zero singular value comes out as rounding, near 1e-15 of the largest; the next is above 1e-2 of it.
    pseudo_inverse = np.linalg.pinv(laplacian_matrix(resolution, spacing, periodic=True).toarray(), rcond=1e-10)
    expected = np.reshape([pseudo_inverse @ example.ravel() for example in x], x.shape)
    y = keras_sip.Poisson(resolution, spacing=spacing, boundary="periodic", dtype=dtype)(x)
    assert relative_error(y, expected) < TOLERANCE[dtype]


def test_solution_is_that_of_another_simulation_library():
    fixture = np.load(FIXTURE)
    y = keras_sip.Poisson((64, 64), dtype="float64")(fixture["x"][..., None])
    assert relative_error(y[..., 0], fixture["y"]) < 1e-9  # solved there to 1e-12 of the residual, condition 1.7e3


def test_inverse_is_the_laplacian_of_another_simulation_library():
    fixture = np.load(FIXTURE)
    y = tf.constant(fixture["y"][..., None])
    x = keras_sip.Poisson((64, 64), dtype="float64").inverse(y, tf.zeros_like(y))
    assert relative_error(x[..., 0], fixture["laplace_y"]) < 1e-12


def convergence_rates(error_of, cells):
    errors = [error_of(n) for n in cells]
    return [np.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:], strict=False)]


def test_dirichlet_solution_converges_at_second_order():
    # y is 0 at the centres of the ghost cells, so n + 1 spacings span the domain [0, 1] x [0, 2].
    def bump(s):
        return s * (1 - s) * np.exp(s)

    def bump_curvature(s):
        return -s * (3 + s) * np.exp(s)

    def error(n):
        a = np.arange(1, n) / n
        b = np.arange(1, 2 * n) / n
        exact = bump(a)[:, None] * bump(b / 2)
        x = bump_curvature(a)[:, None] * bump(b / 2) + bump(a)[:, None] * bump_curvature(b / 2) / 4
        y = keras_sip.Poisson(exact.shape, spacing=1 / n, dtype="float64")(x[None, ..., None])
        return np.max(np.abs(y[0, ..., 0] - exact))

    assert convergence_rates(error, (16, 32, 64)) == pytest.approx([2, 2], abs=0.05)


def test_periodic_solution_converges_at_second_order():
    def error(n):
        a, b = (2 * np.pi * np.arange(size) / n for size in (n, 2 * n))
        exact = np.exp(np.sin(a))[:, None] * np.cos(b)
        x = (2 * np.pi) ** 2 * (np.cos(a) ** 2 - np.sin(a) - 1)[:, None] * exact
        simulator = keras_sip.Poisson(exact.shape, spacing=1 / n, boundary="periodic", dtype="float64")
        return np.max(np.abs(simulator(x[None, ..., None])[0, ..., 0] - exact))

    assert convergence_rates(error, (16, 32, 64)) == pytest.approx([2, 2], abs=0.05)


@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
@pytest.mark.parametrize("resolution", [(16, 16), (9, 14), (15,), (4, 6, 5)])
def test_inverse_undoes_forward(resolution, boundary):
    simulator = keras_sip.Poisson(resolution, spacing=0.5, boundary=boundary, dtype="float64")
    x = tf.constant(white_noise(3, *simulator.x_shape))
    assert relative_error(simulator.inverse(simulator.forward(x), x_near=x), x) < 1e-12


def test_periodic_mean_of_x_does_not_act_and_y_has_mean_zero():
    simulator = keras_sip.Poisson((8, 10), boundary="periodic", dtype="float64")
    x = white_noise(2, 8, 10, 1)
    y = simulator(x).numpy()
    assert np.max(np.abs(y.mean(axis=(1, 2, 3)))) < 1e-14
    assert relative_error(simulator(x + 7.0), y) < 1e-12


def test_periodic_inverse_keeps_the_mean_of_the_nearby_x():
    simulator = keras_sip.Poisson((8, 10), boundary="periodic", dtype="float64")
    x_near = white_noise(2, 8, 10, 1) + np.reshape([3.0, -5.0], (2, 1, 1, 1))
    y_target = simulator(white_noise(2, 8, 10, 1, seed=1))
    x = simulator.inverse(y_target, tf.constant(x_near)).numpy()
    assert x.mean(axis=(1, 2, 3)) == pytest.approx(x_near.mean(axis=(1, 2, 3)), rel=1e-12)
    # What is constant in y is noise that no x explains: the Laplacian does not see it.
    assert relative_error(simulator.inverse(y_target + 1.0, tf.constant(x_near)), x) < 1e-12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_solve_the_equation_and_have_mean_zero_and_deviation_one(dtype):
    simulator = keras_sip.Poisson((24, 32), dtype=dtype)
    sample = simulator.sample(5, (0, 0))
    x = sample["x"].numpy().astype("float64")
    assert x.shape == (5, 24, 32, 1)
    assert np.max(np.abs(x.mean(axis=(1, 2, 3)))) < 1e-6
    assert x.std(axis=(1, 2, 3)) == pytest.approx(np.ones(5), abs=1e-6)
    assert np.array_equal(sample["y"], simulator(sample["x"]))


def test_samples_are_a_function_of_the_seed():
    simulator = keras_sip.Poisson((16, 16))

    def x(seed):
        return simulator.sample(2, seed)["x"].numpy()

    assert np.array_equal(x((3, 1)), x((3, 1)))
    assert np.array_equal(x((3, 1)), x(tf.constant([3, 1], tf.int64)))
    assert np.array_equal(x((3, 1)), x(np.array([3, 1])))
    assert np.array_equal(x(3), x(3))
    drawn = [x(seed) for seed in (3, 4, (3, 1), (1, 3), (3, 2))]
    # Independent fields of deviation 1 are about sqrt(2) apart.
    assert all(np.std(a - b) > 0.5 for i, a in enumerate(drawn) for b in drawn[:i])


def test_examples_of_a_sample_differ():
    x = keras_sip.Poisson((16, 16)).sample(4, (0, 0))["x"].numpy()
    assert all(np.std(x[i] - x[j]) > 0.5 for i in range(4) for j in range(i))


def test_samples_of_the_paper_have_unit_scale():
    simulator = keras_sip.Poisson((64, 64))
    sample = simulator.sample(32, (0, 0))
    assert simulator.x_scale == 1.0
    # The reference measured a root mean square of 14.0 over 256 examples; 32 examples scatter by a few per cent.
    assert np.sqrt(np.mean(np.square(sample["y"]))) == pytest.approx(14.0, rel=0.1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"resolution": (8, -2)}, "`resolution` to be an integer of at least 1"),
        ({"resolution": (8, 2.5)}, "Received resolution=2.5 .float."),
        ({"resolution": (8,) * 4}, "along each of 1 or 2 or 3 axes"),
        ({"resolution": ()}, "along each of 1 or 2 or 3 axes"),
        ({"resolution": "64"}, "Received resolution='64'"),
        ({"resolution": (8, 8), "spacing": 0.0}, "`spacing` to be a finite number above 0"),
        ({"resolution": (8, 8), "spacing": float("nan")}, "Received spacing=nan"),
        ({"resolution": (8, 8), "boundary": "neumann"}, "one of 'dirichlet', 'periodic'"),
        ({"resolution": (8, 8), "dtype": "float16"}, "one of 'float32', 'float64'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_sip.Poisson(**arguments)


def test_empty_batch_is_no_sample():
    with pytest.raises(ValueError, match="`batch_size` to be an integer of at least 1"):
        keras_sip.Poisson((8, 8)).sample(0, (0, 0))
