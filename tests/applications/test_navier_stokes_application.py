"""What the fluid's application measures and draws beside the runner's own."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import navier_stokes
from _fluid_pictures import flow_animation, flow_figure, vorticity

SIMULATOR = keras_sip.NavierStokes((16, 16), spacing=8.0, num_steps=1, dt=2.0)


@pytest.fixture(scope="module")
def sample():
    return SIMULATOR.sample(2, (0, 0))


def test_error_parts_each_see_their_own_part(sample):
    """A shift of the uniform velocity by (3, 4) and of the strength by 0.5."""
    x_true = sample["x"]
    swirl = SIMULATOR.swirl.velocity(tf.fill([2, 1], 0.5), sample["context"])
    swirl -= SIMULATOR.swirl.uniform(sample["context"])[:, None, None, :]
    x = x_true + swirl + tf.constant([3.0, 4.0])
    parts = navier_stokes.EXPERIMENT.error_parts
    assert list(parts) == ["uniform_error", "swirl_error", "small_scale_error"]
    expected = {"uniform_error": 5.0, "swirl_error": 0.5, "small_scale_error": 0.0}
    for name, part in parts.items():
        # float32 differences of velocities near 30.
        np.testing.assert_allclose(part(SIMULATOR, x, x_true), [expected[name]] * 2, rtol=0, atol=1e-4, err_msg=name)


def test_vorticity_of_a_shear_flow():
    """u = sin(y): the curl is -cos(y); central differences give it times sin(h) / h."""
    y = 2 * np.pi * np.arange(16) / 16
    velocity = np.zeros((1, 16, 16, 2))
    velocity[..., 0] = np.sin(y)
    expected = np.broadcast_to(-np.sin(2 * np.pi / 16) * np.cos(y), (1, 16, 16))
    np.testing.assert_allclose(vorticity(velocity)[..., 0], expected, rtol=0, atol=1e-14)


def test_pictures_are_drawn(sample, tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    observation = {"y": sample["y"], "context": sample["context"]}
    predictions = {"one": 0.5 * sample["x"].numpy()}
    figure = flow_figure(SIMULATOR, observation, sample["x"], predictions)
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles[1:] == ["truth\nvelocity", "one\nvelocity", "truth\nvorticity", "one\nvorticity"]
    context = {"marker": sample["context"]["marker"][:1]}
    path = tmp_path / "flow.gif"
    flow_animation(SIMULATOR, context, {"truth": sample["x"][:1], "one": predictions["one"][:1]}, path)
    assert image.open(path).n_frames == SIMULATOR.num_steps + 1
