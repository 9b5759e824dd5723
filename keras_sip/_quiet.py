"""TensorFlow's messages at its start, held back in programs of ours: the shell and the applications."""

import contextlib
import importlib
import logging
import os
import re
import sys
import tempfile

# Set by a program that wants a quiet start, before it imports keras_sip.
VARIABLE = "KERAS_SIP_QUIET"
FLAG = "--tensorflow-messages"

# Informations and warnings, in both forms that TensorFlow has for them; the head that it gives them; the lines that
# follow one; and the errors of a machine without a GPU.
_NOISE = re.compile(
    r"WARNING: All log messages before absl"
    r"|[IW]\d{4} \d\d:\d\d:"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "
    r"|To enable the following instructions"
    r"|To turn them off, set the environment variable"
    r"|(E\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d .*: E ).*([Cc]u[A-Z]|cuda|CUDA)"
)


def import_tensorflow() -> None:
    """Import TensorFlow; its start-up messages are left out if the program is one of ours, unless it asked for them.

    In a user's own program nothing is done: what it shows is the user's to decide.
    """
    if not _is_asked_for():
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _held_stderr():
        # The devices too, which are looked for when they are first asked for.
        importlib.import_module("tensorflow").config.list_physical_devices()
    # Said of every custom gradient in an export that is loaded, hundreds of times; exports hold inference alone.
    logging.getLogger("absl").addFilter(lambda record: "unsaved custom gradients" not in record.getMessage())


def _is_asked_for():
    words = sys.orig_argv
    is_shell = ("-m", "keras_sip") in zip(words, words[1:], strict=False)
    return (is_shell or bool(os.environ.get(VARIABLE))) and FLAG not in words and "tensorflow" not in sys.modules


@contextlib.contextmanager
def _held_stderr():
    """What is written to the error stream inside, by C++ too, comes afterwards, without the noise; all if it fails."""
    try:
        sys.stderr.flush()
        original = os.dup(2)
    except (OSError, AttributeError):
        # There is no error stream to hold.
        yield
        return
    failed = True
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            lines = held.read().decode(errors="replace").splitlines(keepends=True)
            sys.stderr.write("".join(line for line in lines if failed or not _NOISE.match(line)))
