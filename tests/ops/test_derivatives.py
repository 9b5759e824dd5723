import numpy as np
import pytest
import tensorflow as tf

from keras_sip.ops import batched, derivatives
from numerics import central_difference, dense_jacobian

SHAPE = (3, 6, 5, 1)


def waves(x):
    return tf.sin(x) * x + tf.exp(-x * x)


def fourier(x):
    modes = tf.signal.rfft2d(x[..., 0])
    return tf.signal.irfft2d(modes * modes, x.shape[1:3])[..., None]


def advect(x):
    """Look up x at places that depend on x, linearly between two cells."""
    place = tf.clip_by_value(2.0 + x[..., 0], 0.0, 3.9)
    # Clipped once more as integers: a NaN would be a place far outside, which a gather on a CPU refuses.
    cell = tf.clip_by_value(tf.cast(tf.floor(tf.stop_gradient(place)), tf.int32), 0, 3)
    share = (place - tf.cast(cell, x.dtype))[..., None]
    lower, upper = (tf.gather(x, cell + step, axis=2, batch_dims=2) for step in (0, 1))
    return lower * (1 - share) + upper * share


def steps_in_time(x):
    def step(i, state):
        return i + 1, state + 0.1 * tf.sin(tf.roll(state, 1, axis=1))

    return tf.while_loop(lambda i, state: i < 5, step, (0, x), maximum_iterations=5)[1]


def custom_gradient(x):
    @tf.custom_gradient
    def sine(x):
        return tf.sin(x), lambda upstream: upstream * tf.cos(x)

    return sine(x) * x


def to_fewer_numbers(x):
    return tf.reduce_sum(x * x * x, axis=2)


FUNCTIONS = pytest.mark.parametrize(
    "f", [waves, fourier, advect, steps_in_time, custom_gradient, to_fewer_numbers], ids=lambda f: f.__name__
)


def random_batch(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


@FUNCTIONS
def test_jvp_is_the_directional_derivative_and_vjp_its_transpose(mode, f):
    x, v = random_batch(*SHAPE), random_batch(*SHAPE, seed=1)
    w = random_batch(*f(x).shape, seed=2)
    (y, product), (same_y, transposed) = mode(lambda: (derivatives.jvp(f, x, v), derivatives.vjp(f, x, w)))()
    for value in (y, same_y):
        np.testing.assert_allclose(value, f(x), atol=1e-13)
    # Rounding 1e-16 / step and truncation step^2 both stay near 1e-9.
    expected = central_difference(lambda x: f(tf.constant(x)).numpy(), x.numpy(), v.numpy(), step=1e-6)
    np.testing.assert_allclose(product, expected, atol=1e-7)
    # <w, J v> = <J^T w, v> in each example
    np.testing.assert_allclose(batched.dot(w, product), batched.dot(transposed, v), atol=1e-11)


@FUNCTIONS
def test_linearize_repeats_inside_a_while_loop(mode, f):
    """Three times J^T J v, as in a power iteration or in conjugate gradients."""
    x, v = random_batch(*SHAPE), random_batch(*SHAPE, seed=1)

    def repeated(x, v):
        y, product, transposed_product = derivatives.linearize(f, x)

        def body(i, v):
            return i + 1, transposed_product(product(v))

        return y, tf.while_loop(lambda i, v: i < 3, body, (0, v), maximum_iterations=3)[1]

    y, received = mode(repeated)(x, v)
    np.testing.assert_allclose(y, f(x), atol=1e-13)
    check_third_power(received, f, x, v)


@pytest.mark.parametrize("f", [fourier], ids=lambda f: f.__name__)
def test_jvp_and_vjp_repeat_inside_a_while_loop(mode, f):
    def repeated(x, v):
        def body(i, v):
            return i + 1, derivatives.vjp(f, x, derivatives.jvp(f, x, v)[1])[1]

        return tf.while_loop(lambda i, v: i < 3, body, (0, v), maximum_iterations=3)[1]

    x, v = random_batch(*SHAPE), random_batch(*SHAPE, seed=1)
    check_third_power(mode(repeated)(x, v), f, x, v)


def check_third_power(received, f, x, v):
    """(J^T J)^3 v, with J by central differences."""
    jacobian = dense_jacobian(lambda x: f(tf.constant(x)).numpy(), x.numpy())
    expected = v.numpy().reshape(3, -1, 1)
    for _ in range(3):
        expected = jacobian.swapaxes(1, 2) @ (jacobian @ expected)
    # J itself is right to about 1e-9 of its largest entries.
    np.testing.assert_allclose(
        received.numpy().reshape(expected.shape), expected, rtol=0, atol=1e-7 * np.abs(expected).max()
    )


def test_products_work_through_a_convolution_in_float32(mode):
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 1, 1)), tf.float32)
    x, v = (tf.cast(random_batch(2, 8, 8, 1, seed=seed), tf.float32) for seed in (0, 1))

    def f(x):
        return tf.tanh(tf.nn.conv2d(x, kernel, 1, "SAME"))

    expected = (1 - f(x) ** 2) * tf.nn.conv2d(v, kernel, 1, "SAME")
    np.testing.assert_allclose(mode(lambda x, v: derivatives.jvp(f, x, v)[1])(x, v), expected, atol=1e-5)
    np.testing.assert_allclose(mode(lambda x, v: derivatives.linearize(f, x)[1](v))(x, v), expected, atol=1e-5)


