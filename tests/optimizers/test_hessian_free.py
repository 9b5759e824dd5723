"""Hessian-free optimization against NumPy with the dense Gauss-Newton matrix of a tiny network."""

import numpy as np
import pytest
import tiny_network as tiny

import keras_sip


@pytest.fixture(scope="module")
def traced():
    """Conjugate gradients to the end, from zero, so that a step is that of a dense solve."""
    return tiny.model(keras_sip.HessianFree(cg_steps=80, cg_tolerance=0.0, momentum=0.0))


def dense_step(weights, y, damping):
    """(step, rho, a) with the dense Gauss-Newton matrix, the loss being 1 at the start."""
    start = tiny.loss(weights, y)
    jacobian = tiny.jacobian(weights, y)
    gradient, matrix = jacobian.T @ tiny.residual(weights, y) / start, jacobian.T @ jacobian / start
    damped = matrix + damping * np.eye(len(weights))
    step = np.linalg.solve(damped, -gradient)
    model = gradient @ step + 0.5 * step @ damped @ step
    changes = {a: tiny.loss(weights + a * step, y) / start - 1 for a in 0.5 ** np.arange(8)}
    length = next(a for a, change in changes.items() if change <= 1e-2 * a * gradient @ step)
    return step, changes[1.0] / model, length


@pytest.mark.parametrize(("damping", "is_shortened"), [(3.0, False), (1e-4, True)])
def test_steps_and_damping_are_those_of_the_dense_matrix(traced, damping, is_shortened):
    y = 3 * tiny.observations()[0]
    model = tiny.restart(traced, damping=damping)
    lengths = []
    for _ in range(4):
        weights = tiny.weights(model)
        step, agreement, length = dense_step(weights, y, damping)
        lengths.append(length)
        damping *= 1.5 if agreement < 0.25 else 2 / 3 if agreement > 0.75 else 1.0
        model.fit(y, batch_size=5, verbose=0)
        # The Jacobian by central differences is good to 1e-9; small damping divides that by 1e-4.
        change = tiny.weights(model) - weights
        np.testing.assert_allclose(change, length * step, rtol=0, atol=1e-4 * np.max(np.abs(step)))
        assert float(model.optimizer.damping) == pytest.approx(damping, rel=1e-5)
    assert (min(lengths) < 1) == is_shortened


def test_it_reaches_a_minimum_of_the_loss(traced):
    y, _ = tiny.observations()
    model = tiny.restart(traced, damping=1.0)
    start = tiny.weights(model)
    model.fit(y, batch_size=5, epochs=40, verbose=0)
    weights = tiny.weights(model)
    assert tiny.loss(weights, y) < 0.9 * tiny.loss(start, y)
    # Steps of the last epochs are of rounding: the slope is that of finite differences and of a nearly flat valley.
    assert np.linalg.norm(tiny.gradient(weights, y)) < 1e-2 * np.linalg.norm(tiny.gradient(start, y))


def test_a_step_does_not_depend_on_the_unit_of_the_loss(traced):
    y, _ = tiny.observations()
    changes = []
    for weight in (1.0, 1e-12):
        model = tiny.restart(traced, damping=1.0)
        weights = tiny.weights(model)
        model.fit(y, batch_size=5, sample_weight=np.full(5, weight), verbose=0)
        changes.append(tiny.weights(model) - weights)
    # Sample weights are float32.
    np.testing.assert_allclose(changes[1], changes[0], rtol=0, atol=1e-5 * np.max(np.abs(changes[0])))


def test_where_nothing_lowers_the_loss_the_weights_stay_and_the_damping_rises(traced):
    y, _ = tiny.observations()
    model = tiny.restart(traced, damping=1.0)
    weights = tiny.weights(model)
    model.fit(y, batch_size=5, sample_weight=np.zeros(5), verbose=0)
    np.testing.assert_array_equal(tiny.weights(model), weights)
    assert float(model.optimizer.damping) == pytest.approx(1.5, rel=1e-6)


def test_conjugate_gradients_start_from_a_share_of_the_last_step():
    y, _ = tiny.observations()
    model = tiny.model(keras_sip.HessianFree(cg_steps=1, cg_tolerance=0.0, momentum=0.5, damping=3.0), run_eagerly=True)
    damping, last = 3.0, np.zeros(13)
    for _ in range(2):
        weights = tiny.weights(model)
        start_loss, jacobian = tiny.loss(weights, y), tiny.jacobian(weights, y)
        gradient = jacobian.T @ tiny.residual(weights, y) / start_loss
        damped = jacobian.T @ jacobian / start_loss + damping * np.eye(13)
        first = 0.5 * last
        steepest = -gradient - damped @ first
        last = first + steepest @ steepest / (steepest @ damped @ steepest) * steepest
        model.fit(y, batch_size=5, verbose=0)
        np.testing.assert_allclose(tiny.weights(model) - weights, last, rtol=0, atol=1e-6 * np.max(np.abs(last)))
        damping = float(model.optimizer.damping)
