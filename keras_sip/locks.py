"""A lock on a folder: one process writes there, and a second one is told which."""

import contextlib
import json
import os
import pathlib
import platform
import shlex
import sys
import time

from keras_sip.errors import three_part
from keras_sip.files import OutputError, writing

try:
    import fcntl
except ImportError:  # Windows has none: there a lock is a note of who is writing, and holds nobody off.
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
# {path: [open file, how often this process holds it]}
_held: dict = {}


class LockedFolderError(OutputError):
    """Another process writes to the folder. Nothing in it was changed."""


class FolderLock:
    """Holds a folder for this process until `release`, as a context manager or by itself.

    The file `.lock` in the folder says who holds it. The lock itself is the kernel's and ends with the process however
    that ends: the file that a killed one leaves behind holds nobody off, and `stale` then describes that process.
    Within one process a folder may be held several times over.

    Args:
        folder: A folder that exists.

    Raises:
        LockedFolderError: Another process holds it.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.path = pathlib.Path(folder).resolve() / NAME
        self.stale: str | None = None
        if self.path not in _held:
            with writing(self.path):
                file = self._locked()
                left = file.read()
                self.stale = _described(left) if left else None
                file.seek(0)
                file.truncate()
                file.write(json.dumps(_myself()))
                file.flush()
            _held[self.path] = [file, 0]
        _held[self.path][1] += 1
        self._released = False

    def release(self) -> None:
        """Let others have the folder; what is released already is left alone."""
        if self._released:
            return
        self._released = True
        _held[self.path][1] -= 1
        if _held[self.path][1] == 0:
            file, _ = _held.pop(self.path)
            # While it is still held, or it might be the next one's.
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            file.close()

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *exception) -> None:
        self.release()

    def _locked(self):
        """The open file, locked."""
        while True:
            file = self.path.open("a+", encoding="utf-8")
            file.seek(0)
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The one before may have removed the file between our opening and locking it.
                if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return file
            except BlockingIOError:
                holder = _described(file.read())
                file.close()
                raise LockedFolderError(
                    three_part(
                        f"{self.path.parent} to be written by one process at a time",
                        f"a second one (process {os.getpid()}) beside {holder}",
                        "Wait until that one has ended, or choose another folder.",
                    )
                ) from None
            file.close()


def _myself():
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"process": os.getpid(), "host": platform.node(), "since": started, "command": shlex.join(sys.argv)}


def _described(text):
    """Who wrote the file, in words."""
    try:
        entry = json.loads(text)
        return f"process {entry['process']} on {entry['host']}, since {entry['since']}: {entry['command']}"
    except (ValueError, TypeError, KeyError):
        return "a process that left no name"
