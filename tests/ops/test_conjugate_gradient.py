import numpy as np
import pytest
import scipy.sparse.linalg
import tensorflow as tf

from keras_sip.ops import batched, stencils
from keras_sip.ops.conjugate_gradient import cgls, conjugate_gradient
from numerics import laplacian_matrix

# One example of a batch for each: nothing but its own unit may matter to an example.
UNITS = np.array([1e-25, 1e-21, 1.0, 1e25])


def random_batch(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def positive_matrices(examples, size, condition=100.0, seed=0, dtype="float64"):
    """Symmetric positive definite matrices `[B, n, n]` with eigenvalues between 1 / condition and 1."""
    vectors, _ = np.linalg.qr(random_batch(examples, size, size, seed=seed))
    return (vectors * np.geomspace(1 / condition, 1, size) @ vectors.swapaxes(1, 2)).astype(dtype)


def multiplication(matrices):
    matrices = tf.constant(matrices)
    return lambda vectors: tf.linalg.matvec(matrices, vectors)


def transposed_multiplication(matrices):
    return multiplication(np.swapaxes(matrices, 1, 2))


def negative_laplacian(field):
    return -stencils.laplacian(field, 1.0, "dirichlet")


def solve_least_squares(jacobians, residuals, mode=lambda function: function, **arguments):
    arguments = {"damping": 0.0, "max_steps": 200, "tolerance": 1e-12, **arguments}
    jvp, vjp = multiplication(jacobians), transposed_multiplication(jacobians)
    return mode(lambda r: cgls(jvp, vjp, r, **arguments))(tf.constant(residuals))


# Conjugate gradients


def test_cg_solves_each_system_of_a_batch(mode):
    matrices, b = positive_matrices(4, 12), random_batch(4, 12)
    result = mode(lambda b: conjugate_gradient(multiplication(matrices), b, max_steps=100, tolerance=1e-12))(b)
    # A relative residual of 1e-12 times the condition number.
    np.testing.assert_allclose(result.solution, np.linalg.solve(matrices, b[..., None])[..., 0], atol=1e-9)
    assert np.all(result.converged) and np.all(result.residual_norm <= 1e-12)


def test_cg_takes_the_steps_of_scipy():
    b = random_batch(3, 16, 16, 1)
    matrix = -laplacian_matrix((16, 16))
    result = conjugate_gradient(negative_laplacian, tf.constant(b), max_steps=200, tolerance=1e-5)
    for example in range(3):
        residuals = []
        solution, _ = scipy.sparse.linalg.cg(matrix, b[example].ravel(), rtol=1e-5, callback=residuals.append)
        assert abs(result.num_steps[example] - len(residuals)) <= 1
        np.testing.assert_allclose(result.solution[example].numpy().ravel(), solution, atol=1e-3)
    true_residual = batched.norm(negative_laplacian(result.solution) - b) / batched.norm(tf.constant(b))
    np.testing.assert_allclose(result.residual_norm, true_residual, rtol=1e-6)


def test_cg_needs_one_step_per_distinct_eigenvalue():
    matrix = np.diag([1.0, 1.0, 2.0, 2.0, 2.0, 5.0])
    result = conjugate_gradient(multiplication([matrix]), random_batch(1, 6), max_steps=10, tolerance=1e-12)
    assert result.num_steps == 3 and result.converged


def test_cg_solves_a_singular_system_that_has_a_solution():
    """The periodic Laplacian of a field of mean 0: the solution of mean 0."""
    b = random_batch(2, 8, 8, 1)
    b -= b.mean(axis=(1, 2, 3), keepdims=True)

    def matvec(field):
        return -stencils.laplacian(field, 1.0, "periodic")

    result = conjugate_gradient(matvec, tf.constant(b), max_steps=100, tolerance=1e-11)
    assert np.all(result.converged)
    np.testing.assert_allclose(matvec(result.solution), b, atol=1e-9)
    np.testing.assert_allclose(tf.reduce_mean(result.solution, axis=[1, 2, 3]), 0, atol=1e-9)


def test_cg_works_in_any_unit_of_b_in_float32(mode):
    matrices, b = positive_matrices(1, 12, dtype="float32"), random_batch(1, 12, dtype="float32")
    solve = mode(lambda b: conjugate_gradient(multiplication(matrices), b, max_steps=60, tolerance=1e-5))
    result = solve(tf.constant((UNITS[:, None] * b), tf.float32))
    expected = np.linalg.solve(matrices[0].astype("float64"), b[0])
    assert np.all(result.converged)
    # The tolerance times the condition number.
    np.testing.assert_allclose(result.solution / UNITS[:, None], np.tile(expected, (4, 1)), rtol=0, atol=5e-3)


def test_cg_freezes_an_example_that_has_converged():
    """The first example needs fewer steps; the others' further steps do not change one bit of it."""
    matrices = np.concatenate([positive_matrices(1, 12, condition=2.0), positive_matrices(2, 12, condition=1e4)])
    b = random_batch(3, 12)
    long = conjugate_gradient(multiplication(matrices), b, max_steps=100, tolerance=1e-6)
    steps = int(long.num_steps[0])
    assert steps < min(long.num_steps[1:])
    short = conjugate_gradient(multiplication(matrices), b, max_steps=steps, tolerance=1e-6)
    for received, expected in zip(long, short, strict=True):
        np.testing.assert_array_equal(received[0], expected[0])
    assert not np.any(short.converged[1:])


def test_cg_stops_before_a_direction_of_non_positive_curvature(mode):
    """diag(1, 1, -1) and b = (1, 2, 1): the first direction has curvature 4 > 0, the second a negative one."""
    matrices = np.stack([np.diag([1.0, 1.0, -1.0]), np.diag([-1.0, -1.0, -1.0]), np.eye(3)])
    b = np.array([[1.0, 2.0, 1.0]] * 3)
    result = mode(lambda b: conjugate_gradient(multiplication(matrices), b, max_steps=10, tolerance=1e-10))(b)
    np.testing.assert_array_equal(result.converged, [False, False, True])
    np.testing.assert_array_equal(result.num_steps, [1, 0, 1])
    np.testing.assert_allclose(result.solution, [1.5 * b[0], 0 * b[1], b[2]], rtol=1e-14)


def test_cg_of_zero_is_zero_without_a_step():
    result = conjugate_gradient(negative_laplacian, tf.zeros([2, 4, 1]), max_steps=10, tolerance=0.0)
    np.testing.assert_array_equal(result.solution, np.zeros([2, 4, 1]))
    np.testing.assert_array_equal(result.num_steps, [0, 0])
    np.testing.assert_array_equal(result.residual_norm, [0, 0])
    assert np.all(result.converged)


def test_cg_reports_when_the_steps_ran_out():
    result = conjugate_gradient(negative_laplacian, tf.constant(random_batch(2, 16, 1)), max_steps=3, tolerance=1e-10)
    np.testing.assert_array_equal(result.num_steps, [3, 3])
    assert not np.any(result.converged) and np.all(result.residual_norm > 1e-10)


# Least squares


def test_cgls_agrees_with_a_dense_solver(mode):
    jacobians, residuals = random_batch(4, 9, 5), random_batch(4, 9, seed=1)
    result = solve_least_squares(jacobians, residuals, mode)
    for example in range(4):
        expected = np.linalg.lstsq(jacobians[example], -residuals[example])[0]
        np.testing.assert_allclose(result.solution[example], expected, atol=1e-10)
    assert np.all(result.converged)


def test_cgls_of_an_underdetermined_system_is_the_shortest_solution():
    jacobians, residuals = random_batch(3, 4, 7), random_batch(3, 4, seed=1)
    result = solve_least_squares(jacobians, residuals)
    # Of full rank: a cut-off far below its singular values, and far above their rounding.
    expected = [-np.linalg.pinv(j, rcond=1e-10) @ r for j, r in zip(jacobians, residuals, strict=True)]
    np.testing.assert_allclose(result.solution, expected, atol=1e-10)


@pytest.mark.parametrize("per_example", [False, True], ids=["one number", "one per example"])
def test_damped_cgls_agrees_with_lsqr(per_example):
    jacobians, residuals = random_batch(3, 9, 5), random_batch(3, 9, seed=1)
    damping = np.array([0.3, 1.0, 5.0]) if per_example else 0.7
    result = solve_least_squares(jacobians, residuals, damping=damping)
    for example, weight in enumerate(np.broadcast_to(damping, 3)):
        expected = scipy.sparse.linalg.lsqr(
            jacobians[example], -residuals[example], damp=np.sqrt(weight), atol=1e-14, btol=1e-14
        )[0]
        np.testing.assert_allclose(result.solution[example], expected, atol=1e-10)


def test_cgls_acts_on_fields():
    """J = the Laplacian, from fields to fields: d = -J^-1 r."""
    residual = tf.constant(random_batch(2, 6, 5, 1))
    result = cgls(negative_laplacian, negative_laplacian, residual, damping=0.0, max_steps=200, tolerance=1e-12)
    np.testing.assert_allclose(negative_laplacian(result.solution), -residual, atol=1e-9)


def test_every_step_of_cgls_lowers_the_damped_objective():
    jacobians, residuals = random_batch(2, 30, 20), random_batch(2, 30, seed=1)
    objectives = []
    for steps in range(8):
        d = solve_least_squares(jacobians, residuals, damping=0.5, max_steps=steps).solution.numpy()
        misfit = (jacobians @ d[..., None])[..., 0] + residuals
        objectives.append(np.sum(misfit**2, axis=1) + 0.5 * np.sum(d**2, axis=1))
    assert np.all(np.diff(objectives, axis=0) < 0)


def test_cgls_is_more_accurate_than_cg_on_the_normal_equations():
    """The condition number 100 costs two of float32's seven digits, squared as in J^T J it costs four."""
    jacobians = positive_matrices(4, 20, condition=100.0, dtype="float32")
    residuals = random_batch(4, 20, seed=1, dtype="float32") @ jacobians[0]
    product = multiplication(jacobians)
    limits = {"max_steps": 200, "tolerance": 1e-7}

    @tf.function
    def solve(residuals):
        return (
            cgls(product, product, residuals, damping=0.0, **limits),
            conjugate_gradient(lambda v: product(product(v)), -product(residuals), **limits),
        )

    exact = -np.linalg.solve(jacobians.astype("float64"), residuals[..., None].astype("float64"))[..., 0]
    least_squares, normal = (np.linalg.norm(result.solution - exact, axis=1) for result in solve(residuals))
    assert np.mean(least_squares) < 0.2 * np.mean(normal)


def test_cgls_works_in_any_unit_of_x_and_y_in_float32(mode):
    """y -> c y, x -> k x gives r -> c r, J -> (c / k) J, damping -> (c / k)^2 damping and the solution k d."""
    y_units, x_units = (units.ravel() for units in np.meshgrid(UNITS, [1e-4, 1.0, 1e4]))
    damping = np.repeat([0.0, 0.5], len(y_units))
    # Damping has to be representable itself, so its units are less extreme.
    y_units, x_units = np.concatenate([y_units, np.sqrt(y_units)]), np.tile(x_units, 2)
    jacobian, residual = random_batch(9, 5), random_batch(9, seed=1)
    received = solve_least_squares(
        (jacobian * (y_units / x_units)[:, None, None]).astype("float32"),
        (residual * y_units[:, None]).astype("float32"),
        mode,
        damping=(damping * (y_units / x_units) ** 2).astype("float32"),
        tolerance=1e-5,
    )
    assert np.all(received.converged)
    for solution, unit, weight in zip(received.solution.numpy(), x_units, damping, strict=True):
        expected = -np.linalg.solve(jacobian.T @ jacobian + weight * np.eye(5), jacobian.T @ residual)
        np.testing.assert_allclose(solution / unit, expected, rtol=0, atol=2e-5)


def test_cgls_at_the_minimum_stays_there():
    """J^T r = 0 although r is not."""
    jacobians = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]] * 2)
    result = solve_least_squares(jacobians, np.array([[0.0, 0.0, 3.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(result.solution, np.zeros([2, 2]))
    np.testing.assert_array_equal(result.num_steps, [0, 0])
    assert np.all(result.converged)


# Both


def test_bad_numbers_stay_in_their_example(check_examples_are_apart):
    matrices = positive_matrices(3, 12)
    product = multiplication(matrices)

    def solve(b):
        return (
            conjugate_gradient(product, b, max_steps=100, tolerance=1e-8),
            cgls(product, product, b, damping=0.1, max_steps=100, tolerance=1e-8),
        )

    check_examples_are_apart(solve, random_batch(3, 12))


def test_a_broken_operator_ends_its_example_at_zero(mode):
    matrices, b = positive_matrices(4, 12), random_batch(4, 12)
    exact = np.linalg.solve(matrices, b[..., None])[..., 0]
    matrices[1, 3, 4], matrices[2, 5, 6] = np.nan, np.inf
    product = multiplication(matrices)

    def solve(b):
        return (
            conjugate_gradient(product, b, max_steps=100, tolerance=1e-8),
            cgls(product, product, -b, damping=0.0, max_steps=300, tolerance=1e-8),
        )

    for result in mode(solve)(tf.constant(b)):
        np.testing.assert_array_equal(result.converged, [True, False, False, True])
        np.testing.assert_array_equal(result.num_steps[1:3], [0, 0])
        np.testing.assert_array_equal(result.solution[1:3], np.zeros([2, 12]))
        # The tolerance times the condition number, squared for the gradient.
        np.testing.assert_allclose(result.solution.numpy()[::3], exact[::3], atol=1e-4)


def test_a_batch_is_solved_like_its_examples_alone():
    jacobians, residuals = random_batch(3, 9, 5), random_batch(3, 9, seed=1)
    together = solve_least_squares(jacobians, residuals)
    for example in range(3):
        alone = solve_least_squares(jacobians[example, None], residuals[example, None])
        np.testing.assert_allclose(alone.solution[0], together.solution[example], atol=1e-12)
        assert alone.num_steps[0] == together.num_steps[example]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-13)])
def test_cgls_rests_once_all_is_rounding(dtype, tolerance):
    """A residual remains, so that the gradient falls to its rounding only: 300 steps of that must not add up."""
    jacobians, residuals = random_batch(8, 9, 5, dtype=dtype), random_batch(8, 9, seed=1, dtype=dtype)
    result = solve_least_squares(jacobians, residuals, tolerance=0.0, max_steps=300)
    for example in range(8):
        expected = np.linalg.lstsq(np.float64(jacobians[example]), -np.float64(residuals[example]))[0]
        np.testing.assert_allclose(result.solution[example], expected, rtol=0, atol=tolerance)
    assert np.all(result.converged) and np.all(result.num_steps < 30)
