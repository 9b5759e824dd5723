"""How much of the swirl's error the reverse simulation removes, on examples whose parameters are known."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import keras_sip

EXAMPLES = 64
# Half as many cells and steps as in the paper, for the same domain and time.
SIMULATOR = keras_sip.NavierStokes((32, 32), spacing=4.0, dt=0.5, num_steps=4)


@functools.cache
def examples():
    sample = tf.function(lambda seed: SIMULATOR.sample(EXAMPLES, seed), autograph=False)(tf.constant([0, 1], tf.int64))
    return sample["x"], sample["y"], sample["context"]


@functools.cache
def compiled(solver):
    return tf.function(lambda *problem: solver.solve(SIMULATOR, *problem), autograph=False)


def errors(x):
    """Mean errors of the uniform, the swirl and the small-scale part."""
    uniform, strength, rest = SIMULATOR.swirl.split(x - examples()[0])
    return {
        "uniform": np.mean(np.linalg.norm(uniform, axis=-1)),
        "swirl": np.mean(np.abs(strength)),
        "small": np.mean(np.linalg.norm(rest, axis=-1)),
    }


def improved(solver, spread=0.3):
    """Errors of a start whose swirl is off by a normal error, and of what the solver makes of it."""
    x_true, y, context = examples()
    noise = np.random.default_rng(0).normal(size=(EXAMPLES, 1)).astype("float32")
    start = SIMULATOR.swirl.velocity(SIMULATOR.swirl.strength(x_true) + spread * noise, context)
    result = compiled(solver)(start, y, context)
    return errors(start), errors(result.x), result


def test_papers_gain_removes_a_fifth_of_the_swirls_error():
    before, after, _ = improved(keras_sip.ReverseSimulation(gain=1e-3))
    # 0.19 to 0.21 over 256 examples at 64 x 64.
    assert 1 - after["swirl"] / before["swirl"] == pytest.approx(0.2, abs=0.06)


def test_own_gain_removes_most_of_the_swirls_error():
    before, after, _ = improved(keras_sip.ReverseSimulation())
    # 0.8 over 256 examples at 64 x 64.
    assert 1 - after["swirl"] / before["swirl"] > 0.6


def test_repeated_calls_end_at_the_solvers_own_bias():
    """0.02 at 64 x 64: what small-scale velocities turn the marker, it takes for swirl."""
    _, once, _ = improved(keras_sip.ReverseSimulation())
    _, thrice, result = improved(keras_sip.ReverseSimulation(max_steps=3))
    assert thrice["swirl"] < once["swirl"]
    assert thrice["swirl"] < 0.05
    assert np.all(result.num_steps == 3)


def test_uniform_part_is_known_and_small_scales_are_left_out():
    _, after, _ = improved(keras_sip.ReverseSimulation())
    # float32 positions of a marker on a domain of 128, over a time of 2.
    assert after["uniform"] < 1e-4
    # 0.1 times the mean length of a vector of two normal numbers of joint variance 2.
    assert after["small"] == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.1)


def test_true_swirl_has_hardly_a_mismatch():
    """Without small scales the two runs retrace each other to the error of the time steps."""
    _, _, context = examples()
    form = SIMULATOR.reverse_form
    strength = tf.constant(np.linspace(-1, 1, EXAMPLES)[:, None], tf.float32)
    x = form.from_parameters(strength, context)
    y = SIMULATOR.forward(x, context)
    mismatch = {}
    for name, off in (("true", 0.0), ("wrong", 0.3)):
        wrong = form.from_parameters(strength + off, context)
        mismatch[name] = np.mean(np.abs(form.mismatch(wrong, y, context)[0]))
    assert mismatch["true"] < 0.1 * mismatch["wrong"]


def test_units_of_x_change_nothing():
    """Posed in units of x_scale the parameters, and so the solution, are the same."""
    x_true, y, context = examples()
    few = [tf.nest.map_structure(lambda entry: entry[:4], entry) for entry in (x_true, y, context)]
    scaled = keras_sip.Nondimensional(SIMULATOR, [8.0, 4.0])
    solver = keras_sip.ReverseSimulation()
    expected = solver.solve(SIMULATOR, *few).x
    received = scaled.to_physical(solver.solve(scaled, scaled.from_physical(few[0]), *few[1:]).x)
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)


def test_simulator_that_cannot_be_reversed_is_refused():
    with pytest.raises(TypeError, match="a simulator with a `reverse_form`.*\nReceived Poisson"):
        keras_sip.ReverseSimulation().check(keras_sip.Poisson(5))
