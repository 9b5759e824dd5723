"""What a run leaves on disk: its description, one row of numbers a step, and checkpoints."""

import contextlib
import csv
import json
import os
import pathlib
import sys
import traceback

from keras_sip.checkpoints import Checkpoints
from keras_sip.errors import three_part
from keras_sip.files import write_atomically
from keras_sip.serving.card import machine, versions

MEASURED = (
    "x_error",  # on the evaluation set, with the moving statistics of batch norm
    "loss",
    "train_x_error",  # mean of the last ten training batches
    "train_loss",
    "batch_x_error",  # on this training batch alone, before its update
    "batch_loss",
    "failed",  # share of this batch's examples whose solver failed
    "train_seconds",  # in training steps so far, without those in compile_seconds and without evaluation
    "compile_seconds",  # in the first step after each start, which compiles
)
RUN = ("method", "seed", "step")


class RunFolderError(ValueError):
    """The output folder holds something that this run must not touch."""


class RunFolder:
    """The output folder of a run: `run.json`, `metrics.csv`, `checkpoints/` and what is made of them.

    Args:
        path: The folder; may exist if it is empty or `resume` is true.
        arguments: The run's arguments as JSON can hold them.
        free: Names of the arguments that may differ from those of the run that is resumed.
        resume: Go on with the run that is there.
        error_parts: Names of the experiment's own errors in x, columns of metrics.csv.

    Raises:
        RunFolderError: Another run is there. Nothing has been touched.
    """

    def __init__(self, path, arguments, *, free=(), resume=False, error_parts=()):
        self.path = pathlib.Path(path)
        earlier = self._check(arguments, free, resume)
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "checkpoints").mkdir(exist_ok=True)
        if earlier:
            arguments = {**arguments, "steps": max(earlier["steps"], arguments["steps"])}
            for name in ("methods", "seeds"):
                arguments[name] = list(dict.fromkeys([*earlier[name], *arguments[name]]))
        # First of all: a damaged file is refused before anything is written.
        self.metrics = Metrics(self.path / "metrics.csv", error_parts)
        self.failures = {}
        self._description = {"arguments": arguments, "versions": versions(), "machine": machine()}
        self._write_description()

    @contextlib.contextmanager
    def recording_failure(self, name):
        """Note an exception under `name` in run.json, its traceback in a file, and go on."""
        trace = self.path / f"failure_{name.replace(' ', '_')}.txt"
        try:
            yield
            trace.unlink(missing_ok=True)
        except Exception as error:
            self.failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            trace.write_text(traceback.format_exc(), encoding="utf-8")
            self._write_description()
            print(f"\nFAILED: {name}: {self.failures[name]} (more in {trace})", file=sys.stderr, flush=True)

    def _write_description(self):
        description = {**self._description, "failures": self.failures}
        self.write_text("run.json", json.dumps(description, indent=2) + "\n")

    def write_text(self, name, text):
        """Write a file so that it is either whole or as it was before."""
        write_atomically(self.path / name, text.encode())

    def checkpoint_folder(self, method, seed):
        """Where the checkpoints of one run are."""
        return self.path / "checkpoints" / f"{method}_seed{seed}"

    def checkpoint_step(self, method, seed):
        """The step of the newest checkpoint, 0 without one."""
        return max(Checkpoints(self.checkpoint_folder(method, seed)).steps(), default=0)

    def restore(self, model, method, seed):
        """Make a model that was built as for this run what it was at the newest checkpoint."""
        Checkpoints(self.checkpoint_folder(method, seed)).restore(model)
        return model

    def _check(self, arguments, free, resume):
        """The arguments of the run that is resumed, {} for a new one."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return {}
        remedy = "Choose another folder with --output, or go on with that run with --resume."
        if not resume:
            raise RunFolderError(
                three_part("an output folder that is new or empty", f"{self.path}, which holds files", remedy)
            )
        try:
            earlier = _arguments(json.loads((self.path / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            raise RunFolderError(
                three_part(
                    "the output folder of an earlier run, with its run.json",
                    f"{self.path}, which has none that can be read",
                    "Choose another folder with --output.",
                )
            ) from None
        differences = [
            f"{name}={arguments.get(name)!r} instead of {earlier.get(name)!r}"
            for name in sorted({*arguments, *earlier} - set(free))
            if arguments.get(name) != earlier.get(name)
        ]
        if differences:
            raise RunFolderError(
                three_part(
                    f"the arguments with which the run in {self.path} was started",
                    ", ".join(differences),
                    "Give the same ones to go on with it, or choose another folder with --output.",
                )
            )
        return earlier


def _arguments(description):
    """The arguments of a run, of what its run.json holds."""
    arguments = {**description["arguments"]}
    lists = {"methods": str, "seeds": int}
    if type(arguments["steps"]) is not int or not all(
        isinstance(arguments[name], list) and all(type(entry) is kind for entry in arguments[name])
        for name, kind in lists.items()
    ):
        raise ValueError("not the arguments of a run")
    return arguments


class Metrics:
    """The rows of `metrics.csv`, in memory and on disk; each is written and flushed as it comes.

    A row is a dict of the columns in `RUN`, then `MEASURED`, then the experiment's own; numbers are floats of nine
    digits, which hold a float32 exactly, and None where a column was not measured at that step.

    Args:
        path: The file; what it holds already is read.
        error_parts: Names of further columns.
    """

    def __init__(self, path, error_parts=()):
        self.path = path
        self.measured = (*MEASURED, *error_parts)
        self.rows = self._read() if path.exists() else []
        self._rewrite()

    def append(self, method, seed, step, **values):
        numbers = {name: None if values.get(name) is None else float(f"{values[name]:.9g}") for name in self.measured}
        row = {"method": method, "seed": seed, "step": step, **numbers}
        self.rows.append(row)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            self._writer(file).writerow(row)
        return row

    def forget_after(self, method, seed, step):
        """Drop the rows of a run after a step, from which it is done again."""
        rows = [row for row in self.rows if (row["method"], row["seed"]) != (method, seed) or row["step"] <= step]
        if len(rows) < len(self.rows):
            self.rows = rows
            self._rewrite()

    def run(self, method, seed):
        """The rows of one run in the order of steps."""
        return [row for row in self.rows if (row["method"], row["seed"]) == (method, seed)]

    def seeds(self, method):
        return sorted({row["seed"] for row in self.rows if row["method"] == method})

    def methods(self):
        return list(dict.fromkeys(row["method"] for row in self.rows))

    def curve(self, method, seed, column):
        """{step: value} of a run, where the column was measured."""
        return {row["step"]: row[column] for row in self.run(method, seed) if row[column] is not None}

    def _read(self):
        rows = []
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A killed program can leave half a line, which is done again.
            whole = [line for line in lines if line.endswith("\n")]
            rows.extend(self._parsed(row) for row in csv.DictReader(whole))
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise RunFolderError(
                three_part(
                    f"{self.path} to hold rows of the columns {', '.join(RUN)} and numbers",
                    f"something else after {len(rows)} rows ({type(error).__name__}: {error})",
                    "Restore the file, or start anew in another folder with --output.",
                )
            ) from error
        return rows

    def _rewrite(self):
        temporary = self.path.with_name(f".{self.path.name}.part")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.path)

    def _writer(self, file):
        return csv.DictWriter(file, (*RUN, *self.measured), lineterminator="\n")

    def _parsed(self, row):
        numbers = {name: float(row[name]) if row.get(name) else None for name in self.measured}
        return {"method": row["method"], "seed": int(row["seed"]), "step": int(row["step"]), **numbers}
