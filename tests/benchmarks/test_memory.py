"""Peak memory is that of the steps, whatever the process that asks for it holds."""

import pytest

from _memory import peak_memory

MEBIBYTE = 2**20


def hold(mebibytes):
    """A step that holds so much memory for a moment."""
    return lambda: len(b"x" * (mebibytes * MEBIBYTE))


def test_peak_memory_is_what_the_steps_add():
    ballast = b"x" * (200 * MEBIBYTE)
    # 10 MiB are for what Python needs besides.
    assert peak_memory(hold, 100, calls=2) == pytest.approx(100 * MEBIBYTE, abs=10 * MEBIBYTE)
    assert len(ballast) > 100
