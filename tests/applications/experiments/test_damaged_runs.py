"""The output folder of a run whose files were damaged: resumed as it is, or refused with a message and left alone."""

import functools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from damage import DAMAGE, damaged
from experiments.records import RunFolder, RunFolderError

ARGUMENTS = {"steps": 3, "methods": ["sip"], "seeds": [0], "batch": 4}
FREE = ("steps", "methods", "seeds")
fuzz = functools.partial(settings, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, {name: bytes}) of a run of three steps."""
    path = tmp_path_factory.mktemp("run")
    run = RunFolder(path, ARGUMENTS, resume=True)
    for step in range(3):
        run.metrics.append("sip", 0, step, x_error=0.5 / (1 + step), train_seconds=float(step))
    return path, {name: (path / name).read_bytes() for name in ("run.json", "metrics.csv")}


@fuzz(max_examples=200)
@given(name=st.sampled_from(["run.json", "metrics.csv"]), damage=DAMAGE)
def test_a_damaged_run_is_resumed_or_refused(whole, name, damage):
    path, contents = whole
    for file, content in contents.items():
        (path / file).write_bytes(damaged(content, damage) if file == name else content)
    before = {file: (path / file).read_bytes() for file in contents}
    try:
        run = RunFolder(path, ARGUMENTS, free=FREE, resume=True)
    except RunFolderError as error:
        assert "Expected" in str(error) and str(path) in str(error)
        assert {file: (path / file).read_bytes() for file in contents} == before
    else:
        assert all(isinstance(row["step"], int) for row in run.metrics.rows)
        assert json.loads((path / "run.json").read_text())["arguments"]["batch"] == 4


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"arguments": []}', '{"arguments": {"steps": "3", "methods": ["sip"], "seeds": [0]}}', "1"]
)
def test_a_description_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"run.json"):
        RunFolder(tmp_path, ARGUMENTS, free=FREE, resume=True)


def test_a_row_that_is_none_is_named(tmp_path):
    RunFolder(tmp_path, ARGUMENTS, resume=True).metrics.append("sip", 0, 1, x_error=0.5)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("sip,zero,2,,,\n")
    with pytest.raises(RunFolderError, match=r"metrics.csv(.|\n)*after 1 rows(.|\n)*zero"):
        RunFolder(tmp_path, ARGUMENTS, free=FREE, resume=True)