def test_gradient_is_that_of_each_example(mode):
    x = random_batch(3, 4)
    weights = tf.constant([1.0, 2.0, 3.0], tf.float64)
    values, gradient = mode(lambda x: derivatives.gradient(lambda x: weights * tf.reduce_sum(x**3, 1), x))(x)
    np.testing.assert_allclose(values, weights * tf.reduce_sum(x**3, 1), rtol=1e-13)
    np.testing.assert_allclose(gradient, 3 * weights[:, None] * x**2, rtol=1e-13)


@pytest.mark.parametrize("y_size", [2, 5], ids=["by rows", "by columns"])
def test_jacobian_agrees_with_finite_differences(mode, y_size):
    x, matrix = random_batch(4, 3, 1), random_batch(3, y_size, seed=1)

    def f(x):
        return tf.sin(x[..., 0] @ matrix)[:, None] * tf.reduce_sum(x, axis=1, keepdims=True)

    received = mode(lambda x: derivatives.jacobian(f, x))(x)
    assert received.shape == (4, y_size, 3)
    expected = dense_jacobian(lambda x: f(tf.constant(x)).numpy(), x.numpy())
    np.testing.assert_allclose(received, expected, atol=1e-8)


def test_hessian_of_a_function_that_closes_over_constants_of_each_example(mode):
    """L = c x1^2 x2 + x2^4 has the Hessian ((2 c x2, 2 c x1), (2 c x1, 12 x2^2))."""
    x, c = random_batch(5, 2), random_batch(5, seed=1)
    received = mode(lambda x: derivatives.hessian(lambda x: c * x[:, 0] ** 2 * x[:, 1] + x[:, 1] ** 4, x))(x)
    x1, x2, c = x.numpy()[:, 0], x.numpy()[:, 1], c.numpy()
    expected = np.array([[2 * c * x2, 2 * c * x1], [2 * c * x1, 12 * x2**2]])
    np.testing.assert_allclose(received, np.moveaxis(expected, -1, 0), atol=1e-13)


def test_a_function_that_ignores_x_has_zero_derivatives(mode):
    constant, x = random_batch(3, 2), random_batch(3, 4)

    def f(x):
        return tf.identity(constant)

    def all_derivatives(x):
        _, product, transposed_product = derivatives.linearize(f, x)
        return product(x), transposed_product(constant), derivatives.jvp(f, x, x)[1], derivatives.jacobian(f, x)

    for received in mode(all_derivatives)(x):
        np.testing.assert_array_equal(received, np.zeros(received.shape))


@pytest.mark.parametrize("f", [fourier, advect], ids=lambda f: f.__name__)
def test_examples_are_apart(check_examples_are_apart, f):
    v = random_batch(*SHAPE, seed=1)

    def products(x):
        _, product, transposed_product = derivatives.linearize(f, x)
        return product(v), transposed_product(v)

    check_examples_are_apart(products, random_batch(*SHAPE))
