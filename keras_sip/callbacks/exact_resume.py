"""Go on with a killed run as if nothing had happened."""

import os
import time

import keras

from keras_sip.callbacks.follower import Follower
from keras_sip.checkpoints import Checkpoints
from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.locks import FolderLock


class ExactResume(Follower):
    """Saves weights, optimizer and metrics every so many steps; a run that goes on ends bit-identical (same machine).

    Keras' BackupAndRestore goes back to the last epoch; this goes back to the step. The data must be a function of the
    step, as `keras_sip.dataset` and `from_arrays(seed=...)` are:

        resume = keras_sip.callbacks.ExactResume("runs/decay", every=100)
        step = resume.restore(model)  # 0 when the run is new
        data = keras_sip.dataset(simulator, batch_size=100, seed=0, start_step=step)
        if step < 2000:
            model.fit(data, steps_per_epoch=2000 - step, callbacks=[resume])

    Start the same program again after it was killed, at any moment, and it goes on. Checkpoints appear in one rename,
    a checksum finds damaged ones, and the last two are kept. With several epochs they are written where epochs end:
    go on with `initial_epoch=step // steps_per_epoch`.

    Args:
        folder: Where the checkpoints are; one run a folder.
        every: Steps between checkpoints; None for none but by time.
        seconds: Seconds between checkpoints, or None.

    Raises:
        OutputError: At the start or when saving: the folder cannot be written, or another process writes there.
        DamagedFileError: All checkpoints are damaged.
    """

    def __init__(self, folder: str | os.PathLike, every: int | None = 100, seconds: float | None = None) -> None:
        super().__init__()
        self.checkpoints = Checkpoints(folder)
        self.every = None if every is None else check_positive_int("every", every)
        self.seconds = None if seconds is None else check_number("seconds", seconds)
        self._saved_step: int | None = None
        self._restored_step: int | None = None
        self._lock: FolderLock | None = None

    def restore(self, model: keras.Model) -> int:
        """Make `model` what it was at the newest whole checkpoint; returns its step, 0 where there is none."""
        step = self.checkpoints.restore(model)
        self._restored_step = self._first_step = step
        return step

    def save(self) -> None:
        """Write a checkpoint now, unless this step has one."""
        if self._saved_step != self.step:
            self.checkpoints.save(self.model, self.step)
            self._saved_step, self._saved_at = self.step, time.monotonic()

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        if self._restored_step is None and self.checkpoints.steps():
            raise ValueError(
                three_part(
                    "restore(model) to be called before fit, since there are checkpoints of an earlier run",
                    f"steps {self.checkpoints.steps()} in {self.checkpoints.folder}",
                    "Call it, or choose a new folder.",
                )
            )
        self.checkpoints.prepare()
        # Kept after a training that ended with an error; a second fit of this process goes on with it.
        self._lock = self._lock or FolderLock(self.checkpoints.folder)
        self._by_epochs = self.params.get("epochs", 1) > 1
        if self._by_epochs and self.step % (self.params["steps"] or 1):
            raise ValueError(
                three_part(
                    f"to go on where an epoch of {self.params['steps']} steps ended",
                    f"a checkpoint of step {self.step}",
                    "Keep the steps_per_epoch of the run that wrote it, or train in one epoch.",
                )
            )
        self._saved_step, self._saved_at = self._restored_step, time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if not self._by_epochs:
            self.checkpoints.restore_metrics(self.model)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        previous = self.step
        super().on_train_batch_end(batch, logs)
        due = self.every is not None and self.step // self.every > previous // self.every
        due |= self.seconds is not None and time.monotonic() - self._saved_at >= self.seconds
        # Others may reset the metrics when training ends, by evaluating.
        due |= batch + 1 >= (self.params.get("steps") or float("inf")) or self.model.stop_training
        if due and not self._by_epochs:
            self.save()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self._by_epochs:
            self.save()

    def on_train_end(self, logs: dict | None = None) -> None:
        self.save()
        self.close()
        # A second fit goes on from here.
        self._restored_step = self._first_step = self.step

    def close(self) -> None:
        """Let other processes have the folder; fit does it, unless it ended with an error."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
