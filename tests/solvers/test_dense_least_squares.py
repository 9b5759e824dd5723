"""The dense steps of Gauss-Newton and Levenberg-Marquardt against NumPy, also where J^T J would be no use."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from keras_sip import Status
from numerics import dense_jacobian, relative_error


def linear(matrix, dtype="float64"):
    return keras_sip.from_function(
        lambda x: tf.linalg.matvec(tf.constant(matrix, dtype), x), matrix.shape[1], dtype=dtype
    )


def random_matrix(rows, columns, condition):
    generator = np.random.default_rng(rows)
    left, right = (np.linalg.qr(generator.standard_normal((n, n)))[0] for n in (rows, columns))
    rank = min(rows, columns)
    return left[:, :rank] * np.geomspace(1, 1 / condition, rank) @ right[:rank]


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_gauss_newton_solves_a_jacobian_of_condition_1e8(jit_compile):
    """Normal equations of condition 1e16 would keep no digit."""
    matrix, x_true = random_matrix(5, 3, 1e8), np.array([[1.0, -2.0, 3.0]])
    solve = tf.function(keras_sip.GaussNewton().solve, jit_compile=jit_compile, autograph=False)
    x = solve(linear(matrix), tf.zeros((1, 3), tf.float64), tf.constant(x_true @ matrix.T)).x
    assert relative_error(x, x_true) < 1e-6


@pytest.mark.parametrize("name", ["curved", "masked_sensors", "curved_nondimensional"])
def test_levenberg_marquardt_step_solves_the_damped_normal_equations(name):
    problem = problems.problem(name)
    x0, y_target, _ = problem.start_and_target()
    jacobian = dense_jacobian(lambda x: problem.simulator.forward(tf.constant(x), problem.context).numpy(), x0.numpy())
    residual = (problem.simulator.forward(x0, problem.context) - y_target).numpy()
    expected = [
        -np.linalg.solve(j.T @ j + 0.1 * np.diag(np.sum(j**2, axis=0)), j.T @ r)
        for j, r in zip(jacobian, residual, strict=True)
    ]
    solver = keras_sip.LevenbergMarquardt(linear_solver="dense", damping=0.1)
    update = solver.solve(problem.simulator, x0, y_target, problem.context).update
    assert relative_error(update, expected) < 1e-7


@pytest.mark.parametrize("rows, columns", [(2, 5), (4, 4)])
def test_rank_deficient_step_is_the_shortest_one(rows, columns):
    matrix = random_matrix(rows, columns, 10.0)
    matrix[-1] = matrix[0]
    y_target = np.random.default_rng(0).standard_normal((3, rows))
    update = keras_sip.GaussNewton(linear_solver="dense").solve(linear(matrix), np.zeros((3, columns)), y_target).update
    # Singular values are above 1e-2 of the largest or, where a row is repeated, 0 to a rounding of it, 1e-16: NumPy's
    # own cut-off of 1e-15 is too near to that.
    assert relative_error(update, y_target @ np.linalg.pinv(matrix, rcond=1e-10).T) < 1e-12


@pytest.mark.parametrize("x_unit, y_unit", [(1e-18, 1.0), (1e15, 1e-20), (1.0, 1e20)])
def test_units_of_x_and_y_do_not_matter_in_float32(x_unit, y_unit):
    matrix = random_matrix(4, 3, 10.0)
    x_true = np.array([[1.0, -2.0, 0.5]])
    simulator = linear(matrix * y_unit / x_unit, "float32")
    y_target = np.float32(y_unit * x_true @ matrix.T)
    for solver in (keras_sip.GaussNewton(), keras_sip.LevenbergMarquardt(max_steps=8)):
        result = solver.solve(simulator, np.zeros((1, 3), "float32"), y_target)
        assert relative_error(result.x / x_unit, x_true) < 1e-5


def test_dense_and_matrix_free_agree():
    problem = problems.problem("curved")
    x0, y_target, _ = problem.start_and_target()
    for solver in (keras_sip.GaussNewton, keras_sip.LevenbergMarquardt):
        dense, free = (
            solver(linear_solver=kind, cg_steps=30, cg_tolerance=1e-13).solve(problem.simulator, x0, y_target).update
            for kind in ("dense", "conjugate_gradient")
        )
        assert relative_error(dense, free) < 1e-9


def test_auto_is_dense_up_to_16_components():
    """The matrix-free solver stops after its one step of CG."""
    for size, is_dense in ((16, True), (17, False)):
        simulator, y_target = linear(np.diag(np.arange(1.0, size + 1))), np.ones((1, size))
        x = keras_sip.GaussNewton(cg_steps=1).solve(simulator, np.zeros((1, size)), y_target).x
        assert (relative_error(x, 1 / np.arange(1.0, size + 1)[None]) < 1e-12) == is_dense


@pytest.mark.parametrize("solver", [keras_sip.GaussNewton, keras_sip.LevenbergMarquardt])
@pytest.mark.parametrize("linear_solver", ["dense", "conjugate_gradient"])
def test_flat_start_is_a_breakdown_either_way(solver, linear_solver):
    simulator = keras_sip.from_function(tf.tanh, 2, dtype="float64")
    solver = solver(linear_solver=linear_solver)
    result = solver.solve(simulator, np.array([[50.0, 50.0], [0.1, 0.2]]), np.array([[0.0, 0.5], [0.15, 0.2]]))
    assert result.status.numpy().tolist() == [Status.BREAKDOWN, Status.MAX_STEPS]
