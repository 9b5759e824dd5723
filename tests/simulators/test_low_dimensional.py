"""Quartic bowl, exponential and rotated sine against NumPy, brute force and the settings of the paper."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from numerics import relative_error
from problems import problem

SYSTEMS = [(1.0, 0.0), (5.0, 30.0), (32.0, 45.0)]
MAPS = ["paper", "released"]

over_systems = pytest.mark.parametrize("xi, phi", SYSTEMS)
over_maps = pytest.mark.parametrize("map", MAPS)


def points(batch, size=1.0, seed=3):
    return size * np.random.default_rng(seed).uniform(-1, 1, (batch, 2))


def test_bowl_is_half_of_the_papers_objective_for_the_observation_zero():
    x = points(8, 3.0)
    simulator = keras_sip.QuarticBowl(dtype="float64")
    objective = simulator.objective(simulator(x), tf.zeros([8, 2], tf.float64))
    np.testing.assert_allclose(2 * objective, x[:, 0] ** 2 + x[:, 1] ** 4, rtol=1e-14)


def test_inverse_of_the_bowl_keeps_the_side_of_the_nearby_point():
    simulator = keras_sip.QuarticBowl(dtype="float64")
    x = points(50, 3.0)
    near = x * [1.0, 0.5]
    assert relative_error(simulator.inverse(simulator(x), tf.constant(near)), x) < 1e-14
    # Out of reach: the nearest y that the bowl can give.
    unreachable = simulator.inverse(tf.constant([[2.0, -1.0]], tf.float64), tf.constant([[0.0, 1.0]], tf.float64))
    np.testing.assert_array_equal(unreachable, [[2.0, 0.0]])


def test_distance_in_the_bowl_is_to_the_nearer_of_its_two_solutions():
    simulator = keras_sip.QuarticBowl(dtype="float64")
    x, x_ref = tf.constant([[1.0, -2.0]], tf.float64), tf.constant([[1.0, 2.5]], tf.float64)
    np.testing.assert_allclose(simulator.distance(x, x_ref), [0.5], rtol=1e-15)


def test_exponential_is_that_of_numpy_and_its_inverse_the_logarithm():
    simulator = keras_sip.Exponential(dtype="float64")
    sample = simulator.sample(100, (0, 1))
    np.testing.assert_allclose(sample["y"], np.exp(sample["x"]), rtol=1e-14)
    np.testing.assert_allclose(simulator.inverse(sample["y"], sample["x"]), sample["x"], atol=1e-14)


def test_samples_of_the_exponential_fill_the_papers_range():
    x = keras_sip.Exponential().sample(4096, (0, 0))["x"].numpy()
    assert -12 < x.min() < -11.9 and -0.1 < x.max() < 0
    # Uniform: the mean of 4096 has the standard error 12 / sqrt(12 * 4096) = 0.054; five of them.
    assert np.mean(x) == pytest.approx(-6.0, abs=0.27)


def test_network_sees_the_logarithm_of_the_observation_where_asked():
    y = tf.constant([[np.e**-3]])
    np.testing.assert_allclose(keras_sip.Exponential(log_input=True).network_input(y), [[-3.0]], rtol=1e-6)
    np.testing.assert_array_equal(keras_sip.Exponential().network_input(y), y)


def test_range_of_the_exponential_must_be_below_zero():
    with pytest.raises(ValueError, match="`lower` below 0"):
        keras_sip.Exponential(lower=0.0)


def rotated(x, phi):
    phi = np.deg2rad(phi)
    return x @ np.array([[np.cos(phi), -np.sin(phi)], [np.sin(phi), np.cos(phi)]]).T


@over_systems
def test_papers_map_is_its_printed_formula(xi, phi):
    x, gamma = points(6), 1.5
    u = gamma * rotated(x, phi)
    expected = np.stack([np.sin(u[:, 0]) / xi, xi * u[:, 1]], axis=1)
    simulator = keras_sip.RotatedSine(xi=xi, phi=phi, gamma=gamma, dtype="float64")
    assert relative_error(simulator(x), expected) < 1e-14


@over_systems
def test_released_map_scales_before_the_sine(xi, phi):
    x = points(6)
    u = rotated(x, phi)
    expected = np.stack([np.sin(10 / xi * u[:, 0]), 10 * xi * u[:, 1]], axis=1)
    assert relative_error(keras_sip.RotatedSine(xi=xi, phi=phi, map="released", dtype="float64")(x), expected) < 1e-14


@over_maps
@over_systems
def test_inverse_is_exact_and_the_nearest_of_many(map, xi, phi):
    simulator = keras_sip.RotatedSine(xi=xi, phi=phi, map=map, dtype="float64")
    y = simulator.sample(20, (0, 0))["y"]
    period = 2 * np.pi * (1.0 if map == "paper" else xi / 10)
    near = points(20, 3 * period, seed=4)
    x = simulator.inverse(y, tf.constant(near)).numpy()
    # The second component of y is 320 times a difference of numbers near 60: seven thousand roundings of 2e-16.
    assert relative_error(simulator(x), y) < 1e-10
    # Brute force: all causes of y lie on two combs of points along the direction of the sine.
    amplitude, slope = (1 / xi, xi) if map == "paper" else (1.0, 10 * xi)
    phase = np.arcsin(np.clip(y[:, 0] / amplitude, -1, 1))
    combs = [branch[:, None] + 2 * np.pi * np.arange(-20, 21) for branch in (phase, np.pi - phase)]
    across = np.concatenate(combs, axis=1) * period / (2 * np.pi)
    along = np.broadcast_to(y[:, 1:] / slope, across.shape)
    causes = rotated(np.stack([across, along], axis=-1), -phi)
    nearest = np.min(np.linalg.norm(causes - near[:, None], axis=-1), axis=1)
    np.testing.assert_allclose(np.linalg.norm(x - near, axis=1), nearest, rtol=1e-9)
    # What `distance` measures, from whichever cause it is given.
    far = simulator.inverse(y, tf.constant(near + 5 * period))
    np.testing.assert_allclose(simulator.distance(tf.constant(near), far), nearest, rtol=1e-9)


@over_maps
def test_unreachable_observation_gets_the_cause_of_the_nearest_one(map):
    simulator = keras_sip.RotatedSine(xi=2.0, phi=20.0, map=map, dtype="float64")
    y = tf.constant([[3.0, 0.5], [-3.0, 0.5]], tf.float64)
    largest = 0.5 if map == "paper" else 1.0
    x = simulator.inverse(y, tf.zeros([2, 2], tf.float64))
    np.testing.assert_allclose(simulator(x), [[largest, 0.5], [-largest, 0.5]], atol=1e-12)


@over_maps
@over_systems
def test_samples_are_reachable_and_standardised_at_the_networks_input(map, xi, phi):
    simulator = keras_sip.RotatedSine(xi=xi, phi=phi, map=map)
    sample = simulator.sample(1000, (0, 0))
    # The second component is 10 xi u2 or xi u2 with u2 from y2 / (10 xi): float32, times a rotation of larger numbers.
    assert relative_error(simulator(sample["x"]), sample["y"]) < 1e-4
    z = simulator.network_input(sample["y"]).numpy()
    assert 0.98 < np.max(z) <= 1.0 and -1.0 <= np.min(z) < -0.98
    np.testing.assert_allclose(sample["y"][:, 0] / z[:, 0], 1 / xi if map == "paper" else 1.0, rtol=1e-6)


def test_examples_of_many_systems_in_one_batch_are_those_of_each():
    registered = problem("rotated_sines")
    x, y_target, _ = registered.start_and_target()
    simulator, context = registered.simulator, registered.context
    distances = simulator.distance_between(x, simulator.inverse(y_target, x, context), context)
    for i, (xi, phi) in enumerate(zip(context["xi"].numpy(), context["phi"].numpy(), strict=True)):
        alone, row = keras_sip.RotatedSine(xi=xi, phi=phi, map="released", dtype="float64"), slice(i, i + 1)
        assert relative_error(simulator.forward(x, context)[row], alone(x[row])) < 1e-14
        np.testing.assert_allclose(
            distances[i], alone.distance(x[row], alone.inverse(y_target[row], x[row]))[0], rtol=1e-9
        )


@pytest.mark.parametrize("name", ["quartic_bowl", "exponential", "rotated_sines"])
def test_known_inverse_solves_the_registered_problems_in_one_step(name):
    registered = problem(name)
    x0, y_target, x_true = registered.start_and_target()
    result = keras_sip.AnalyticInverse().solve(registered.simulator, x0, y_target, registered.context)
    assert relative_error(registered.simulator.forward(result.x, registered.context), y_target) < 1e-12
    if name == "exponential":
        np.testing.assert_allclose(result.x, x_true, rtol=1e-12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"xi": 0.0}, "`xi` to be a finite number above 0"),
        ({"phi": float("nan")}, "`phi` to be a finite number"),
        ({"gamma": -1.0}, "`gamma` to be a finite number above 0"),
        ({"map": "printed"}, "one of 'paper', 'released'"),
        ({"dtype": "float16"}, "one of 'float32', 'float64'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_sip.RotatedSine(**arguments)
