"""Locks on folders: one process at a time, told by name, and nothing is left of a killed one but its name."""

import subprocess
import sys

import pytest

from keras_sip.callbacks import ExactResume
from keras_sip.files import OutputError
from keras_sip.locks import FolderLock, LockedFolderError

# Holds the lock that its argument names until it is killed: an implementation apart from ours.
HOLDER = """
import fcntl, json, os, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
json.dump({"process": os.getpid(), "host": "here", "since": "noon", "command": "other"}, file)
file.flush()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_a_killed_one_is_seen_as_stale(tmp_path, holder):
    with pytest.raises(LockedFolderError, match=f"beside process {holder.pid} on here, since noon: other"):
        FolderLock(tmp_path)
    holder.kill()
    holder.wait()
    with FolderLock(tmp_path) as lock:
        assert f"process {holder.pid}" in lock.stale
        # It keeps off others from now on, by the kernel's own account.
        taken = subprocess.run(
            [
                sys.executable,
                "-c",
                f"""
import fcntl, sys
try:
    fcntl.flock(open({str(tmp_path / ".lock")!r}), fcntl.LOCK_SH | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(7)
""",
            ]
        )
        assert taken.returncode == 7
    assert not (tmp_path / ".lock").exists()


def test_one_process_may_hold_a_folder_twice(tmp_path):
    with FolderLock(tmp_path) as outer:
        with FolderLock(tmp_path):
            assert outer.stale is None
        assert (tmp_path / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    outer.release()


def test_a_folder_that_is_not_there_cannot_be_held(tmp_path):
    with pytest.raises(OutputError, match="Expected to be able to write"):
        FolderLock(tmp_path / "none")


def test_exact_resume_holds_its_folder_while_it_trains(tmp_path, holder):
    resume = ExactResume(tmp_path)
    resume.set_params({"steps": 1, "epochs": 1})
    # There is no checkpoint, so that no model is asked for.
    assert resume.restore(None) == 0
    with pytest.raises(LockedFolderError, match=f"process {holder.pid}"):
        resume.on_train_begin()
    holder.kill()
    holder.wait()
    resume.on_train_begin()
    assert (tmp_path / ".lock").exists()
    resume.close()
    assert not (tmp_path / ".lock").exists()
