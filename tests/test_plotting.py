"""Pictures show the numbers: fields on shared colours, flows as arrows over vorticity, vectors as lines."""

import numpy as np
import pytest

from keras_sip import plotting

GENERATOR = np.random.default_rng(0)


def test_fields_of_one_quantity_share_their_colours_and_one_bar():
    y_target, y, x, x_true = GENERATOR.standard_normal((4, 2, 8, 6, 1))
    figure = plotting.answers(y_target, x, 3 * y, x_true)
    panels, bars = figure.axes[:12], figure.axes[12:]
    images = [axes.get_images()[0] for axes in panels]
    np.testing.assert_array_equal(images[0].get_array(), y_target[0, ..., 0].T)
    np.testing.assert_allclose(images[11].get_array(), (x - x_true)[1, ..., 0].T)
    largest = max(np.abs(y_target).max(), np.abs(3 * y).max())
    assert {image.get_clim() for image in (images[0], images[1], images[6], images[7])} == {(-largest, largest)}
    assert [bar.get_xlabel() for bar in bars] == ["y", "y error", "x", "x error"]
    assert panels[5].get_xlabel() == f"mean |error| {np.abs(x - x_true)[0].mean():.3g}"


def test_flows_are_arrows_over_their_vorticity():
    # A solid rotation u = -(j - c), v = i - c has vorticity 2 everywhere.
    i, j = np.meshgrid(np.arange(8.0) - 3.5, np.arange(8.0) - 3.5, indexing="ij")
    flow = np.stack([-j, i], axis=-1)[None]
    figure = plotting.field_panels([("velocity", {"true": flow}, plotting.FIELD_MAP)])
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.get_images()[0].get_array(), 2.0)
    arrows = next(entry for entry in axes.collections if hasattr(entry, "U"))
    # Images and arrows have rows first, our arrays the x axis.
    np.testing.assert_allclose(arrows.U.reshape(8, 8), flow[0, ..., 0].T)
    np.testing.assert_allclose(arrows.V.reshape(8, 8), flow[0, ..., 1].T)
    assert figure.axes[1].get_xlabel() == "velocity (vorticity)"


@pytest.mark.parametrize("x_shape", [(3,), (16, 1)])
def test_vectors_and_profiles_are_lines_of_prediction_and_truth(x_shape):
    x, x_true = GENERATOR.standard_normal((2, 2, *x_shape))
    y_target, y = GENERATOR.standard_normal((2, 2, 5))
    figure = plotting.answers(y_target, x, y, x_true)
    right = figure.axes[3]
    lines = {line.get_label(): line.get_ydata() for line in right.get_lines()}
    np.testing.assert_array_equal(lines["predicted"], x[1].reshape(-1))
    np.testing.assert_array_equal(lines["true"], x_true[1].reshape(-1))


def test_a_few_numbers_are_points_over_the_true_ones():
    y_target, y, x, x_true = GENERATOR.standard_normal((4, 50, 2))
    figure = plotting.answers(y_target, x, y, x_true)
    shown = [axes.get_lines()[1].get_xydata() for axes in figure.axes]
    expected = [np.stack([a[:, i], b[:, i]], 1) for a, b in ((y_target, y), (x_true, x)) for i in (0, 1)]
    np.testing.assert_array_equal(shown, expected)
    assert figure.axes[3].get_ylabel() == "predicted x, component 1"
    assert len(plotting.answers(y_target, x, y).axes) == 2


def test_error_bars_of_fields_are_a_column_from_0_up():
    y_target, y, x, x_true = GENERATOR.standard_normal((4, 2, 8, 6, 1))
    stddev = GENERATOR.uniform(1, 2, (2, 8, 6, 2))
    figure = plotting.answers(y_target, np.tile(x, 2), y, np.tile(x_true, 2), stddev=stddev)
    image = figure.axes[6].get_images()[0]
    np.testing.assert_allclose(image.get_array(), np.hypot(stddev[0, ..., 0], stddev[0, ..., 1]).T)
    assert image.get_clim()[0] == 0
    assert figure.axes[-1].get_xlabel() == "x stddev"


def test_error_bars_of_vectors_and_points_are_one_deviation_to_each_side():
    x, x_true, y, y_target = GENERATOR.standard_normal((4, 2, 5))
    band = plotting.answers(y_target, x, y, x_true, stddev=np.full((2, 5), 0.5)).axes[1].collections[0]
    corners = band.get_paths()[0].vertices
    assert np.max(corners[:, 1]) == pytest.approx(np.max(x[0]) + 0.5)
    few = (value[:, :1] for value in (y_target, x, y, x_true))
    bars = plotting.answers(*few, stddev=np.full((2, 1), 0.5)).axes[1].collections[0]
    np.testing.assert_allclose(np.ptp(bars.get_segments()[0][:, 1]), 1.0)


def test_three_dimensional_fields_show_their_middle_slice():
    x = GENERATOR.standard_normal((1, 4, 5, 6, 1))
    figure = plotting.answers(x, x, x)
    np.testing.assert_array_equal(figure.axes[0].get_images()[0].get_array(), x[0, :, :, 3, 0].T)


def test_a_field_of_zeros_or_of_nan_is_drawn():
    for value in (0.0, np.nan):
        field = np.full((1, 4, 4, 1), value)
        assert plotting.png(plotting.answers(field, field, field)).startswith(b"\x89PNG")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(plotting, "available", lambda: False)
    with pytest.raises(ImportError, match=r'pip install "\.\[plots\]"'):
        plotting.answers(*np.zeros((3, 1, 4, 4, 1)))
