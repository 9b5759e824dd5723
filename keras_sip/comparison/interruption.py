"""Ctrl-C and SIGTERM, a scheduler's notice: alike, and never in the middle of a training step."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

LOG = logging.getLogger("keras_sip")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it is handled as Ctrl-C is."""


class Interruption:
    """A stop signal, kept until the training step is done and a checkpoint is written; a second one stops at once.

    A context manager. `requested` tells whether one has come, `check` raises what it stands for.
    """

    def __init__(self) -> None:
        self._received: int | None = None

    @property
    def requested(self) -> bool:
        return self._received is not None

    def check(self) -> None:
        """End with `KeyboardInterrupt`, or `Terminated`, where a signal has come."""
        if self._received is not None:
            raise Terminated if self._received == signal.SIGTERM else KeyboardInterrupt

    def __enter__(self) -> "Interruption":
        self._handlers = _handled(self._remember)
        self._handlers.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._handlers.__exit__(*exception)

    def _remember(self, number, frame):
        if self.requested:
            self._received = number
            self.check()
        self._received = number
        LOG.warning("Finishing this step and saving; Ctrl-C again stops at once.")


@contextlib.contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Outside of training steps: SIGTERM raises `Terminated`, as Ctrl-C raises `KeyboardInterrupt`."""

    def raise_terminated(number, frame):
        raise Terminated

    with _handled(raise_terminated, (signal.SIGTERM,)):
        yield


@contextlib.contextmanager
def _handled(handler, numbers=STOP_SIGNALS):
    # Signals reach the main thread only, and only there can they be handled.
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = {number: signal.signal(number, handler) for number in numbers} if in_main_thread else {}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
