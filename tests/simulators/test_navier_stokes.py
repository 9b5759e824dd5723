"""The fluid against exact solutions, conservation laws, an independent implementation, and SciPy's FFT."""

import pathlib
import warnings

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.ops import derivatives, staggered
from keras_sip.simulators import fluid_experiment
from numerics import central_difference, relative_error

FLUID = pathlib.Path(__file__).parents[1] / "fixtures" / "fluid.npz"


@pytest.fixture(scope="module")
def fixture():
    """One example of an independent implementation, which restores the energy of each component."""
    with np.load(FLUID) as arrays:
        data = {name: arrays[name].astype("float64")[None] for name in arrays if name != "marker_0"}
        marker = np.unpackbits(arrays["marker_0"]).reshape(1, 64, 64, 1).astype("float64")
    simulator = keras_sip.NavierStokes((64, 64), energy="component", dtype="float64")
    return simulator, data, simulator.as_context({"marker": marker})


def smooth_marker(simulator, batch=1):
    x, y = np.moveaxis((np.indices(simulator.resolution) + 0.5) / np.array(simulator.resolution)[:, None, None], 0, 0)
    field = 0.5 + 0.25 * (np.sin(2 * np.pi * x) + np.cos(2 * np.pi * y))
    return {"marker": tf.constant(np.tile(field[None, ..., None], (batch, 1, 1, 1)), simulator.dtype)}


def sampled(simulator, batch=2, seed=0):
    sample = simulator.sample(batch, (seed, 0))
    return sample["x"], sample["y"], sample["context"]


# Agreement with another implementation --------------------------------------------------------------------------------


def test_frames_agree_with_an_independent_implementation(fixture):
    simulator, data, context = fixture
    velocity = simulator.initial_velocity(tf.constant(data["velocity_0"]))
    # The arrays are kept in float32.
    rounding = 1e-6
    assert relative_error(velocity[:, ::4, ::4], data["projected"]) < rounding
    last, marker = simulator.run(velocity, context["marker"])
    # Look-ups multiply a rounding of the velocity by the marker's slope and by the eight steps.
    assert relative_error(last[:, ::2, ::2], data["velocity_8"]) < 10 * rounding
    assert np.max(np.abs(marker[..., 0] - data["marker_8"])) < 100 * rounding


def test_energy_kept_as_a_whole_changes_little_against_energy_kept_by_component(fixture):
    """The paper's form and its authors' differ by 0.2 % of the velocity after eight steps, in this example."""
    _, data, context = fixture
    whole = keras_sip.NavierStokes((64, 64), dtype="float64")
    last, _ = whole.run(whole.initial_velocity(tf.constant(data["velocity_0"])), context["marker"])
    assert 5e-4 < relative_error(last[:, ::2, ::2], data["velocity_8"]) < 5e-3


def test_objective_agrees_with_an_independent_implementation(fixture):
    _, data, context = fixture
    simulator = keras_sip.NavierStokes((64, 64), objective_form="amplitudes", dtype="float64")
    received = simulator.objective(tf.constant(data["marker_8"][..., None]), context["marker"])
    np.testing.assert_allclose(received, data["frequency_objective"], rtol=1e-6)


def test_reverse_run_agrees_with_an_independent_implementation(fixture):
    """With the authors' times, 0 ... 7 and 2, in place of ours, 0, dt, ... 8 dt, their result comes out."""
    simulator, data, context = fixture
    guess = tf.constant(data["guess"])
    forward, backward, _ = fluid_experiment.reverse_centres(
        simulator, guess, tf.constant(data["marker_8"][..., None]), context
    )
    mismatch = simulator.swirl.mismatch(forward, backward, [*range(8), 2.0], context)
    strength = simulator.swirl.strength(guess) + 1e-3 * mismatch
    received = simulator.swirl.velocity(strength, context)[:, ::8, ::8]
    assert relative_error(received, data["result"]) < 1e-3


