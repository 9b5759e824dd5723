"""Checkpoints of a training run, keyed on the step: everything that a step reads, bit by bit, behind a checksum."""

import hashlib
import json
import math
import os
import pathlib
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_sip._version import __version__
from keras_sip.errors import check_positive_int, three_part
from keras_sip.files import DamagedFileError, OutputError, write_atomically, writing

MAGIC = b"keras_sip checkpoint 1\n"
KEPT = 2


class Checkpoints:
    """The checkpoints of one run in one folder: the last two are kept.

    A checkpoint holds weights, moving statistics, states of random generators, the optimizer's state and the sums of
    the metrics. Nothing in it is executed when it is read. The file: a line of magic, the SHA-256 of all that
    follows, a line of JSON that describes the variables, their bytes.

    Args:
        folder: Made when it does not exist.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = pathlib.Path(folder)
        self._metrics: tuple[list[np.ndarray], pathlib.Path] | None = None

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, in order."""
        found = (path.stem.removeprefix("step_") for path in self.folder.glob("step_*.checkpoint"))
        return sorted(int(step) for step in found if step.isdecimal())

    def path(self, step: int) -> pathlib.Path:
        return self.folder / f"step_{step:09d}.checkpoint"

    def save(self, model: keras.Model, step: int) -> None:
        """Write what the model is after `step` steps, and remove all but the last two checkpoints.

        Raises:
            OutputError: The folder is read-only, full, or has vanished since the run began.
            ArithmeticError: A weight is not finite: going on from there would be of no use.
        """
        check_positive_int("step", step, minimum=0)
        _check_finite(model, step)
        variables = {"state": _state(model), "metrics": model.metrics_variables}
        arrays = {
            part: [np.asarray(entry.numpy(), order="C") for entry in entries] for part, entries in variables.items()
        }
        head = {"keras_sip": __version__, "step": int(step)}
        for part, entries in arrays.items():
            head[part] = [{"dtype": array.dtype.name, "shape": array.shape} for array in entries]
        body = [json.dumps(head).encode() + b"\n"]
        body += [array.tobytes() for entries in arrays.values() for array in entries]
        digest = hashlib.sha256()
        for chunk in body:
            digest.update(chunk)
        write_atomically(self.path(step), MAGIC, digest.hexdigest().encode() + b"\n", *body)
        with writing(self.folder):
            for old in self.steps()[:-KEPT]:
                self.path(old).unlink(missing_ok=True)

    def restore(self, model: keras.Model) -> int:
        """Make model and optimizer what they were at the newest whole checkpoint, and return that step, or 0.

        The metrics follow with `restore_metrics`, since Keras resets them when an epoch begins.

        A damaged checkpoint is named in a warning and set aside as `NAME.damaged`; the one before it is used.

        Raises:
            DamagedFileError: All checkpoints are damaged.
            ValueError: They are of another model.
        """
        steps = self.steps()
        damaged = []
        self._metrics = None
        for step in reversed(steps):
            try:
                arrays, metrics = _read(self.path(step), step)
            except DamagedFileError as error:
                damaged.append((step, error))
                continue
            _assign(_state(model), arrays, self.path(step))
            self._metrics = (metrics, self.path(step))
            self._set_aside(damaged, step)
            return step
        if damaged:
            raise damaged[0][1]
        return 0

    def restore_metrics(self, model: keras.Model) -> None:
        """The sums of the metrics at the checkpoint that was restored, once; nothing without one."""
        if self._metrics is not None:
            _assign(model.metrics_variables, *self._metrics)
            self._metrics = None

    def prepare(self) -> None:
        """Make the folder, so that a run learns at its start that it cannot write there."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            probe.touch()
            probe.unlink()

    def _set_aside(self, damaged, used):
        for step, error in damaged:
            path = self.path(step)
            warnings.warn(f"{error}\nThe checkpoint of step {used} is used instead.", stacklevel=4)
            try:
                path.rename(path.with_suffix(".checkpoint.damaged"))
            except OSError as failure:
                raise OutputError(
                    three_part(f"to be able to set {path} aside", str(failure), "Make the folder writable.")
                ) from None


def _state(model):
    """All variables that a training step reads and changes, but for the metrics."""
    if getattr(model, "optimizer", None) is None:
        raise ValueError(
            three_part("a compiled model", f"{type(model).__name__} without an optimizer", "Call model.compile(...).")
        )
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def _check_finite(model, step):
    for variable in model.variables:
        if tf.as_dtype(variable.dtype).is_floating and not np.all(np.isfinite(variable.numpy())):
            raise ArithmeticError(
                three_part(
                    "finite weights to save",
                    f"NaN or Inf in {variable.path} after step {step}",
                    "Lower the learning rate or clip gradients. The checkpoints from before are kept.",
                )
            )


def _read(path, step):
    """The arrays of state and metrics of a checkpoint, or a `DamagedFileError` that names the file."""

    def damaged(received):
        return DamagedFileError(
            three_part(
                f"a whole checkpoint in {path}", received, "Remove the file to go on from the checkpoint before it."
            )
        )

    try:
        content = path.read_bytes()
    except OSError as error:
        raise damaged(str(error)) from None
    magic, digest, body = content[: len(MAGIC)], content[len(MAGIC) :][:64], content[len(MAGIC) + 65 :]
    if magic != MAGIC:
        raise damaged(f"{len(content)} bytes that do not begin as one")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise damaged(f"{len(content)} bytes whose checksum is wrong: the file is truncated or was changed")
    try:
        return _parsed(body, step)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise damaged(f"content that is none: {error}") from None


def _parsed(body: bytes, step: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The arrays of state and metrics in what follows the checksum."""
    head, _, data = body.partition(b"\n")
    head = json.loads(head)
    if head["step"] != step:
        raise ValueError(f"step {head['step']} under the name of step {step}")
    position = 0
    parts: dict[str, list[np.ndarray]] = {"state": [], "metrics": []}
    for part, arrays in parts.items():
        for entry in head[part]:
            dtype, count = np.dtype(entry["dtype"]), math.prod(entry["shape"])
            arrays.append(np.frombuffer(data, dtype, count, position).reshape(entry["shape"]))
            position += count * dtype.itemsize
    if position != len(data):
        raise ValueError(f"{len(data)} bytes of numbers where {position} are described")
    return parts["state"], parts["metrics"]


def _assign(variables, arrays, path):
    of_file = [(array.dtype.name, array.shape) for array in arrays]
    of_model = [(np.dtype(variable.dtype).name, tuple(variable.shape)) for variable in variables]
    if of_file != of_model:
        difference = next(
            (f"{there} instead of {here}" for there, here in zip(of_file, of_model, strict=False) if there != here),
            f"{len(of_file)} variables instead of {len(of_model)}",
        )
        raise ValueError(
            three_part(
                f"the checkpoint of this model and optimizer in {path}",
                f"variables of another one: {difference}",
                "Make and compile the model as in the run that wrote it, or choose another folder.",
            )
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
