"""How a command starts: without TensorFlow's messages, and quietly ended by Ctrl-C while it is still loading.

Commands import it before anything that imports TensorFlow.
"""

# ruff: noqa: E402  (TensorFlow is told to be quiet before it is imported)
import argparse
import os
import pathlib
import sys
import threading
import warnings

FLAG = "--tensorflow-messages"
# Imported by a command, and not by a test or another program.
IS_COMMAND = bool(sys.argv[0]) and pathlib.Path(sys.argv[0]).resolve().parent == pathlib.Path(__file__).parents[1]


def _say_interrupted(kind, error, trace, otherwise=sys.excepthook):
    if issubclass(kind, KeyboardInterrupt):
        print("\nInterrupted.", file=sys.stderr)
    else:
        otherwise(kind, error, trace)


def _plain_warning(message, category, filename, number, line=None):
    """Our own warnings are three-part messages for whoever runs the command; the place in the code is no help."""
    return f"\n{message}\n" if category is UserWarning else _format(message, category, filename, number, line)


def _raised_again(failure, otherwise=threading.excepthook):
    """TensorBoard's writing thread keeps its error for the next write, which says it: no traceback of its own."""
    if not failure.exc_type.__module__.startswith("tensorflow."):
        otherwise(failure)


_format = warnings.formatwarning
if IS_COMMAND:
    sys.excepthook = _say_interrupted
    threading.excepthook = _raised_again
    warnings.formatwarning = _plain_warning
    os.environ.setdefault("KERAS_SIP_QUIET", "1")
    # Known by now; the parsers of the commands only describe it.
    sys.argv[:] = [word for word in sys.argv if word != FLAG]

import keras_sip

__all__ = ["add_flag", "keras_sip"]


def add_flag(parser: argparse.ArgumentParser) -> None:
    """The option that shows what TensorFlow says at its start."""
    parser.add_argument(FLAG, action="store_true", help="show TensorFlow's messages")
