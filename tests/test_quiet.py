"""Programs of ours start without TensorFlow's messages; what is none of them is shown."""

import logging
import os
import pathlib
import subprocess
import sys

import pytest

from keras_sip import _quiet
from shipped import talkative

ROOT = pathlib.Path(__file__).parents[1]
NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    "I0000 00:00:1795751761.139408   16880 port.cc:153] oneDNN custom operations are on.\n"
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow\n"
    "E0000 00:00:1795751765.807502   16880 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n"
    "2026-11-27 03:52:24.123456: I tensorflow/core/util/port.cc:113] oneDNN custom operations are on.\n"
)
SAID = "E0000 00:00:1795751765.807502   16880 file_system.cc:52] the disk is on fire\nTraceback\n"


def write(text):
    # As C++ does, beside Python's own stream.
    os.write(2, text.encode())


def test_noise_is_left_out_and_the_rest_comes_afterwards(capfd):
    with _quiet._held_stderr():
        write(NOISE + SAID)
    assert capfd.readouterr().err == SAID
    write("as before\n")
    assert capfd.readouterr().err == "as before\n"


def test_all_is_shown_where_the_import_fails(capfd):
    with pytest.raises(ImportError), _quiet._held_stderr():
        write(NOISE)
        raise ImportError
    assert capfd.readouterr().err == NOISE


def test_the_shell_says_all_where_it_is_asked():
    """That it is quiet unless it is asked, the test of the command that infers says: one start of TensorFlow each."""
    words = [sys.executable, "-m", "keras_sip", _quiet.FLAG, "list"]
    ended = subprocess.run(words, cwd=ROOT, env=talkative(), capture_output=True, text=True, check=True)
    assert "poisson" in ended.stdout
    assert ended.stderr


def test_only_what_is_said_of_gradients_in_exports_is_left_out_of_warnings(monkeypatch, caplog):
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(_quiet, "_is_asked_for", lambda: True)
    _quiet.import_tensorflow()
    with caplog.at_level(logging.WARNING, logger="absl"):
        logger.warning("Importing a function (f) with ops with unsaved custom gradients.")
        logger.warning("the disk is full")
    assert caplog.messages == ["the disk is full"]
