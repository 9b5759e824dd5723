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

    from eager import eagerly
    from experiments import runner
    from keras_sip.comparison.records import Metrics

    path = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed, eagerly():
        # A picture of one example: laying out its panels is most of what a picture takes.
        patch.setattr(runner, "EXAMPLES_DRAWN", 1)
        exit_code = run("--seeds", 0, 1, "--output", path)
    return FinishedRun(path, exit_code, printed.getvalue(), Metrics(path / "metrics.csv"))
