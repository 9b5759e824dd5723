"""Figures: what is drawn are the numbers, and without matplotlib the message says what to install."""

import numpy as np
import pytest

from experiments import figures
from keras_sip import plotting


def test_curves_show_means_and_bands_over_seeds(finished):
    labels = {"sip": "SIP", "adam": "Adam"}
    figure = figures.learning_curves(finished.metrics, labels, figures.colours(labels), "Tiny")
    by_step = figure.axes[0]
    line = next(line for line in by_step.get_lines() if line.get_label() == "SIP")
    curves = [finished.metrics.curve("sip", seed, "x_error") for seed in (0, 1)]
    steps = [step for step in curves[0] if step > 0]
    np.testing.assert_array_equal(line.get_xdata(), steps)
    np.testing.assert_allclose(line.get_ydata(), [np.mean([curve[step] for curve in curves]) for step in steps])
    band = by_step.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(min(curve[step] for curve in curves for step in steps))
    assert band.max() == pytest.approx(max(curve[step] for curve in curves for step in steps))


def test_a_method_keeps_its_colour_whichever_others_are_drawn(finished):
    colours = figures.colours(["sip", "adam", "sgd"])
    assert len(set(colours.values())) == 3
    figure = figures.learning_curves(finished.metrics, {"adam": "Adam"}, colours, "Tiny")
    assert figure.axes[0].get_lines()[0].get_color() == colours["adam"]


def test_reconstructions_share_scales_and_put_the_x_axis_across():
    generator = np.random.default_rng(0)
    y_target, x_true, x = generator.standard_normal((3, 2, 8, 6, 1))
    figure = figures.reconstructions(y_target, x_true, {"SIP": x, "Adam": 2 * x})
    images = [axes.get_images()[0] for axes in figure.axes[:12]]
    np.testing.assert_array_equal(images[0].get_array(), y_target[0, ..., 0].T)
    np.testing.assert_allclose(images[4].get_array(), (x - x_true)[0, ..., 0].T)
    largest = max(np.abs(2 * x).max(), np.abs(x_true).max())
    assert {image.get_clim() for image in images[1:4] + images[7:10]} == {(-largest, largest)}
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles == ["observation\ny_target", "SIP\nx", "Adam\nx", "truth\nx", "SIP\nx − truth", "Adam\nx − truth"]


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(plotting, "available", lambda: False)
    with pytest.raises(ImportError, match=r'pip install "\.\[plots\]"'):
        figures.reconstructions(np.zeros((1, 4, 4, 1)), np.zeros((1, 4, 4, 1)), {})
