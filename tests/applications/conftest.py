"""Applications are scripts that import their neighbours by bare name; one finished run serves many tests."""

import contextlib
import io
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "applications"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Two methods, two seeds, twelve steps of the tiny experiment."""
    from tiny import FinishedRun, run

    from keras_sip.comparison.records import Metrics

    path = tmp_path_factory.mktemp("runs") / "finished"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exit_code = run("--seeds", 0, 1, "--output", path)
    return FinishedRun(path, exit_code, printed.getvalue(), Metrics(path / "metrics.csv"))
