"""LiteRT's interpreter gives the numbers of the SavedModel."""

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.serving import litert

POISSON = keras_sip.Poisson((8, 8))
pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(signatures of the SavedModel, those of LiteRT)."""
    network = keras_sip.UNet((8, 8, 1), 1, levels=2, filters=4, seed=0)
    model = keras_sip.SIPModel(network, POISSON, keras_sip.AnalyticInverse())
    folder = tmp_path_factory.mktemp("litert")
    model.export(folder / "model")
    litert.write(folder / "model", folder / "model.tflite")
    interpreter = tf.lite.Interpreter(str(folder / "model.tflite"))
    return tf.saved_model.load(str(folder / "model")).signatures, interpreter


@pytest.mark.parametrize("name", litert.SIGNATURES)
@pytest.mark.parametrize("batch", [1, 3])
def test_signatures_agree(exported, name, batch):
    signatures, interpreter = exported
    sample = POISSON.sample(batch, (0, 0))
    inputs = {"x": sample["x"]} if name == "simulate" else {"y": sample["y"]}
    if name == "refine":
        inputs["steps"] = tf.range(batch)
    expected = signatures[name](**inputs)
    answer = interpreter.get_signature_runner(name)(**{key: value.numpy() for key, value in inputs.items()})
    assert set(answer) == set(expected) - {"objective"}
    for key, value in answer.items():
        # Other kernels for the same sums of float32.
        np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-5 * np.max(np.abs(expected[key])))


def test_an_existing_file_is_refused(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="does not exist yet"):
        keras_sip.export_litert(None, path)
    assert path.read_text() == "precious"
