"""What a run leaves on disk: its description, one row of numbers a step, and checkpoints."""

import contextlib
import csv
import io
import json
import logging
import os
import pathlib
import traceback
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from keras_sip.checkpoints import Checkpoints
from keras_sip.errors import three_part
from keras_sip.files import OutputError, write_atomically, writing
from keras_sip.locks import NAME as LOCK
from keras_sip.locks import FolderLock
from keras_sip.serving.card import machine, versions

LOG = logging.getLogger("keras_sip")
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
Row = dict[str, Any]


class RunFolderError(ValueError):
    """The output folder holds something that this run must not touch."""


class RunFolder:
    """The output folder of a run: `run.json`, `metrics.csv`, `checkpoints/` and what is made of them.

    One process at a time writes there. A context manager, which lets the folder go at its end.

    Args:
        path: The folder; may exist if it is empty or `resume` is true.
        arguments: The run's arguments as JSON can hold them, with "steps", "methods" and "seeds".
        free: Names of the arguments that may differ from those of the run that is resumed.
        resume: Go on with the run that is there.
        error_parts: Names of the experiment's own errors in x, columns of metrics.csv.

    Raises:
        RunFolderError: Another run is there. Nothing has been touched.
        LockedFolderError: Another process writes there. Nothing has been touched.
        OutputError: The folder cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        arguments: Mapping[str, Any],
        *,
        free: Collection[str] = (),
        resume: bool = False,
        error_parts: Collection[str] = (),
    ) -> None:
        self.path = pathlib.Path(path)
        is_new = self._check_is_new(resume)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.path)
        try:
            earlier = {} if is_new else self._earlier(arguments, free)
            with writing(self.path):
                (self.path / "checkpoints").mkdir(exist_ok=True)
            if earlier:
                arguments = {**arguments, "steps": max(earlier["steps"], arguments["steps"])}
                for name in ("methods", "seeds"):
                    arguments[name] = list(dict.fromkeys([*earlier[name], *arguments[name]]))
            self.metrics = Metrics(self.path / "metrics.csv", error_parts)
            self.failures: dict[str, str] = {}
            self._description = {"arguments": arguments, "versions": versions(), "machine": machine()}
            self._write_description()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes have the folder."""
        self._lock.release()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    @contextlib.contextmanager
    def recording_failure(self, name: str) -> Iterator[None]:
        """Note an exception under `name` in run.json, its traceback in a file, and go on.

        Where the folder cannot be written there is nothing to go on with: an `OutputError` passes.
        """
        trace = self.path / f"failure_{name.replace(' ', '_')}.txt"
        try:
            yield
            with writing(trace):
                trace.unlink(missing_ok=True)
        except OutputError:
            raise
        except Exception as error:
            self.failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            LOG.warning("FAILED: %s: %s (more in %s)", name, self.failures[name], trace)
            self.write_text(trace.name, traceback.format_exc())
            self._write_description()

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that it is either whole or as it was before."""
        write_atomically(self.path / name, text.encode())

    def checkpoint_folder(self, method: str, seed: int) -> pathlib.Path:
        """Where the checkpoints of one run are."""
        return self.path / "checkpoints" / f"{method}_seed{seed}"

    def checkpoint_step(self, method: str, seed: int) -> int:
        """The step of the newest checkpoint, 0 without one."""
        return max(Checkpoints(self.checkpoint_folder(method, seed)).steps(), default=0)

    def restore(self, model, method: str, seed: int):
        """Make a model that was built as for this run what it was at the newest checkpoint."""
        Checkpoints(self.checkpoint_folder(method, seed)).restore(model)
        return model

    def _write_description(self):
        description = {**self._description, "failures": self.failures}
        self.write_text("run.json", json.dumps(description, indent=2) + "\n")

    def _check_is_new(self, resume):
        """Whether there is nothing to go on with; refused where there is and nobody asked for it."""
        with writing(self.path):
            if not self.path.exists() or not {entry.name for entry in self.path.iterdir()} - {LOCK}:
                return True
        if not resume:
            raise RunFolderError(
                three_part(
                    "an output folder that is new or empty",
                    f"{self.path}, which holds files",
                    "Choose another output folder, or go on with that run with --resume (in Python: resume=True).",
                )
            )
        # Another's folder gets no lock either.
        if not (self.path / "run.json").is_file():
            raise self._no_run()
        return False

    def _earlier(self, arguments, free):
        """The arguments of the run that is resumed."""
        try:
            earlier = _arguments(json.loads((self.path / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            raise self._no_run() from None
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
                    "Give the same ones to go on with it, or choose another output folder.",
                )
            )
        return earlier

    def _no_run(self):
        return RunFolderError(
            three_part(
                "the output folder of an earlier run, with its run.json",
                f"{self.path}, which has none that can be read",
                "Choose another output folder.",
            )
        )


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
    """The rows of `metrics.csv`, in memory and on disk; each is written as it comes.

    A row is a dict of the columns in `RUN`, then `MEASURED`, then the experiment's own; numbers are floats of nine
    digits, which hold a float32 exactly, and None where a column was not measured at that step. Those of one run are
    in the order of its steps, each once.

    Lines that are no rows are left out and named in a warning: the steps after the last checkpoint are done again, an
    earlier one stays a gap in the curve.

    Args:
        path: The file; what it holds already is read.
        error_parts: Names of further columns.
    """

    def __init__(self, path: str | os.PathLike, error_parts: Collection[str] = ()) -> None:
        self.path = pathlib.Path(path)
        self.measured = (*MEASURED, *error_parts)
        self.rows: list[Row] = []
        self._unwritten = False
        if not self.path.exists() or self._read():
            self._rewrite()

    def append(self, method: str, seed: int, step: int, **values: float | None) -> Row:
        """Add a row. Where it cannot be written this is said, and it waits in memory for the next `flush`."""
        given = {name: values.get(name) for name in self.measured}
        numbers = {name: None if value is None else as_written(value) for name, value in given.items()}
        row = {"method": method, "seed": seed, "step": step, **numbers}
        self.rows.append(row)
        if not self._unwritten:
            try:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    self._writer(file).writerow(row)
            except OSError as error:
                self._unwritten = True
                warnings.warn(
                    three_part(
                        f"to be able to write {self.path}",
                        f"{error.strerror or error} at step {step} of {method}, seed {seed}",
                        "Training goes on; rows wait in memory until the next checkpoint. Free space on the disk.",
                    ),
                    stacklevel=2,
                )
        return row

    def flush(self) -> None:
        """Write the rows that could not be written when they came.

        Raises:
            OutputError: They still cannot.
        """
        if self._unwritten:
            self._rewrite()
            self._unwritten = False

    def forget_after(self, method: str, seed: int, step: int) -> None:
        """Drop the rows of a run after a step, from which it is done again."""
        rows = [row for row in self.rows if (row["method"], row["seed"]) != (method, seed) or row["step"] <= step]
        if len(rows) < len(self.rows):
            self.rows = rows
            self._rewrite()

    def run(self, method: str, seed: int) -> list[Row]:
        """The rows of one run in the order of steps."""
        return [row for row in self.rows if (row["method"], row["seed"]) == (method, seed)]

    def seeds(self, method: str) -> list[int]:
        return sorted({row["seed"] for row in self.rows if row["method"] == method})

    def methods(self) -> list[str]:
        return list(dict.fromkeys(row["method"] for row in self.rows))

    def curve(self, method: str, seed: int, column: str) -> dict[int, float]:
        """{step: value} of a run, where the column was measured."""
        return {row["step"]: row[column] for row in self.run(method, seed) if row[column] is not None}

    def _read(self):
        """Read the rows; returns whether the file must be written anew."""
        try:
            # What is no UTF-8 becomes a mark, and the line a broken one.
            text = self.path.read_bytes().decode("utf-8", errors="replace")
        except OSError as error:
            raise RunFolderError(
                three_part(f"to be able to read {self.path}", str(error), "Mend its permissions or choose another.")
            ) from None
        lines = text.splitlines(keepends=True)
        columns = (*RUN, *self.measured)
        header = _cells(lines[0]) if lines else []
        broken = []
        # Another version's columns are taken by their names; a name that is damaged is told by its place.
        if lines and set(header) != set(columns) and (len(header) == len(columns) or not set(RUN) <= set(header)):
            broken, header = [(1, lines[0])], columns
        for number, line in enumerate(lines[1:], start=2):
            # A killed program can leave half a line at the end, which is no damage: that step is done again.
            if not line.endswith("\n") and number == len(lines):
                continue
            try:
                self.rows.append(self._parsed(dict(zip(header, _cells(line), strict=True))))
            except (ValueError, KeyError, OverflowError, csv.Error):
                broken.append((number, line))
        kept = _in_order(self.rows)
        doubled = len(self.rows) - len(kept)
        self.rows = kept
        if broken or doubled:
            self._warn(broken, doubled)
        return tuple(header) != columns or bool(broken or doubled) or not text.endswith("\n")

    def _warn(self, broken, doubled):
        shown = [f"line {number}: {' '.join(line.split())[:60]!r}" for number, line in broken[:3]]
        shown += [f"and {len(broken) - len(shown)} more"] if len(broken) > len(shown) else []
        shown += [f"{doubled} steps that are there twice"] if doubled else []
        warnings.warn(
            three_part(
                f"{self.path} to hold each step once, in the columns {', '.join(RUN)} and numbers",
                "; ".join(shown),
                "They are left out; steps after the last checkpoint are done again.",
            ),
            stacklevel=4,
        )

    def _rewrite(self):
        text = io.StringIO()
        writer = self._writer(text)
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue().encode())

    def _writer(self, file):
        return csv.DictWriter(file, (*RUN, *self.measured), lineterminator="\n")

    def _parsed(self, row):
        numbers = {name: float(row[name]) if row.get(name) else None for name in self.measured}
        step, seed = int(row["step"]), int(row["seed"])
        if step < 0 or seed < 0 or not row["method"].isprintable():
            raise ValueError("no row of a run")
        return {"method": row["method"], "seed": seed, "step": step, **numbers}


def as_written(value: float) -> float:
    """The number that a file gives back: nine digits, which hold a float32 exactly."""
    return float(f"{value:.9g}")


def _cells(line):
    return next(csv.reader([line]), [])


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Each step of each run once, the last that was written, in the order of steps."""
    runs: dict[tuple, dict[int, Row]] = {}
    for row in rows:
        runs.setdefault((row["method"], row["seed"]), {})[row["step"]] = row
    return [by_step[step] for by_step in runs.values() for step in sorted(by_step)]
