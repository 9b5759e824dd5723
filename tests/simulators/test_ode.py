"""Ordinary differential equations against SciPy, with order, invariant and derivatives."""

import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf

import keras_sip
from keras_sip.ops import derivatives
from numerics import central_difference, relative_error

SEED = (3, 4)


class Pendulum(keras_sip.ODESimulator):
    """The example of the docstring, with damping and frequency sought."""

    def __init__(self, steps_between=4):
        super().__init__(
            num_parameters=2, num_states=2, duration=4.0, num_times=4, steps_between=steps_between, dtype="float64"
        )

    def initial_state(self, x, context=None):
        return tf.ones_like(x) * [0.5, 0.0]

    def rate(self, state, x, time):
        angle, speed = tf.unstack(state, axis=1)
        return tf.stack([speed, -x[:, 0] * speed - x[:, 1] ** 2 * tf.sin(angle)], axis=1)


def scipy_pendulum(damping, frequency, times):
    return scipy.integrate.solve_ivp(
        lambda t, s: [s[1], -damping * s[1] - frequency**2 * np.sin(s[0])],
        (0.0, times[-1]),
        [0.5, 0.0],
        t_eval=times,
        rtol=1e-12,
        atol=1e-13,
    ).y.T


def test_a_system_in_ten_lines_is_that_of_scipy_and_of_fourth_order():
    x = np.array([[0.1, 1.0], [0.3, 2.0]])
    expected = np.stack([scipy_pendulum(*row, Pendulum().times) for row in x])
    errors = [np.max(np.abs(Pendulum(steps).forward(x) - expected)) for steps in (8, 16)]
    assert errors[1] < 1e-5
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.2)


def test_lotka_volterra_is_that_of_scipy():
    simulator = keras_sip.LotkaVolterra()
    sample = simulator.sample(4, SEED)
    expected = []
    for a, b, c, d, prey in np.float64(sample["x"]):
        solution = scipy.integrate.solve_ivp(
            lambda t, s, a=a, b=b, c=c, d=d: [a * s[0] - b * s[0] * s[1], -c * s[1] + d * s[0] * s[1]],
            (0.0, simulator.duration),
            [prey, simulator.predators],
            t_eval=simulator.times,
            rtol=1e-10,
            atol=1e-8,
        )
        expected.append(np.log(solution.y.T))
    # 160 steps of a sixteenth of a year, of fourth order, in float32.
    np.testing.assert_allclose(sample["y"], expected, atol=2e-3)


def test_lotka_volterra_keeps_its_first_integral():
    simulator = keras_sip.LotkaVolterra(steps_between=32, dtype="float64")
    sample = simulator.sample(4, SEED)
    a, b, c, d, _ = (column[:, None] for column in tf.unstack(sample["x"], axis=1))
    log_prey, log_predators = tf.unstack(sample["y"], axis=2)
    integral = (d * tf.exp(log_prey) - c * log_prey + b * tf.exp(log_predators) - a * log_predators).numpy()
    np.testing.assert_allclose(integral, integral[:, :1] * np.ones_like(integral), rtol=1e-5)


def test_parameters_span_six_orders_of_magnitude_around_their_scale():
    x = keras_sip.LotkaVolterra().sample(256, SEED)["x"].numpy()
    scale = np.array(keras_sip.LotkaVolterra().x_scale)
    assert scale.max() / scale.min() == pytest.approx(1e6)
    np.testing.assert_allclose(np.std(np.log(x / scale), axis=0), 0.2, rtol=0.2)


def test_products_with_the_jacobian_are_right_in_graphs():
    simulator = keras_sip.LotkaVolterra(num_times=3, duration=3.0, dtype="float64")
    x = simulator.sample(2, SEED)["x"]
    v = x * np.random.default_rng(0).standard_normal(x.shape)

    @tf.function(autograph=False)
    def product(x):
        return derivatives.linearize(simulator.forward, x)[1](v)

    expected = central_difference(lambda x: simulator.forward(x).numpy(), x.numpy(), np.asarray(v), 1e-5)
    assert relative_error(product(x), expected) < 1e-8


def test_what_a_system_lacks_is_named():
    bare = keras_sip.ODESimulator(num_parameters=1, num_states=1, duration=1.0, num_times=1)
    with pytest.raises(ValueError, match="Expected `context` to hold the initial states"):
        bare.forward(np.ones((1, 1), "float32"))
    with pytest.raises(NotImplementedError, match="`ODESimulator` to define `rate"):
        bare.forward(np.ones((1, 1), "float32"), {"initial_state": np.ones((1, 1), "float32")})
