"""What the trial of Python versions says of interpreters that are missing or do not pass."""

import pathlib
import sys

import pytest

import python_versions
from python_versions import CommandError, answers, main, run

INSTALLED = {"python": "3.12.1", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6", "scipy": "1.17.1"}


@pytest.fixture
def trials(monkeypatch):
    """Environments are neither built nor filled: what is installed passes its tests or raises what is set."""
    outcomes = {}

    def try_under(python, environment, requirements, archive, tests):
        if requirements[0] in outcomes:
            raise outcomes[requirements[0]]
        return INSTALLED, "12 passed"

    monkeypatch.setattr(python_versions, "build", lambda folder: (pathlib.Path("a.whl"), pathlib.Path("a")))
    monkeypatch.setattr(python_versions, "try_under", try_under)
    return outcomes


def test_a_line_says_versions_and_tests(trials, capsys):
    assert main(["tests", "--pythons", sys.executable]) == 0
    for packages, line in zip(["newest", "pinned"], capsys.readouterr().out.splitlines()[-2:], strict=True):
        assert line.split() == ["3.12.1", packages, "2.21.0", "3.15.1", "2.4.6", "1.17.1", "12", "passed"]


def test_a_missing_interpreter_is_named_and_the_others_are_tried(trials, capsys):
    assert main(["tests", "--pythons", "python0.0", sys.executable]) == 0
    missing, *lines = capsys.readouterr().out.splitlines()[-3:]
    assert missing == "python0.0: not found" and all(line.endswith("12 passed") for line in lines)


def test_none_that_was_found_is_no_success(trials):
    assert main(["tests", "--pythons", "python0.0"]) == 1


def test_a_failure_shows_what_was_printed_and_the_other_packages_are_tried(trials, capsys):
    trials["a.whl[test]"] = CommandError("pip install\nno such version")
    assert main(["tests", "--pythons", sys.executable]) == 1
    printed = capsys.readouterr().out
    assert f"{sys.executable}, newest packages: failed\npip install\nno such version\n3.12.1  pinned" in printed


def test_a_name_that_a_version_manager_lists_but_cannot_start_does_not_answer(tmp_path):
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert not answers(str(shim)) and answers(sys.executable)


def test_a_command_that_fails_raises_with_the_end_of_both_streams(tmp_path):
    code = "import sys; print(*range(100), sep='\\n'); print('reason', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CommandError, match=r"(?s)^\S+ -c .*\n70\n.*99\nreason$") as error:
        run([sys.executable, "-c", code], tmp_path)
    assert "\n69\n" not in str(error.value)


def test_commands_do_not_see_the_packages_of_the_caller(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run([sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'))"], tmp_path) == "None\n"
