"""Trained models that ship with the package, by name."""

import json
import pathlib
import warnings

import keras

from keras_sip._version import __version__
from keras_sip.errors import three_part
from keras_sip.files import CHECKSUMS, DamagedFileError, verify_checksums
from keras_sip.serving.export import MANIFEST
from keras_sip.serving.signing import verify_signature
from keras_sip.untrusted import one_line

MODEL = "model.keras"
SAVED_MODEL = "saved_model"
# In an installed package beside this file, in a checkout at its root.
PACKAGE = pathlib.Path(__file__).parents[1]
# Inside an installed package, or beside it in a checkout.
PLACES = (PACKAGE / "saved_models", PACKAGE.parent / "saved_models")


def load_pretrained(name, folder=None, *, trust=None):
    """The trained `SIPModel` of an application, ready to `predict` and `refine`.

    The files' checksums are verified first: that they are whole. With `trust` so is who signed them. Loading keeps
    Keras' safe mode: no code of the file is run.

    Args:
        name: Such as "poisson"; `python -m keras_sip list` shows all.
        folder: Where the models are, if not those that ship.
        trust: The Ed25519 public key that must have signed the model (`keras_sip.serving.signing.sign`): a PEM file, or
            `cryptography`'s object; None asks for no signature.

    Raises:
        ValueError: There is no such model; the message lists those that are there.
        UntrustedError: It is not signed by the key.
        DamagedFileError: A file is missing, truncated or changed.
    """
    path = find_pretrained(name, folder)
    if trust is not None:
        verify_signature(path, trust)
    description = read_manifest(path)
    written_by = one_line(description["keras_sip"])
    if written_by != __version__:
        warnings.warn(
            three_part(
                f"a model written by keras_sip {__version__}, the version installed here",
                f"{path}, written by {written_by}",
                f"If its answers look wrong, install {written_by} from its source: pip install . in a checkout of it.",
            ),
            stacklevel=2,
        )
    try:
        return keras.saving.load_model(path / MODEL)
    except Exception as error:
        remedy = f"Install {written_by}, which wrote it, from its source: pip install . in a checkout of it."
        if "safe_mode=False" in str(error):
            remedy = (
                "It holds Python code, such as that of a Lambda layer, which would run with your rights when loaded. "
                "Ask for one made of registered layers; whose code you have read and trust, you may load by "
                "keras.saving.load_model(path, safe_mode=False)."
            )
        raise ValueError(
            three_part(
                f"a model that keras_sip {__version__} can read in {path}",
                f"one written by {written_by}, on which Keras {keras.__version__} says: {_first_line(error)}",
                remedy,
            )
        ) from error


def list_pretrained(folder=None):
    """{name: path} of the trained models that are there."""
    places = PLACES if folder is None else (pathlib.Path(folder),)
    found = {}
    for place in places:
        for path in sorted(place.glob(f"*/{CHECKSUMS}")):
            found.setdefault(path.parent.name, path.parent)
    return found


def find_pretrained(name, folder=None):
    """The folder of a trained model whose files are whole."""
    found = list_pretrained(folder)
    if not isinstance(name, str) or name not in found:
        raise ValueError(
            three_part(
                f"the name of a trained model, one of: {', '.join(found) or '(none is installed)'}",
                f"{name!r}",
                "Choose a listed name, or train one: python applications/ship.py NAME",
            )
        )
    verify_checksums(found[name])
    return found[name]


def read_manifest(path):
    """What `keras_sip.json` of a trained model says."""
    try:
        description = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        complete = {"keras_sip", "y_shape", "x_shape", "dtype"} <= description.keys()
    except (OSError, ValueError, AttributeError) as error:
        description, complete = str(error), False
    if not complete:
        raise DamagedFileError(
            three_part(
                f"{path / MANIFEST} to say which version wrote the model, and its shapes",
                f"{description}",
                "Copy or install the folder again.",
            )
        )
    return description


def _first_line(error):
    return one_line(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
