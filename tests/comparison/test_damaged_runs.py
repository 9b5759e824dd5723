"""The output folder of a run whose files were damaged: resumed as it is, or refused with a message and left alone."""

import functools
import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from damage import DAMAGE, damaged
from keras_sip.comparison import tables
from keras_sip.comparison.records import Metrics, RunFolder, RunFolderError

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


@fuzz(max_examples=60)
@given(name=st.sampled_from(["run.json", "metrics.csv"]), damage=DAMAGE)
def test_a_damaged_run_is_resumed_or_refused(whole, name, damage):
    path, contents = whole
    for file, content in contents.items():
        (path / file).write_bytes(damaged(content, damage) if file == name else content)
    before = {file: (path / file).read_bytes() for file in contents}
    try:
        with warnings.catch_warnings(action="ignore"), RunFolder(path, ARGUMENTS, free=FREE, resume=True) as run:
            assert all(isinstance(row["step"], int) for row in run.metrics.rows)
            assert json.loads((path / "run.json").read_text())["arguments"]["batch"] == 4
            for seed in run.metrics.seeds("sip"):
                steps = [row["step"] for row in run.metrics.run("sip", seed)]
                assert steps == sorted(set(steps))
    except RunFolderError as error:
        # A damaged table is mended; only the description can be past help.
        assert name == "run.json" and "Expected" in str(error) and str(path) in str(error)
        assert {file: (path / file).read_bytes() for file in contents} == before


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"arguments": []}', '{"arguments": {"steps": "3", "methods": ["sip"], "seeds": [0]}}', "1"]
)
def test_a_description_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"run.json"):
        RunFolder(tmp_path, ARGUMENTS, free=FREE, resume=True)


@pytest.fixture
def table(tmp_path):
    """The lines of a whole metrics.csv of steps 0 to 3, and a function that writes others and reads what they hold."""
    with RunFolder(tmp_path, ARGUMENTS, resume=True) as run:
        for step in range(4):
            run.metrics.append("sip", 0, step, x_error=0.5 / (1 + step), train_seconds=float(step))
    path = tmp_path / "metrics.csv"

    def read(lines):
        path.write_text("".join(lines))
        return Metrics(path)

    return path.read_text().splitlines(keepends=True), read


def test_a_broken_row_is_named_and_left_out_and_the_file_is_mended(table):
    lines, read = table
    broken = [*lines[:3], "sip,zero,2,,,\n", *lines[3:]]
    with pytest.warns(UserWarning, match=r"metrics.csv(.|\n)*line 4: 'sip,zero,2,,,'(.|\n)*are done again"):
        metrics = read(broken)
    assert list(metrics.curve("sip", 0, "x_error").values()) == [0.5, 0.25, pytest.approx(1 / 6), 0.125]
    assert metrics.path.read_text().splitlines(keepends=True) == lines


def test_a_broken_heading_is_named_and_its_columns_are_taken_by_place(table):
    lines, read = table
    with pytest.warns(UserWarning, match="line 1: 'method,seed,step,x_err0r"):
        metrics = read([lines[0].replace("x_error", "x_err0r", 1), *lines[1:]])
    assert metrics.path.read_text().splitlines(keepends=True) == lines


def test_steps_that_two_processes_wrote_are_kept_once(table):
    lines, read = table
    with pytest.warns(UserWarning, match="3 steps that are there twice"):
        metrics = read([*lines, *lines[2:]])
    assert [row["step"] for row in metrics.rows] == [0, 1, 2, 3]
    # Rates are over pairs of rows: equal steps were a division by zero.
    text = tables.steps_table(
        metrics, {"sip": "SIP"}, heading="", reference=None, table_steps=(3,), evaluation_examples=1
    )
    assert text.splitlines()[-1].split() == ["SIP", "1", "3", "0", "3", "1"]


def test_half_a_line_at_the_end_is_no_damage(table):
    lines, read = table
    metrics = read([*lines, "sip,0,4,0.1"])
    assert [row["step"] for row in metrics.rows] == [0, 1, 2, 3]
    metrics.append("sip", 0, 4, x_error=0.1)
    assert Metrics(metrics.path).curve("sip", 0, "x_error")[4] == 0.1
