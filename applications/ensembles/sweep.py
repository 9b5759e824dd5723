"""Sweeps: ensembles trained one after the other in a folder, with progress, and nothing lost to a kill."""

import io
import json
import os
import pathlib
import time
from typing import NamedTuple

import numpy as np

from keras_sip.callbacks.progress_bar import ProgressLine
from keras_sip.comparison.interruption import Interruption
from keras_sip.errors import three_part
from keras_sip.files import write_atomically, writing

# The paper averages its curves over so many mini-batches.
WINDOW = 256
STEPS_PER_EXECUTION = 250
SECONDS_BETWEEN_CHECKPOINTS = 60


class Curves(NamedTuple):
    """What an ensemble went through.

    Attributes:
        members: {"seed", "rate", name of a parameter: number} of each.
        errors, losses: Of each batch before its update, `[steps, M]`: distance in x, objective in y.
        step_seconds: Of one step of the whole ensemble, median over executions.
        compile_seconds: In executions that compile.
    """

    members: list
    errors: np.ndarray
    losses: np.ndarray
    step_seconds: float
    compile_seconds: float

    def select(self, **wanted):
        """Indices of the members with these numbers."""
        return [
            index
            for index, member in enumerate(self.members)
            if all(np.isclose(member[name], value, rtol=1e-6, atol=0) for name, value in wanted.items())
        ]


class Sweep:
    """A folder of ensembles, each trained once: NAME.npz when finished, NAME.part.npz on the way.

    An ensemble that was interrupted, by Ctrl-C or a kill, goes on from its last checkpoint with the same command.

    Args:
        folder: Where the arrays are.
        quiet: No progress.
    """

    def __init__(self, folder, *, quiet=False):
        self.folder, self.quiet = pathlib.Path(folder), quiet
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def curves(self, name, members, build, steps):
        """The `Curves` of an ensemble, read where it is finished, else trained by `build()` for `steps` steps."""
        description = _description(members)
        finished, part = self.folder / f"{name}.npz", self.folder / f"{name}.part.npz"
        if finished.exists():
            record = _load(finished, description)
            if len(record["errors"]) >= steps:
                return _curves(record, steps)
            finished.rename(part)
        return _curves(self._train(name, description, build(), steps, finished, part))

    def restore(self, name, ensemble):
        """Give an ensemble the state in which it was when it was finished."""
        record = _load(self.folder / f"{name}.npz", _description(ensemble.members))
        ensemble.state = [record[f"state_{i}"] for i in range(len(ensemble.state))]

    def _train(self, name, description, ensemble, steps, finished, part):
        record = {
            "members": description,
            "errors": np.zeros([0, len(ensemble.members)], "float32"),
            "losses": np.zeros([0, len(ensemble.members)], "float32"),
            "seconds": np.zeros([0, 2]),
            "compile_seconds": 0.0,
        }
        if part.exists():
            record = _load(part, description)
            ensemble.state = [record[f"state_{i}"] for i in range(len(ensemble.state))]
        bar, saved_at = ProgressLine(f"{name} ({len(ensemble.members)} nets)", steps), time.monotonic()
        # An execution of another number of steps, as the last may be, is compiled anew.
        compiled = set()
        with Interruption() as interruption:
            while ensemble.step < steps:
                count = min(STEPS_PER_EXECUTION, steps - ensemble.step)
                began = time.perf_counter()
                errors, losses = ensemble.train(count)
                seconds = time.perf_counter() - began
                if count in compiled:
                    record["seconds"] = np.concatenate([record["seconds"], [[count, seconds]]])
                else:
                    record["compile_seconds"] += seconds
                compiled.add(count)
                record["errors"] = np.concatenate([record["errors"], errors])
                record["losses"] = np.concatenate([record["losses"], losses])
                if not self.quiet:
                    means = {"x_error": float(np.nanmedian(errors)), "loss": float(np.nanmedian(losses))}
                    bar.show(ensemble.step, means, count / seconds)
                due = time.monotonic() - saved_at >= SECONDS_BETWEEN_CHECKPOINTS
                if due or interruption.requested or ensemble.step >= steps:
                    state = {f"state_{i}": array for i, array in enumerate(ensemble.state)}
                    _save(part, {**record, **state})
                    saved_at = time.monotonic()
                interruption.check()
        bar.close()
        os.replace(part, finished)
        return record


def window(values, last):
    """Mean over the last `last` steps of `[steps, M]`; a run that diverged is infinite."""
    mean = np.mean(np.asarray(values[-last:], np.float64), axis=0)
    return np.where(np.isfinite(mean), mean, np.inf)


def _description(members):
    return json.dumps([{"seed": m.seed, "rate": m.rate, **dict(m.context)} for m in members])


def _curves(record, last=None):
    steps, seconds = record["seconds"].T
    per_step = float(np.median(seconds / steps)) if len(steps) else float("nan")
    members = json.loads(str(record["members"]))
    errors, losses = record["errors"][:last], record["losses"][:last]
    return Curves(members, errors, losses, per_step, float(record["compile_seconds"]))


def _load(path, description):
    with np.load(path) as file:
        record = dict(file)
    if str(record["members"]) != description:
        raise ValueError(
            three_part(
                f"the members with which {path} was made",
                "others: seeds, rates or systems have changed",
                "Choose another folder with --output, or remove that file.",
            )
        )
    return record


def _save(path, record):
    buffer = io.BytesIO()
    np.savez(buffer, **record)
    write_atomically(path, buffer.getbuffer())
