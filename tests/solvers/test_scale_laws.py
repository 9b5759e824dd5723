"""How updates change with the units of x and y, for each solver as its docstring claims."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from numerics import relative_error
from problems import curved_process

BATCH = 4
CONVERGED_CG = {"linear_solver": "conjugate_gradient", "cg_steps": 60, "cg_tolerance": 1e-14}
ANALYTIC_INVERSE = keras_sip.AnalyticInverse()
GAUSS_NEWTON = keras_sip.GaussNewton(**CONVERGED_CG)
LEVENBERG_MARQUARDT = keras_sip.LevenbergMarquardt(**CONVERGED_CG)
# Three random projections for four sensors: D is an estimate.
ESTIMATED_SCALING = keras_sip.LevenbergMarquardt(**CONVERGED_CG, probes=3)
UNITS = [1e-25, 1e-10, 1.0, 1e10, 1e25]


# (1) Maps of x: y = P(A x') from x'_0 = A^-1 x_0 asks for U' = A^-1 U


def diagonal_map(seed, condition):
    return np.diag(np.random.default_rng(seed).permutation(condition ** np.array([-0.5, 0.1, 0.5])))


def invertible_map(seed, condition):
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.standard_normal((3, 3)))[0] for _ in range(2))
    return left @ diagonal_map(seed, condition) @ right


def mapped(matrix, x):
    """A x for every example."""
    return tf.linalg.matvec(tf.constant(matrix), x)


def updates(solver, matrix, process, inverse=None):
    """U for y = P(x), and U' for y = P(A x')."""
    generator = np.random.default_rng(7)
    x0 = generator.standard_normal((BATCH, 3))
    y_target = process(tf.constant(x0 + 0.3 * generator.standard_normal((BATCH, 3))))
    back = np.linalg.inv(matrix)

    def mapped_process(x):
        return process(mapped(matrix, x))

    def mapped_inverse(y_target, x_near):
        return mapped(back, inverse(y_target, mapped(matrix, x_near)))

    original = keras_sip.from_function(process, 3, dtype="float64", inverse=inverse)
    other = keras_sip.from_function(mapped_process, 3, dtype="float64", inverse=inverse and mapped_inverse)
    return solver.solve(original, x0, y_target).update, solver.solve(other, mapped(back, x0), y_target).update


over_maps = pytest.mark.parametrize("seed, condition", [(0, 1e2), (1, 1e4), (2, 1e4)])


@over_maps
def test_gauss_newton_follows_any_invertible_map_of_x(seed, condition):
    matrix = invertible_map(seed, condition)
    update, other = updates(GAUSS_NEWTON, matrix, curved_process)
    assert relative_error(other, mapped(np.linalg.inv(matrix), update)) < 1e-6


@over_maps
def test_analytic_inverse_follows_any_invertible_map_of_x(seed, condition):
    matrix = invertible_map(seed, condition)
    update, other = updates(ANALYTIC_INVERSE, matrix, tf.sinh, inverse=lambda y_target, x_near: tf.asinh(y_target))
    assert relative_error(other, mapped(np.linalg.inv(matrix), update)) < 1e-6


@pytest.mark.parametrize("solver", [LEVENBERG_MARQUARDT, ESTIMATED_SCALING], ids=["exact_D", "estimated_D"])
@over_maps
def test_levenberg_marquardt_follows_diagonal_maps_of_x(solver, seed, condition):
    matrix = diagonal_map(seed, condition)
    update, other = updates(solver.with_options(max_steps=3), matrix, curved_process)
    assert relative_error(other, mapped(np.linalg.inv(matrix), update)) < 1e-6


@pytest.mark.parametrize("dtype, ratio, tolerance", [("float64", 1e15, 1e-6), ("float32", 1e6, 1e-3)])
@pytest.mark.parametrize(
    "solver",
    [
        keras_sip.GaussNewton(max_steps=2),
        keras_sip.LevenbergMarquardt(max_steps=2),
        keras_sip.Newton(max_steps=2),
        keras_sip.SaddleFreeNewton(max_steps=2),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_units_of_the_components_may_differ_by_as_much_as_the_precision_holds(solver, dtype, ratio, tolerance):
    """What is judged to be rank or rounding is judged after the columns are scaled."""
    generator = np.random.default_rng(7)
    x0 = generator.standard_normal((BATCH, 3))
    # Powers of two, so that the two problems round alike.
    units = 2.0 ** np.round(np.log2(ratio) * np.array([-0.5, 0.1, 0.5]))
    changed = keras_sip.from_function(lambda x: curved_process(x * tf.constant(units, x.dtype)), 3, dtype=dtype)
    plain = keras_sip.from_function(curved_process, 3, dtype=dtype)
    y_target = plain((x0 + 0.3 * generator.standard_normal((BATCH, 3))).astype(dtype))
    expected = solver.solve(plain, x0.astype(dtype), y_target)
    received = solver.solve(changed, (x0 / units).astype(dtype), y_target)
    assert np.array_equal(received.status, expected.status)
    assert relative_error(received.update * units, expected.update) < tolerance


def test_levenberg_marquardt_does_not_follow_rotations():
    """What its docstring leaves out is left out with reason: D is diagonal in one basis only."""
    matrix = invertible_map(0, 1e2)
    update, other = updates(LEVENBERG_MARQUARDT, matrix, curved_process)
    assert relative_error(other, mapped(np.linalg.inv(matrix), update)) > 1e-3


@over_maps
def test_gradient_descent_multiplies_by_the_transposed_map_instead(seed, condition):
    matrix = invertible_map(seed, condition)
    update, other = updates(keras_sip.GradientDescent(), matrix, curved_process)
    assert relative_error(other, mapped(matrix.T, update)) < 1e-11
    assert relative_error(other, mapped(np.linalg.inv(matrix), update)) > 0.5


# (2) Units of y: y -> c y leaves U as it is


class Measured(keras_sip.Simulator):
    """The same process in a unit that the context tells."""

    x_shape = y_shape = (3,)

    def forward(self, x, context=None):
        return context["unit"] * tf.sinh(x)

    def inverse(self, y_target, x_near, context=None):
        return tf.asinh(y_target / context["unit"])


def updates_in_units(solver, units, **compilation):
    """U of one problem in float32, for each unit of y."""
    generator = np.random.default_rng(3)
    x0, step = generator.standard_normal((2, 1, 3))
    x0, x_true = (np.repeat(x, len(units), axis=0).astype("float32") for x in (x0, x0 + 0.3 * step))
    context = {"unit": tf.constant(units, shape=(len(units), 1))}
    y_target = Measured()(x_true, context)

    @tf.function(autograph=False, **compilation)
    def update(x0, y_target, context):
        return solver.solve(Measured(), x0, y_target, context).update

    return np.float64(update(tf.constant(x0), y_target, context))


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize(
    "solver",
    [ANALYTIC_INVERSE, keras_sip.GaussNewton(max_steps=2), keras_sip.LevenbergMarquardt()],
    ids=lambda solver: type(solver).__name__,
)
def test_updates_do_not_depend_on_the_unit_of_y(solver, jit_compile):
    received = updates_in_units(solver, UNITS, jit_compile=jit_compile)
    expected = received[UNITS.index(1.0)]
    assert np.max(np.abs(expected)) > 0.1
    # c P(x) - c P(x*) is rounded anew for every c that is no power of two.
    assert relative_error(received, np.tile(expected, (len(UNITS), 1))) < 1e-4


def test_gradient_descent_multiplies_by_the_square_of_the_unit():
    units = [1e-10, 1.0, 1e10]
    received = updates_in_units(keras_sip.GradientDescent(), units)
    assert relative_error(received / np.square(units)[:, None], np.tile(received[1], (3, 1))) < 1e-5
