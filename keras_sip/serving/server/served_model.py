"""A SavedModel on disk as functions of NumPy arrays, whose batch sizes are powers of two."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part
from keras_sip.files import CHECKSUMS, verify_checksums
from keras_sip.serving.pretrained import SAVED_MODEL, find_pretrained
from keras_sip.untrusted import one_line

DEFAULT_SIGNATURE = "serving_default"
GRAPH = "saved_model.pb"
NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Input(NamedTuple):
    """An input of a signature: its dtype, the shape of one example, and whether it has a batch axis."""

    dtype: np.dtype
    shape: tuple[int, ...]
    is_batched: bool


class Found(NamedTuple):
    """Where a SavedModel is, its version, and the name that it is served under."""

    name: str
    version: str
    folder: pathlib.Path


class ServedModel:
    """The signatures of a SavedModel.

    Args:
        found: What `find_model` says.

    Attributes:
        name, version: Of the model.
        signatures: {name: {input: `Input`}}.

    Raises:
        ValueError: TensorFlow cannot read it.
    """

    def __init__(self, found: Found):
        self.name, self.version, self.folder = found
        try:
            # Kept: its variables vanish with it.
            self._loaded = tf.saved_model.load(str(self.folder))
        except Exception as error:  # Whatever a damaged protocol buffer ends in.
            raise ValueError(
                three_part(
                    f"a SavedModel that TensorFlow {tf.__version__} can read in {self.folder}",
                    f"{type(error).__name__}: {one_line(error)}",
                    "Export it anew: model.export(path).",
                )
            ) from error
        self._functions = dict(self._loaded.signatures)
        self.signatures = {name: _inputs(function) for name, function in self._functions.items()}

    def __call__(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs `[B, ...]` of checked inputs; the batch is padded to a power of two by its last example.

        The graph is so run for few sizes, and what is compiled or chosen for a size is found again.
        """
        specs = self.signatures[signature]
        batched = [name for name in inputs if specs[name].is_batched]
        examples = len(inputs[batched[0]])
        padding = padded_size(examples) - examples
        tensors = {
            name: tf.constant(_padded(value, padding) if name in batched else value, specs[name].dtype)
            for name, value in inputs.items()
        }
        answer = self._functions[signature](**tensors)
        return {name: value.numpy()[:examples] for name, value in answer.items()}

    def warm_up(self, largest_batch: int) -> None:
        """Run the default signature at each batch size, so that no request waits for a first call."""
        examples = 1
        while examples <= padded_size(largest_batch):
            inputs = {
                name: np.zeros((examples, *spec.shape) if spec.is_batched else spec.shape, spec.dtype)
                for name, spec in self.signatures[DEFAULT_SIGNATURE].items()
            }
            self(DEFAULT_SIGNATURE, inputs)
            examples *= 2


def find_model(name_or_folder: str, models: pathlib.Path | None = None) -> Found:
    """A model that ships, or a folder of one's own: a SavedModel, or the highest of versions `1`, `2`, ... of it.

    Checksums beside it are verified.

    Raises:
        ValueError: There is none, or its name is no part of an address.
        DamagedFileError: A file is not what its checksum says.
    """
    folder = pathlib.Path(name_or_folder)
    if not folder.is_dir():
        folder = find_pretrained(name_or_folder, models)
    name = folder.resolve().name
    if not NAME.fullmatch(name):
        raise ValueError(
            three_part(
                "a folder whose name is letters, digits, `_`, `.` and `-`, as part of an address",
                repr(name),
                "Rename it.",
            )
        )
    if _holds_graph(folder / SAVED_MODEL):
        folder = folder / SAVED_MODEL
    version = "1"
    if not _holds_graph(folder):
        versions = _versions(folder)
        if not versions:
            raise ValueError(
                three_part(
                    f"{GRAPH} in {folder}, or in versions 1, 2, ... below it",
                    "neither",
                    "Write one with model.export(path).",
                )
            )
        version = str(max(versions))
        folder = folder / version
    if (folder / CHECKSUMS).exists():
        verify_checksums(folder)
    return Found(name, version, folder)


def padded_size(examples: int) -> int:
    """The least power of two that is not below `examples`."""
    return 1 << (check_positive_int("examples", examples) - 1).bit_length()


def _versions(folder):
    # As TensorFlow Serving reads it; "01" would be another folder than "1".
    names = (path.name for path in folder.iterdir() if _holds_graph(path))
    return [int(name) for name in names if name.isascii() and name.isdecimal() and name == str(int(name))]


def _holds_graph(folder):
    return (folder / GRAPH).is_file()


def _inputs(function):
    _, specs = function.structured_input_signature
    return {name: _input(spec) for name, spec in specs.items()}


def _input(spec: Any) -> Input:
    # Steps of `refine` may be a scalar or one for each example: the graph takes any rank. Here each has its own.
    if spec.shape.rank is None:
        return Input(np.dtype(spec.dtype.as_numpy_dtype), (), True)
    is_batched = spec.shape.rank > 0 and spec.shape[0] is None
    return Input(np.dtype(spec.dtype.as_numpy_dtype), tuple(spec.shape[1:] if is_batched else spec.shape), is_batched)


def _padded(value, padding):
    return np.concatenate([value, np.repeat(value[-1:], padding, axis=0)]) if padding else value