# Physics --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, limit", [("float32", 1e-5), ("float64", 1e-12)])
def test_flow_stays_divergence_free(dtype, limit):
    simulator = keras_sip.NavierStokes((16, 16), num_steps=3, dtype=dtype)
    x, _, context = sampled(simulator)
    velocity, _ = simulator.run(simulator.initial_velocity(x), context["marker"])
    scale = np.sqrt(np.mean(np.square(velocity))) / simulator.spacing
    assert np.max(np.abs(staggered.divergence(velocity, simulator.spacing))) < limit * scale


@pytest.mark.parametrize("energy, axes", [("total", (1, 2, 3)), ("component", (1, 2))])
@pytest.mark.parametrize("dtype, rounding", [("float32", 2e-6), ("float64", 1e-14)])
def test_energy_is_constant_to_rounding(energy, axes, dtype, rounding):
    simulator = keras_sip.NavierStokes((16, 16), num_steps=4, energy=energy, dtype=dtype)
    x, _, context = sampled(simulator)
    energies = []
    simulator.run(
        simulator.initial_velocity(x),
        context["marker"],
        lambda v, _: energies.append(np.mean(np.float64(v) ** 2, axes)),
    )
    np.testing.assert_allclose(energies, np.tile(energies[0], (5, *[1] * energies[0].ndim)), rtol=rounding)


def test_without_rescaling_interpolation_loses_energy():
    simulator = keras_sip.NavierStokes((16, 16), num_steps=4, energy="free", dtype="float64")
    x, _, context = sampled(simulator)
    before = simulator.initial_velocity(x)
    after, _ = simulator.run(before, context["marker"])
    assert np.mean(after**2) < 0.999 * np.mean(before**2)


def test_marker_stays_within_its_bounds():
    simulator = keras_sip.NavierStokes((16, 16), num_steps=4)
    x, y, _ = sampled(simulator, batch=8)
    assert np.min(y) >= 0 and np.max(y) <= 1
    assert np.max(np.abs(x)) > 5


def taylor_green_error(num_steps, viscosity=0.2, cells=32, duration=0.5):
    """(relative error, decay of the velocity) of the vortex that solves the equations exactly, for a given dt."""
    length = 2 * np.pi
    simulator = keras_sip.NavierStokes(
        (cells, cells),
        spacing=length / cells,
        dt=duration / num_steps,
        num_steps=num_steps,
        viscosity=viscosity,
        dtype="float64",
    )
    centre, face = (np.arange(cells) + 0.5) * length / cells, np.arange(cells) * length / cells
    u = np.sin(face)[:, None] * np.cos(centre)
    v = -np.cos(centre)[:, None] * np.sin(face)
    start = np.stack([u, v], -1)[None]
    step = tf.function(simulator.step, autograph=False)
    velocity = tf.constant(start)
    for _ in range(num_steps):
        velocity = step(velocity)
    # The decay of the grid's own Laplacian, whose error is not that of the time step.
    rate = 2 * viscosity * (2 * np.sin(0.5 * length / cells) / (length / cells)) ** 2
    decay = np.exp(-rate * duration)
    return relative_error(velocity, decay * start), np.mean(velocity.numpy() * start) / np.mean(start**2), decay


def test_taylor_green_vortex_decays_by_viscosity():
    """The rescaling must not give back what viscosity takes: exp(-0.2) of the velocity is left."""
    _, left, decay = taylor_green_error(num_steps=16)
    assert decay == pytest.approx(np.exp(-0.2), rel=2e-3)
    assert left == pytest.approx(decay, rel=1e-3)


def test_time_step_is_of_first_order():
    errors = np.array([taylor_green_error(num_steps)[0] for num_steps in (4, 8, 16)])
    # 0.9 to 1.1 between pairs; the error of space, a few per cent of these, lies below.
    assert np.mean(np.log2(errors[:-1] / errors[1:])) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("cells", [(1, 0), (-2, 3)])
