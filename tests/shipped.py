"""A tiny trained model in a folder like those that ship, for the tests of loading and of the command line."""

import os

import keras_sip
from keras_sip.files import new_folder, write_atomically, write_checksums
from keras_sip.serving import card
from keras_sip.serving.export import MANIFEST, manifest
from keras_sip.serving.pretrained import MODEL

SIMULATOR = keras_sip.Poisson((8, 8))


def make_model():
    network = keras_sip.UNet((8, 8, 1), 1, levels=1, filters=2, seed=0)
    model = keras_sip.SIPModel(network, SIMULATOR, keras_sip.AnalyticInverse())
    model.compile("adam")
    return model


def write(path, model, version=None):
    """The folder, without the SavedModel that the loader does not read."""
    with new_folder(path) as folder:
        model.save(folder / MODEL)
        text = manifest(model, {})
        if version is not None:
            text = text.replace(f'"keras_sip": "{keras_sip.__version__}"', f'"keras_sip": "{version}"')
        write_atomically(folder / MANIFEST, text.encode())
        card.write_card(folder, "# Tiny\n", {"measured": {"x_error sip": 0.25}})
        write_checksums(folder)


def talkative():
    """An environment in which TensorFlow says what it can: without a GPU, and with oneDNN."""
    kept = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return kept | {"TF_ENABLE_ONEDNN_OPTS": "1", "CUDA_VISIBLE_DEVICES": ""}
