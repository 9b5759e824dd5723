import numpy as np
import pytest
import tensorflow as tf

from keras_sip import ops
from keras_sip.ops import derivatives

BATCH, ROWS, SIZE = 5, 4, 3


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def dense():
    matrix = random(BATCH, SIZE, SIZE)
    # Rows of very different size: no reason to call a matrix singular.
    matrix *= np.array([1.0, 1e-12, 1e9])[:, None]
    return ops.solve, (matrix,), matrix, (SIZE,)


def positive_definite():
    root = random(BATCH, SIZE, SIZE)
    matrix = (root @ root.transpose(0, 2, 1) + np.eye(SIZE)) * 1e-15
    matrix *= np.outer([1.0, 1e-4, 1e3], [1.0, 1e-4, 1e3])
    return ops.cholesky_solve, (matrix,), matrix, (SIZE,)


def block_tridiagonal():
    lower, upper = 0.3 * random(2, BATCH, ROWS - 1, SIZE, SIZE)
    diagonal = random(BATCH, ROWS, SIZE, SIZE, seed=1) + 5 * np.eye(SIZE)
    matrix = np.zeros((BATCH, ROWS, SIZE, ROWS, SIZE))
    for row in range(ROWS):
        matrix[:, row, :, row] = diagonal[:, row]
    for row in range(ROWS - 1):
        matrix[:, row + 1, :, row], matrix[:, row, :, row + 1] = lower[:, row], upper[:, row]
    solve = ops.solve_block_tridiagonal
    return solve, (lower, diagonal, upper), matrix.reshape(BATCH, ROWS * SIZE, ROWS * SIZE), (ROWS, SIZE)


SYSTEMS = pytest.mark.parametrize("system", [dense, positive_definite, block_tridiagonal], ids=lambda s: s.__name__)


@SYSTEMS
def test_solution_is_numpys_and_singular_examples_are_nan(mode, system):
    solve, parts, matrix, shape = system()
    rhs = random(BATCH, *shape, 2, seed=2)
    expected = np.linalg.solve(matrix, rhs.reshape(BATCH, -1, 2)).reshape(rhs.shape)
    largest = np.max(np.abs(expected), axis=-1, keepdims=True)
    solve = mode(solve)

    def solved(parts):
        return solve(*(tf.constant(part) for part in (*parts, rhs))).numpy()

    received = solved(parts)
    # The condition number, below 100 once rows are scaled, times rounding; of each component by itself.
    np.testing.assert_allclose((received - expected) / largest, 0, atol=1e-12)
    single = solve(*(tf.constant(part, "float32") for part in (*parts, rhs)))
    np.testing.assert_allclose((single - expected) / largest, 0, atol=2e-4)

    spoilt = [part.copy() for part in parts]
    matrices = spoilt[len(parts) // 2]  # A, or the diagonal blocks
    # Two equal columns and rows: rounding leaves a tiny pivot, not a zero.
    matrices[1][..., :, 1], matrices[1][..., 1, :] = matrices[1][..., :, 0], matrices[1][..., 0, :]
    matrices[2].flat[-1] = np.nan
    matrices[3] = 0.0
    for neighbour in spoilt[::2] if len(parts) == 3 else ():
        neighbour[1] = 0.0
    flagged = solved(spoilt)
    np.testing.assert_array_equal(flagged[[0, 4]], received[[0, 4]])
    assert np.isnan(flagged[1:4]).all()


def test_a_matrix_that_is_not_positive_definite_is_nan(mode):
    matrix = tf.constant([[[2.0, 0.0], [0.0, 3.0]], [[1.0, 2.0], [2.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]]])
    received = mode(ops.cholesky_solve)(matrix, tf.ones([3, 2]))
    np.testing.assert_allclose(received[0], [1 / 2, 1 / 3], rtol=1e-6)
    assert np.isnan(received[1:]).all()


def solution_of_nonlinear_coefficients(kind):
    """x `[B, 4]` -> `[B, m]` through a system whose matrix and right-hand side depend on x."""

    def function(x):
        block = tf.reshape(x, [-1, 2, 2])
        if kind == "dense":
            return ops.solve(3 * tf.eye(2, dtype=x.dtype) + tf.sin(block), x[:, :2] * x[:, 2:])
        if kind == "positive_definite":
            return ops.cholesky_solve(
                tf.matmul(block, block, transpose_b=True) + tf.eye(2, dtype=x.dtype), x[:, :2] * x[:, 2:]
            )
        row = tf.ones([1, 3, 1, 1], x.dtype)
        diagonal = 4 * tf.eye(2, dtype=x.dtype) + tf.sin(block)[:, None] * row
        lower, upper = (tf.cos(block)[:, None] * row)[:, 1:], (block[:, None] * row)[:, 1:]
        rhs = tf.stack([x[:, :2], x[:, 2:], x[:, 1:3]], axis=1)
        return tf.reshape(ops.solve_block_tridiagonal(lower, diagonal, upper, rhs), [-1, 6])

    return function


@pytest.mark.parametrize("kind", ["dense", "positive_definite", "block_tridiagonal"])
def test_first_and_second_derivatives_are_those_of_differences(kind):
    f = solution_of_nonlinear_coefficients(kind)

    def objective(x):
        return tf.reduce_sum(tf.square(f(x)), axis=1)

    def gradient(x):
        return derivatives.gradient(objective, x)[1]

    def all_derivatives(x):
        y, product, transposed = derivatives.linearize(f, x)
        return product(x), transposed(y), derivatives.vjp(gradient, x, x)[1]

    x = tf.constant(0.5 * random(2, 4))
    step = 1e-5
    # One batch of all points: x and x +- step along each component.
    units = np.concatenate([step * np.eye(4), -step * np.eye(4)])
    points = tf.constant((x.numpy()[:, None] + units).reshape(-1, 4))

    def central(values):
        ahead, behind = np.split(values.numpy().reshape(2, 8, -1), 2, axis=1)
        return ((ahead - behind) / (2 * step)).transpose(0, 2, 1)

    jacobian = central(f(points))
    along, back = np.einsum("bij,bj->bi", jacobian, x), np.einsum("bij,bi->bj", jacobian, f(x))
    bent = np.einsum("bij,bj->bi", central(tf.function(gradient, autograph=False)(points)), x)
    received = tf.function(all_derivatives, autograph=False, jit_compile=True)(x)
    for a, b in zip(received, (along, back, bent), strict=True):
        # Central differences: rounding 1e-16 / step, truncation step^2, of numbers up to 10.
        np.testing.assert_allclose(a, b, atol=1e-8)


def test_shapes_and_dtypes_that_do_not_fit_are_refused():
    for matrix, rhs in (
        (tf.eye(3), tf.ones([2])),
        (tf.ones([3, 2]), tf.ones([3])),
        (tf.eye(3), tf.ones([3], "float64")),
    ):
        with pytest.raises(ValueError, match="Expected `matrix`.*\nReceived float32"):
            ops.solve(matrix, rhs)
    with pytest.raises(ValueError, match="neighbours"):
        ops.solve_block_tridiagonal(tf.ones([4, 2, 2]), tf.ones([4, 2, 2]), tf.ones([4, 2, 2]), tf.ones([4, 2]))
