"""Exported models serve named signatures, without keras_sip's Python code."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems


def exported(simulator, network, path):
    model = keras_sip.SIPModel(network, simulator, keras_sip.GaussNewton())
    keras_sip.export_saved_model(model, path)
    return model, tf.saved_model.load(path)


def test_infer_and_simulate_equal_the_model_for_any_batch_size(tmp_path):
    simulator = keras_sip.Poisson((8, 8))
    model, loaded = exported(simulator, keras_sip.UNet((8, 8, 1), 1, levels=2, filters=4), tmp_path / "model")
    for batch in (1, 3):
        sample = simulator.sample(batch, (0, 0))
        x = loaded.signatures["infer"](y=sample["y"])["x"]
        np.testing.assert_allclose(x, model(sample["y"]), rtol=1e-5, atol=1e-6)
        y = loaded.signatures["simulate"](x=sample["x"])["y"]
        np.testing.assert_allclose(y, sample["y"], rtol=1e-5, atol=1e-4)


def test_context_entries_are_named_arguments(tmp_path):
    simulator = problems.MaskedSensors()
    inputs = keras.Input((4,))
    network = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    _, loaded = exported(simulator, network, tmp_path / "model")
    sample = simulator.sample(5, (0, 0))
    y = loaded.signatures["simulate"](x=sample["x"], context_mask=sample["context"]["mask"])["y"]
    np.testing.assert_allclose(y, sample["y"], rtol=1e-12)


def test_an_existing_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "precious.txt").write_text("data")
    simulator = keras_sip.Poisson((8, 8))
    with pytest.raises(FileExistsError, match="does not exist yet"):
        exported(simulator, keras_sip.UNet((8, 8, 1), 1, levels=2, filters=4), tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious.txt"]
