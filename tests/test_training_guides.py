"""What the guides to networks, observations and training show runs as it stands, in an empty folder."""

import keras
import numpy as np

import documentation
import keras_sip
from eager import eagerly


def test_own_networks_learn(folder):
    names = documentation.run_page("docs/own_network.md", shorter=[("steps_per_epoch=500", "steps_per_epoch=200")])
    y, x = keras_sip.evaluation_set(names["LogDecay"](), 500, seed=1)
    # Answering the mean of x everywhere is off by half of its range over two.
    assert np.mean(np.abs(names["model"].predict(y, verbose=0) - x)) < 0.25
    assert isinstance(names["network"], keras.Model) and names["network"].output_shape == (None, 64, 64, 1)


def test_noise_masks_and_context(folder):
    # Fewer cells, steps and levels of the U-Net as well, too few for a graph to be worth its tracing.
    sizes = [("(32, 32", "(16, 16"), ("(40, 32, 32, 1)", "(16, 16, 16, 1)"), ("full(40,", "full(16,")]
    shorter = [("steps_per_epoch=20,", "steps_per_epoch=1,"), ("levels=3", "levels=1"), *sizes]
    with eagerly():
        names = documentation.run_page("docs/observations.md", shorter=shorter, examples=slice(3))
    shorter = [("steps_per_epoch=200", "steps_per_epoch=100")]
    names = documentation.run_page("docs/observations.md", shorter=shorter, names=names, examples=slice(3, None))
    # Temperatures near 100 in float32 determine the first one and the rate to 1e-4.
    assert np.max(np.abs(names["x"] - names["x_true"])) < 1e-3
    residual = names["Weighed"]().residual(np.ones((1, 8), "float32"), np.zeros((1, 8), "float32"))
    np.testing.assert_allclose(residual, [[10.0] * 4 + [2.0] * 4])


def test_own_method_trains_and_is_saved(folder):
    with eagerly():
        shorter = [("steps_per_execution=50", "steps_per_execution=2"), ("steps_per_epoch=200", "steps_per_epoch=4")]
        names = documentation.run_page("docs/own_method.md", shorter=shorter, examples=slice(1))
    shorter = [("steps_per_epoch=200", "steps_per_epoch=50")]
    names = documentation.run_page("docs/own_method.md", shorter=shorter, names=names, examples=slice(1, None))
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


def test_training_methods_where_there_are_several_answers(folder):
    shorter = [("steps_per_epoch=500", "steps_per_epoch=200")]
    names = documentation.run_page("docs/training_methods.md", shorter=shorter, examples=slice(1))
    # The others show no more than that they run: too few steps for a graph to be worth its tracing.
    shorter = [("steps=300, batch=100, seeds=(0, 1)", "steps=10"), ("supervised_steps=100", "supervised_steps=2")]
    shorter += [("steps_per_execution=50", "steps_per_execution=2"), ("steps_per_epoch=200", "steps_per_epoch=4")]
    with eagerly():
        documentation.run_page(
            "docs/training_methods.md",
            shorter=[*shorter, ("epochs=10", "epochs=1")],
            names=names,
            examples=slice(1, None),
        )
    # Half of the range is what an answer of 45 degrees misses on average: the integral of 1 - sin over its period.
    assert names["misses"]["supervised"] > 0.2
    assert names["misses"]["sip"] < 0.03 and names["misses"]["adjoint"] < 0.06


def _imports():
    return documentation.run("import dataclasses\nimport keras\nimport keras_sip\nimport tensorflow as tf\n")
