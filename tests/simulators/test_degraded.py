"""Degraded: the instrument does what its levels say, and the solver knows what it is told."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from keras_sip.ops.blur import gaussian_blur

POISSON = keras_sip.Poisson((16, 16), dtype="float64")
SEED = (3, 4)


def degraded_and_clean(batch=64, **levels):
    sample = keras_sip.Degraded(POISSON, **levels).sample(batch, SEED)
    clean = POISSON.sample(batch, SEED)
    np.testing.assert_array_equal(sample["x"], clean["x"])
    return sample["y"].numpy(), clean["y"].numpy(), sample["context"]


def rms(values):
    return np.sqrt(np.mean(values**2, axis=(1, 2, 3)))


def test_gaussian_noise_has_the_stated_size_and_the_context_says_it():
    y, clean, context = degraded_and_clean(noise=0.1)
    # 64 x 256 numbers: their standard deviation is good to 0.6 % each side of three sigma, 2 % allowed.
    assert np.std((y - clean) / rms(clean)[:, None, None, None]) == pytest.approx(0.1, rel=0.02)
    np.testing.assert_allclose(context["noise_level"], 0.1 * rms(clean), rtol=1e-12)


def test_multiplicative_noise_scales_each_sensor():
    y, clean, context = degraded_and_clean(multiplicative_noise=0.05)
    factor = y / clean
    assert np.std(factor) == pytest.approx(0.05, rel=0.02) and np.mean(factor) == pytest.approx(1.0, abs=0.002)
    np.testing.assert_allclose(context["noise_level"], 0.05 * rms(clean), rtol=1e-12)


def test_missing_sensors_are_zero_as_often_as_said_and_the_mask_says_which():
    y, clean, context = degraded_and_clean(missing_sensors=0.25)
    mask = context["sensor_mask"].numpy()
    np.testing.assert_array_equal(y, clean * mask)
    # 16,384 sensors: six standard deviations of a share of 1/4 are 0.02.
    assert np.mean(mask) == pytest.approx(0.75, abs=0.02)
    assert np.all(context["noise_level"].numpy() == 0)


def test_a_pair_of_levels_gives_each_example_its_own():
    _, clean, context = degraded_and_clean(batch=256, noise=(0.1, 0.3))
    levels = context["noise_level"].numpy() / rms(clean)
    assert levels.min() >= 0.1 and levels.max() <= 0.3
    # The mean of 256 uniform numbers: five standard deviations are 0.018.
    assert np.mean(levels) == pytest.approx(0.2, abs=0.018)


def test_blur_is_a_normalised_gaussian_average():
    field = np.random.default_rng(0).standard_normal((2, 9, 7, 1))
    expected = field.copy()
    for axis, cells in ((1, 9), (2, 7)):
        distance = np.subtract.outer(np.arange(cells), np.arange(cells))
        weights = np.exp(-(distance**2) / (2 * 1.5**2))
        weights /= weights.sum(1, keepdims=True)
        expected = np.moveaxis(np.tensordot(weights, expected, (1, axis)), 0, axis)
    np.testing.assert_allclose(gaussian_blur(tf.constant(field), 1.5), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(gaussian_blur(tf.constant(field), 0.0), field)
    constant = tf.fill((1, 5, 4, 3, 2), 7.0)
    np.testing.assert_allclose(gaussian_blur(constant, 3.0), constant, rtol=1e-6)


def test_each_example_is_blurred_by_its_own_width():
    field = tf.constant(np.random.default_rng(0).standard_normal((2, 8, 1)))
    both = gaussian_blur(field, tf.constant([0.5, 2.0], tf.float64))
    for example, width in enumerate((0.5, 2.0)):
        alone = gaussian_blur(field[example : example + 1], width)
        np.testing.assert_allclose(both[example], alone[0], rtol=1e-14)


def test_the_same_seed_gives_the_same_degradation_on_any_batch_of_any_call():
    simulator = keras_sip.Degraded(POISSON, noise=0.1, multiplicative_noise=0.1, missing_sensors=0.2, low_pass=1.0)
    once, again = simulator.sample(8, SEED), simulator.sample(8, tf.constant(SEED, tf.int64))
    tf.nest.map_structure(np.testing.assert_array_equal, once, again)
    other = simulator.sample(8, (3, 5))
    assert not np.any(once["y"].numpy() == other["y"].numpy(), where=once["y"].numpy() != 0)


def test_noise_is_the_same_number_eagerly_in_graphs_and_under_xla():
    simulator = keras_sip.Degraded(problems.problem("poisson_1d").simulator, noise=(0.1, 0.3), missing_sensors=0.3)
    y = tf.constant(np.random.default_rng(0).standard_normal((4, 9, 1)))

    def degrade():
        return simulator.degrade(y, None, SEED)

    eager, graph, xla = degrade(), tf.function(degrade)(), tf.function(degrade, jit_compile=True)()
    np.testing.assert_array_equal(graph[1]["sensor_mask"], eager[1]["sensor_mask"])
    np.testing.assert_array_equal(xla[1]["sensor_mask"], eager[1]["sensor_mask"])
    # y's own size is a sum, which compilers may order otherwise.
    np.testing.assert_allclose(graph[0], eager[0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(xla[0], eager[0], rtol=0, atol=1e-14)


def test_the_data_of_a_degradation_do_not_depend_on_the_others():
    alone = keras_sip.Degraded(POISSON, noise=(0.1, 0.3)).sample(4, SEED)
    masked = keras_sip.Degraded(POISSON, noise=(0.1, 0.3), missing_sensors=0.5).sample(4, SEED)
    mask = masked["context"]["sensor_mask"]
    np.testing.assert_array_equal(masked["y"], mask * alone["y"])
    np.testing.assert_array_equal(masked["context"]["noise_level"], alone["context"]["noise_level"])


def test_a_noisy_fluid_is_solved_by_its_reverse_simulation():
    fluid = keras_sip.NavierStokes((16, 16), num_steps=2)
    simulator = keras_sip.Degraded(fluid, noise=0.01)
    sample = simulator.sample(2, SEED)
    x0 = sample["x"] + 0.5
    received = keras_sip.ReverseSimulation().solve(simulator, x0, sample["y"], sample["context"]).x
    expected = keras_sip.ReverseSimulation().solve(fluid, x0, sample["y"], sample["context"]).x
    np.testing.assert_array_equal(received, expected)
    # Noise takes the markers out of [0, 1], which is no fault of the user's.
    assert np.min(sample["y"]) < 0
    simulator.as_y(sample["y"], name="y")


@pytest.mark.parametrize("unit", [1e-25, 1e20])
def test_levels_are_relative_in_any_unit_of_float32(unit):
    poisson = keras_sip.Poisson((8, 8))
    simulator = keras_sip.Degraded(poisson, noise=0.1, missing_sensors=0.3)
    y = poisson.sample(4, SEED)["y"]
    expected, known = simulator.degrade(y, None, SEED)
    scaled, context = simulator.degrade(unit * y, None, SEED)
    np.testing.assert_allclose(scaled / unit, expected, rtol=1e-4, atol=1e-5 * np.max(np.abs(expected)))
    np.testing.assert_allclose(context["noise_level"] / unit, known["noise_level"], rtol=1e-5)


def test_missing_sensors_have_no_residual_and_no_say_in_the_solution():
    simulator = keras_sip.Degraded(POISSON, missing_sensors=0.3)
    sample = simulator.sample(3, SEED)
    mask = sample["context"]["sensor_mask"].numpy()
    y = simulator.forward(tf.zeros_like(sample["x"]), sample["context"])
    residual = simulator.residual(y, sample["y"], sample["context"]).numpy()
    np.testing.assert_array_equal(residual, mask * (y - sample["y"]))
    # Whatever a missing sensor says, the update is the same, bit for bit.
    nonsense = sample["y"] + 100.0 * (1.0 - mask)
    for solver in (keras_sip.AnalyticInverse(), keras_sip.GaussNewton(cg_steps=20)):
        updates = [
            solver.solve(simulator, tf.zeros_like(sample["x"]), target, sample["context"]).update
            for target in (sample["y"], nonsense)
        ]
        np.testing.assert_array_equal(updates[0], updates[1])


def test_solvers_are_told_the_noise_level():
    heat = keras_sip.Heat((16, 16))
    simulator = keras_sip.Degraded(heat, noise=0.05)
    sample = simulator.sample(16, SEED)
    start = tf.zeros_like(sample["x"])
    told = keras_sip.WienerInverse().solve(simulator, start, sample["y"], sample["context"]).x
    blind = keras_sip.WienerInverse().solve(heat, start, sample["y"]).x
    errors = [float(tf.reduce_mean(heat.distance(x, sample["x"]))) for x in (told, blind)]
    # Unaware of the noise, the inverse amplifies it without measure.
    assert errors[0] < 0.2 * errors[1]


def test_conserved_mean_is_read_from_the_working_sensors():
    heat = keras_sip.Heat((16, 16))
    simulator = keras_sip.Degraded(heat, missing_sensors=0.5)
    y, context = simulator.degrade(tf.fill((1, 16, 16, 1), tf.constant(2.0, tf.float64)), None, SEED)
    x = simulator.project(tf.zeros((1, 16, 16, 1), tf.float64), {"y": y, "context": context})
    np.testing.assert_allclose(tf.reduce_mean(x), 2.0, rtol=1e-12)


def test_config_goes_through_json_and_other_attributes_are_those_of_the_process():
    simulator = keras_sip.Degraded(POISSON, noise=(0.0, 0.2), low_pass=1.5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(simulator))
    assert again.get_config() == simulator.get_config() and repr(again) == repr(simulator)
    assert again.resolution == (16, 16) and again.has("inverse")
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = simulator.no_such_thing


@pytest.mark.parametrize(
    "levels",
    [
        {"noise": -0.1},
        {"noise": (0.3, 0.1)},
        {"multiplicative_noise": float("nan")},
        {"missing_sensors": 1.0},
        {"low_pass": (0.1, 0.2, 0.3)},
    ],
)
def test_bad_levels_are_refused_in_three_parts(levels):
    with pytest.raises(ValueError, match=f"Expected `{next(iter(levels))}`"):
        keras_sip.Degraded(POISSON, **levels)


def test_low_pass_without_neighbours_and_unknown_arguments_are_refused():
    sensors = problems.CURVED
    with pytest.raises(ValueError, match="for a low-pass"):
        keras_sip.Degraded(sensors, low_pass=1.0)
    with pytest.raises(TypeError, match="nose"):
        keras_sip.Degraded(POISSON, nose=0.1)


def test_training_on_degraded_observations_runs_and_saves(tmp_path):
    simulator = keras_sip.Degraded(keras_sip.Poisson((8, 8)), noise=(0.0, 0.1), missing_sensors=0.1)
    network = keras_sip.UNet(simulator.y_shape, 1, levels=1, filters=2, seed=0)
    model = keras_sip.SIPModel(network, simulator, keras_sip.AnalyticInverse())
    model.compile("adam", run_eagerly=True)
    history = model.fit(keras_sip.dataset(simulator, 4, 0), steps_per_epoch=2, verbose=0).history
    assert history["failed"][0] == history["bad_input"][0] == 0 and np.isfinite(history["loss"][0])
    model.save(tmp_path / "model.keras")
    observation, _ = keras_sip.evaluation_set(simulator, 3, 0)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(observation), model(observation), rtol=1e-6)


def test_noise_of_a_simulator_with_few_sensors_is_theirs_alone():
    physical = keras_sip.DarcyFlow((8, 8), observed=0.25, dtype="float64")
    simulator = keras_sip.Degraded(physical, noise=0.05)
    assert simulator.has("residual") and simulator.context_shape == {"noise_level": (), "sensor_mask": (8, 8, 1)}
    sample, clean = simulator.sample(64, SEED), physical.sample(64, SEED)["y"].numpy()
    y, mask, level = sample["y"].numpy(), sample["context"]["sensor_mask"].numpy(), sample["context"]["noise_level"]
    np.testing.assert_array_equal(mask, np.broadcast_to(physical.sensors, y.shape))
    assert np.all(y[mask == 0] == 0)
    # In units of what the 16 sensors see.
    np.testing.assert_allclose(level, 0.05 * np.sqrt(np.sum(clean**2, axis=(1, 2, 3)) / 16), rtol=1e-12)
    # 1,024 numbers: three standard errors of their deviation are 7 %.
    noise = (y - clean) / level.numpy()[:, None, None, None]
    assert np.std(noise[mask > 0]) == pytest.approx(1.0, abs=0.07)
