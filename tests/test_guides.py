"""What the guides show runs as it stands, one block after the other in an empty folder, and gives what they say."""

import keras
import numpy as np
import pytest

import documentation
import keras_sip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tutorial_leads_to_error_bars_that_are_right_and_served(folder):
    names = documentation.run_page(
        "docs/tutorial.md", shorter=[("steps_per_epoch=1000", "steps_per_epoch=100"), ("examples=500", "examples=100")]
    )
    assert names["report"].passed and names["calibration"].passed
    # Of 2,000 central 95 % intervals of a sound posterior fewer than 90 % hold the truth once in a lifetime; x is
    # uniform and not normal, the noise level is not quite one number, and Laplace's posterior is an approximation.
    held = np.abs(names["x"] - names["x_true"]) < 1.96 * names["error_bar"]
    assert np.mean(held) > 0.9
    # The truth behind the measurement is (12, 10, 12, 0.4).
    mean, deviation = names["posterior"].mean().numpy()[0], names["posterior"].stddev().numpy()[0]
    assert np.all(np.abs(mean - [12.0, 10.0, 12.0, 0.4]) < 3 * deviation)
    np.testing.assert_allclose(names["answer"]["x"][0], mean, atol=0.1 * np.min(deviation))
    np.testing.assert_allclose(names["answer"]["stddev"][0], deviation, rtol=1e-2)


def test_own_simulator_checks_diagnoses_trains_and_refines(folder):
    # Refinement starts well enough after a fifth of the training.
    names = documentation.run_page("docs/own_simulator.md", shorter=[("steps_per_epoch=1000", "steps_per_epoch=200")])
    assert names["report"].passed
    assert isinstance(names["diagnosis"].solver, keras_sip.InverseSolver)
    # Noise-free intensities determine the position to the rounding of float32.
    assert np.median(np.abs(names["refined"] - names["x_true"])) < 1e-5
    # The guide says 0.9: two starts of twenty end in another valley.
    assert names["solved"] >= 0.85


def test_own_solver_solves_trains_and_is_saved(folder):
    names = documentation.run_page("docs/own_solver.md", shorter=[("steps_per_epoch=300", "steps_per_epoch=50")])
    assert names["report"].passed
    # Gradient descent on a problem of condition 30: 50 steps leave a few digits.
    assert np.median(np.abs(names["result"].x - names["x_true"])) < 1e-3
    # The noise-free decay is a straight line, to the rounding of its logarithm.
    assert np.max(np.abs(names["found"].x - names["x_true"])) < 1e-5
    assert names["loaded"].solver == names["model"].solver


def test_own_method_trains_and_is_saved(folder):
    names = documentation.run_page("docs/own_method.md", shorter=[("steps_per_epoch=200", "steps_per_epoch=50")])
    assert names["loaded"].method == names["HuberSIP"](delta=0.5)
    y, x = keras_sip.evaluation_set(names["simulator"], 200, seed=1)
    untrained = keras_sip.SIPModel(keras_sip.MLP(2, 2, seed=0), names["simulator"], method="adjoint")
    before, after = (
        np.mean(names["simulator"].distance(model.predict(y, verbose=0), x)) for model in (untrained, names["loaded"])
    )
    assert after < before / 2


def test_huber_shortens_long_updates_only(folder):
    own = documentation.run(documentation.blocks("docs/own_method.md")[1].split("\n\nmodel =")[0], _imports())[
        "HuberSIP"
    ]
    update = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], "float32")
    np.testing.assert_allclose(own(delta=1.0).direction(update), [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], rtol=1e-6)


def test_own_networks_learn(folder):
    names = documentation.run_page("docs/own_network.md", shorter=[("steps_per_epoch=500", "steps_per_epoch=200")])
    y, x = keras_sip.evaluation_set(names["LogDecay"](), 500, seed=1)
    # Answering the mean of x everywhere is off by half of its range over two.
    assert np.mean(np.abs(names["model"].predict(y, verbose=0) - x)) < 0.25
    assert isinstance(names["network"], keras.Model) and names["network"].output_shape == (None, 64, 64, 1)


def test_noise_masks_and_context(folder):
    shorter = [("steps_per_epoch=200", "steps_per_epoch=100"), ("steps_per_epoch=20,", "steps_per_epoch=1,")]
    names = documentation.run_page("docs/observations.md", shorter=shorter)
    # Temperatures near 100 in float32 determine the first one and the rate to 1e-4.
    assert np.max(np.abs(names["x"] - names["x_true"])) < 1e-3
    residual = names["Weighed"]().residual(np.ones((1, 8), "float32"), np.zeros((1, 8), "float32"))
    np.testing.assert_allclose(residual, [[10.0] * 4 + [2.0] * 4])


def test_training_methods_where_there_are_several_answers(folder):
    shorter = [("steps_per_epoch=500", "steps_per_epoch=200"), ("steps=300, batch=100, seeds=(0, 1)", "steps=50")]
    names = documentation.run_page("docs/training_methods.md", shorter=shorter)
    # Half of the range is what an answer of 45 degrees misses on average: the integral of 1 - sin over its period.
    assert names["misses"]["supervised"] > 0.2
    assert names["misses"]["sip"] < 0.03 and names["misses"]["adjoint"] < 0.06


def _imports():
    return documentation.run("import dataclasses\nimport keras\nimport keras_sip\nimport tensorflow as tf\n")