def test_uniform_velocity_moves_the_marker_by_whole_cells_exactly(cells):
    simulator = keras_sip.NavierStokes((8, 12), spacing=2.0, dt=0.25, num_steps=3, dtype="float64")
    velocity = np.zeros((1, 8, 12, 2)) + np.array(cells) * simulator.spacing / simulator.dt
    marker = np.random.default_rng(0).uniform(size=(1, 8, 12, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        received = simulator(velocity, {"marker": marker})
    # The FFTs of the projection leave roundings of the velocity.
    np.testing.assert_allclose(received, np.roll(marker, 3 * np.array(cells), (1, 2)), rtol=0, atol=1e-12)


def test_swirl_keeps_its_centre():
    """A solid swirl in the middle, seen by a marker that is symmetric about it."""
    simulator = keras_sip.NavierStokes((32, 32), dtype="float64", num_steps=8)
    swirl = simulator.swirl.velocity(tf.constant([[2.0]], tf.float64), smooth_marker(simulator))
    swirl -= simulator.swirl.uniform(smooth_marker(simulator))[:, None, None, :]
    offset = simulator.swirl._offset
    marker = np.exp(-0.5 * np.sum(offset**2, -1) / 8**2)[None, ..., None]
    centres, _, y = fluid_experiment.reverse_centres(
        simulator, swirl, tf.constant(marker), {"marker": tf.constant(marker)}
    )
    # Points at rest lie on a grid line, and the clamp takes the cell above it: 0.01 cells of the 2 wide ones.
    np.testing.assert_allclose(centres[-1], [simulator.swirl.middle], rtol=0, atol=0.1)
    # It turns by up to 4 radians, and the round marker is still itself to the error of interpolation.
    assert relative_error(y, marker) < 0.05


def test_reverse_run_brings_the_velocity_back_better_with_shorter_steps():
    """About first order: the errors are 8.8, 5.1, 3.0, 1.8 % at the paper's size, for steps of 0.5 to 0.0625."""
    errors = []
    for num_steps in (4, 8, 16):
        simulator = keras_sip.NavierStokes(
            (32, 32), spacing=4.0, dt=2 / num_steps, num_steps=num_steps, dtype="float64"
        )
        step = tf.function(simulator.step, autograph=False)
        x, _, _ = sampled_once()
        start = velocity = simulator.initial_velocity(x)
        for _ in range(num_steps):
            velocity = step(velocity)
        velocity = -velocity
        for _ in range(num_steps):
            velocity = step(velocity)
        errors.append(np.sqrt(np.mean((start + velocity) ** 2) / np.mean(start**2)))
    assert errors[0] < 0.25
    # 1.5 to 1.7 at the paper's size.
    assert errors[1] < 0.8 * errors[0] and errors[2] < 0.8 * errors[1]


def sampled_once():
    return sampled(keras_sip.NavierStokes((32, 32), spacing=4.0, num_steps=1, dtype="float64"), batch=4, seed=3)


# Objective and derivatives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [(8, 8), (6, 9)])
def test_objective_is_the_weighted_sum_over_the_whole_spectrum(resolution):
    y, y_target = np.random.default_rng(0).uniform(size=(2, 3, *resolution, 1))
    frequencies = np.stack(np.meshgrid(*(np.fft.fftfreq(n) * n for n in resolution), indexing="ij"), -1)
    weights = np.exp(-0.5 * 1.25**2 * np.sum(frequencies**2, -1))
    difference = (y - y_target)[..., 0]
    modes = np.abs(np.fft.fft2(difference - difference.mean((1, 2), keepdims=True))) * weights
    squares = keras_sip.NavierStokes(resolution, dtype="float64").objective(tf.constant(y), tf.constant(y_target))
    np.testing.assert_allclose(squares, 0.5 * np.sum(modes**2, axis=(1, 2)), rtol=1e-12)
    simulator = keras_sip.NavierStokes(resolution, objective_form="amplitudes", dtype="float64")
    amplitudes = simulator.objective(tf.constant(y), tf.constant(y_target))
    np.testing.assert_allclose(amplitudes, np.sum(np.sqrt(np.maximum(modes**2, 1e-5)), axis=(1, 2)), rtol=1e-12)


def test_equal_markers_cost_the_floor_of_the_amplitudes():
    """4096 sqrt(1e-5) = 12.953, the authors' floor; 0 in the form with squares."""
    marker = tf.ones([1, 64, 64, 1])
    amplitudes = keras_sip.NavierStokes((64, 64), objective_form="amplitudes")
    assert float(amplitudes.objective(marker, marker)[0]) == pytest.approx(4096 * np.sqrt(1e-5), rel=1e-5)
    assert float(keras_sip.NavierStokes((64, 64)).objective(marker, marker)[0]) == 0


@pytest.mark.parametrize("form", ["squares", "amplitudes"])
def test_gradient_of_the_objective_is_the_central_difference(form):
    simulator = keras_sip.NavierStokes((16, 16), num_steps=2, objective_form=form, dtype="float64")
    x, y_target, context = sampled(simulator, batch=1)
    context = smooth_marker(simulator)

    def objective(x):
        return simulator.objective(simulator.forward(x, context), y_target, context)

    compiled = tf.function(objective, autograph=False)
    _, gradient = derivatives.gradient(objective, x)
    direction = np.random.default_rng(0).normal(size=x.shape)
    expected = central_difference(lambda x: compiled(tf.constant(x)).numpy(), x.numpy(), direction, 1e-6)
    # Truncation is 1e-12 relative unless a look-up crosses a grid line within the step: none here; rounding 1e-10.
    np.testing.assert_allclose(np.sum(gradient * direction), expected[0], rtol=1e-6)


@pytest.mark.parametrize("velocity", [0.0, 3.0])
@pytest.mark.parametrize("energy", ["total", "component", "free"])
def test_gradient_is_finite_at_rest_and_for_a_uniform_velocity(velocity, energy):
    simulator = keras_sip.NavierStokes((8, 8), num_steps=2, energy=energy)
    context = smooth_marker(simulator)
    y_target = tf.roll(context["marker"], 1, 1)
    x = tf.fill([1, 8, 8, 2], velocity)
    with tf.GradientTape() as tape:
        tape.watch(x)
        objective = simulator.objective(simulator.forward(x, context), y_target, context)
    gradient = tape.gradient(objective, x).numpy()
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient != 0)


def test_gauss_newton_refuses_the_amplitudes():
    simulator = keras_sip.NavierStokes((8, 8), objective_form="amplitudes")
    with pytest.raises(TypeError, match="whose objective is 1/2 sum r"):
        keras_sip.GaussNewton().check(simulator)
    keras_sip.GaussNewton().check(keras_sip.NavierStokes((8, 8)))


# Data -----------------------------------------------------------------------------------------------------------------


def test_samples_are_what_the_experiment_says():
    simulator = keras_sip.NavierStokes((16, 16), num_steps=1, dt=2.0, spacing=8.0, dtype="float64")
    sample = simulator.sample(256, (0, 0))
    uniform, strength, rest = simulator.swirl.split(sample["x"])
    # The noise has mean 0 and hardly any swirl; the uniform part takes the marker to the middle in t = 2.
    np.testing.assert_allclose(uniform, simulator.swirl.uniform(sample["context"]), rtol=0, atol=1e-12)
    strengths = np.sort(strength[:, 0])
    assert -2.05 < strengths[0] < -1.9 and 1.9 < strengths[-1] < 2.05
    assert np.std(strengths) == pytest.approx(4 / np.sqrt(12), rel=0.1)
    size = np.sqrt(np.mean(np.square(rest), axis=(1, 2, 3)))
    np.testing.assert_allclose(size, 0.1, rtol=0, atol=0.005)


def test_swirl_moment_is_the_papers():
    assert keras_sip.NavierStokes((64, 64)).swirl._unit_moment == pytest.approx(120.5, abs=0.05)


def test_split_gives_back_its_parts():
    simulator = keras_sip.NavierStokes((16, 16), dtype="float64")
    context = smooth_marker(simulator)
    x = simulator.swirl.velocity(tf.constant([[1.3]], tf.float64), context)
    uniform, strength, rest = simulator.swirl.split(x)
    np.testing.assert_allclose(uniform, simulator.swirl.uniform(context), rtol=0, atol=1e-12)
    np.testing.assert_allclose(strength, [[1.3]], rtol=1e-12)
    np.testing.assert_allclose(rest, np.zeros_like(x), rtol=0, atol=1e-12)


def test_frames_begin_with_x_and_end_with_y():
    simulator = keras_sip.NavierStokes((16, 16), num_steps=3, dtype="float64")
    x, y, context = sampled(simulator)
    frames = simulator.frames(x, context)
    assert frames["velocity"].shape == (2, 4, 16, 16, 2) and frames["marker"].shape == (2, 4, 16, 16, 1)
    np.testing.assert_array_equal(frames["marker"][:, 0], context["marker"])
    np.testing.assert_array_equal(frames["marker"][:, -1], y)
    np.testing.assert_array_equal(frames["velocity"][:, 0], staggered.to_centres(simulator.initial_velocity(x)))


def test_network_sees_both_markers():
    simulator = keras_sip.NavierStokes((8, 8), num_steps=1)
    _, y, context = sampled(simulator)
    seen = simulator.network_input({"y": y, "context": context})
    np.testing.assert_array_equal(seen, np.concatenate([context["marker"], y], -1))


def test_distance_is_the_mean_length_of_the_difference():
    x, x_ref = np.random.default_rng(0).normal(size=(2, 3, 8, 8, 2))
    received = keras_sip.NavierStokes((8, 8), dtype="float64").distance(tf.constant(x), tf.constant(x_ref))
    np.testing.assert_allclose(received, np.mean(np.hypot(*np.moveaxis(x - x_ref, -1, 0)), (1, 2)), rtol=1e-13)


# Bad input ------------------------------------------------------------------------------------------------------------


def test_long_steps_warn_with_the_cfl_number():
    simulator = keras_sip.NavierStokes((8, 8), num_steps=1)
    context = smooth_marker(simulator)
    with pytest.warns(UserWarning, match=r"CFL number .* at most 8.*\nReceived 12.5 .max .v. = 100"):
        simulator(np.full((1, 8, 8, 2), -100.0, "float32"), context)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulator(np.full((1, 8, 8, 2), 60.0, "float32"), context)


@pytest.mark.parametrize("value", [1.2, -0.1])
def test_marker_outside_its_range_is_refused(value):
    simulator = keras_sip.NavierStokes((8, 8), num_steps=1)
    good, x = np.ones((1, 8, 8, 1), "float32"), np.ones((1, 8, 8, 2), "float32")
    bad = good.copy()
    bad[0, 3, 3] = value
    with pytest.raises(ValueError, match=r"context\['marker'\]` to be a marker with values from 0 to 1"):
        simulator(x, {"marker": bad})
    with pytest.raises(ValueError, match="`y` to be a marker with values from 0 to 1"):
        keras_sip.from_arrays(simulator, bad, x, {"marker": good})


@pytest.mark.parametrize("context", [None, {}, {"dye": np.ones((1, 8, 8, 1))}])
def test_missing_marker_is_refused(context):
    with pytest.raises(ValueError, match="`context` to hold the first marker"):
        keras_sip.NavierStokes((8, 8))(np.ones((1, 8, 8, 2)), context)


def test_marker_of_wrong_size_is_refused():
    with pytest.raises(ValueError, match=r"context\['marker'\]` of shape \('batch', 8, 8, 1\)"):
        keras_sip.NavierStokes((8, 8))(np.ones((1, 8, 8, 2)), {"marker": np.ones((1, 8, 7, 1))})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"resolution": 8}, "along each of 2 axes"),
        ({"resolution": (8, 8), "dt": 0.0}, "`dt` to be a finite number above 0"),
        ({"resolution": (8, 8), "num_steps": 0}, "`num_steps` to be an integer of at least 1"),
        ({"resolution": (8, 8), "viscosity": -1.0}, "`viscosity` to be a finite number at least 0"),
        ({"resolution": (8, 8), "energy": "kept"}, "`energy` to be one of 'total', 'component', 'free'"),
        ({"resolution": (8, 8), "objective_form": "l2"}, "`objective_form` to be one of 'squares', 'amplitudes'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_sip.NavierStokes(**arguments)
