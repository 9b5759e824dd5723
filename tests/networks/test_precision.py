"""Networks in bfloat16 around physics in float64: copies, the choice, training, and what is served."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.networks import precision

SIMULATOR = keras_sip.Poisson((4, 4), dtype="float64")
# The unit roundoff of bfloat16; a few layers in a row.
ROUNDING = 2.0**-8


@pytest.fixture(scope="module")
def model():
    """Two steps of training in bfloat16."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
            layers.Conv2D(1, 1, name="head"),
        ]
    )
    built = keras_sip.SIPModel(network, SIMULATOR, keras_sip.AnalyticInverse(), precision="mixed_bfloat16")
    built.compile(keras.optimizers.Adam(1e-3))
    built.fit(keras_sip.dataset(SIMULATOR, 4, seed=0), steps_per_epoch=2, verbose=0)
    return built


def relative(a, b):
    return np.max(np.abs(a - b)) / np.max(np.abs(b))


def test_a_copy_has_the_weights_and_rounds_between_layers():
    network = keras_sip.MLP(3, 2, (16, 16), seed=0)
    copy = keras_sip.with_precision(network, "mixed_bfloat16")
    x = np.random.default_rng(0).standard_normal((32, 3)).astype("float32")
    for ours, theirs in zip(copy.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert {layer.compute_dtype for layer in copy.layers if "hidden" in layer.name} == {"bfloat16"}
    assert copy.get_layer("head").compute_dtype == "float32"
    assert {weight.dtype for weight in copy.weights} == {"float32"}
    assert ROUNDING / 100 < relative(copy(x).numpy(), network(x).numpy()) < 4 * ROUNDING
    again = keras_sip.with_precision(copy, "float32")
    np.testing.assert_array_equal(again(x), network(x))
    assert keras_sip.with_precision(again, "float32") is again


@pytest.mark.parametrize("half, chosen", [(0.5, "bfloat16"), (0.9, "float32")])
def test_auto_takes_what_is_clearly_faster_and_says_so(half, chosen, monkeypatch, caplog):
    network = keras_sip.MLP(3, 2, (5,), seed=0)
    monkeypatch.setattr(precision, "_found", {})
    monkeypatch.setattr(
        precision, "_step", lambda copy: lambda: half if copy.get_layer("hidden_1").compute_dtype == "bfloat16" else 1.0
    )
    with caplog.at_level(logging.INFO, "keras_sip"):
        found = keras_sip.with_precision(network, "auto")
        keras_sip.with_precision(network, "auto")
    assert found.get_layer("hidden_1").compute_dtype == chosen
    assert len(caplog.records) == 1
    assert f"1e+03 ms in float32, {1e3 * half:g} ms in bfloat16" in caplog.text


def test_a_timed_step_is_one_that_trains():
    seconds = precision._step(keras_sip.MLP(3, 2, (5,), seed=0))
    assert 0 < seconds() < 60


def test_physics_keep_their_precision(model):
    """The loss of what the network answers is that of NumPy in float64."""
    observation, x = keras_sip.evaluation_set(SIMULATOR, 4, seed=0)
    assert model.network.get_layer("conv").compute_dtype == "bfloat16"
    answer = model.predict(observation, verbose=0)
    assert answer.dtype == "float64"
    losses = 0.5 * np.sum((SIMULATOR(answer) - observation).numpy() ** 2, axis=(1, 2, 3))
    loss = model.evaluate(observation, x, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(np.mean(losses), rel=1e-12)


def test_a_saved_model_answers_as_the_model_does(model, tmp_path):
    observation, _ = keras_sip.evaluation_set(SIMULATOR, 4, seed=0)
    expected = model.predict(observation, verbose=0)
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["infer"](y=observation)["x"]
    # The same kernels in another graph: sums may round otherwise, by some units of bfloat16.
    assert relative(served.numpy(), expected) < 4 * ROUNDING
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert relative(loaded.predict(observation, verbose=0), expected) < 4 * ROUNDING


def test_onnx_answers_in_float32(model, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    observation, _ = keras_sip.evaluation_set(SIMULATOR, 4, seed=0)
    model.export(tmp_path / "model.onnx", format="onnx")
    answers = runtime.InferenceSession(tmp_path / "model.onnx").run(["x"], {"y": observation.numpy()})[0]
    single = keras_sip.with_precision(model.network, "float32")(observation / model.input_scale) * model.x_scale
    np.testing.assert_allclose(answers, single, rtol=0, atol=1e-5 * np.max(np.abs(single)))


def test_what_cannot_be_copied_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="can be copied"):
        keras_sip.with_precision(Subclassed(), "mixed_bfloat16")
    with pytest.raises(ValueError, match="'mixed_bfloat16'"):
        keras_sip.with_precision(keras_sip.MLP(1, 1), "float16")
