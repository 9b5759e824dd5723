"""Checks that must pass before Keras is imported: on a wrong backend Keras would fail first, and less clearly."""

import importlib.util
import json
import os
import sys

from keras_sip.errors import three_part


def check_environment() -> None:
    """Raise an ImportError unless Keras runs, or will run, on TensorFlow, and tf-keras is installed.

    Every other setting of Keras (floatx, image data format) is left as the user made it.
    """
    _check_backend()
    _check_tf_keras()


def _check_backend():
    # Keras decides once, when this module of it is first imported. A later `import keras` keeps that decision even if
    # the first one failed (no jax installed) or was made for the user by `import tensorflow`.
    imported_config = sys.modules.get("keras.src.backend.config")
    if imported_config is not None:
        backend = imported_config.backend()
        origin = "Keras, which was imported in this process before keras_sip"
        remedy = "Start Python again after this line in the shell: export KERAS_BACKEND=tensorflow"
    elif os.environ.get("KERAS_BACKEND"):
        backend = os.environ["KERAS_BACKEND"]
        origin = "the environment variable KERAS_BACKEND"
        remedy = "Run this line in the shell, then start Python again: export KERAS_BACKEND=tensorflow"
    else:
        settings_path = _keras_settings_path()
        backend = _read_settings(settings_path).get("backend", "tensorflow")
        origin = f"the file {settings_path}"
        remedy = (
            'Change its line to: "backend": "tensorflow". Or leave the file and run this line in the shell, then start '
            "Python again: export KERAS_BACKEND=tensorflow"
        )
    if backend != "tensorflow":
        raise ImportError(
            three_part(
                "Keras to use the 'tensorflow' backend, the only one that keras_sip runs on",
                f"{backend!r} from {origin}",
                remedy,
            )
        )


def _keras_settings_path():
    """Return the path of the settings file, found as `keras/src/backend/config.py` finds it."""
    user_home = os.path.expanduser("~")
    if not os.access(user_home, os.W_OK):
        user_home = "/tmp"
    keras_home = os.environ.get("KERAS_HOME", os.path.join(user_home, ".keras"))
    return os.path.expanduser(os.path.join(keras_home, "keras.json"))


def _read_settings(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        # Keras, too, goes on with its defaults when the file is missing or is not JSON.
        return {}


def _check_tf_keras():
    if importlib.util.find_spec("tf_keras") is None:
        raise ImportError(
            three_part(
                "the package tf-keras, which TensorFlow Probability imports without requiring it",
                f"a Python environment without it ({sys.prefix})",
                f'Install it: {sys.executable} -m pip install "tf-keras>=2.21,<2.22"',
            )
        )
