"""Reports: named findings, each with what was measured and what to do, that fit 80 columns."""

import dataclasses
import enum
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from keras_sip.kernel_errors import explained

WIDTH = 80
NAME_COLUMN = 7
TEXT_COLUMN = 24
LONGEST_ERROR = 240
NOT_REACHED = "needs:"


class Verdict(enum.Enum):
    """What a check came to. A report passes unless a finding is `FAILED`."""

    PASSED = "ok"
    NOTE = "note"
    FAILED = "FAIL"
    SKIPPED = "-"


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        verdict: A `Verdict`.
        measured: What was seen, with numbers.
        remedy: What to do about it; empty where there is nothing to do.
        values: The numbers by the names of the report's fields.
        name: Of the check.
        stops: Whether checks that need this one have nothing to ask where it failed.
    """

    verdict: Verdict
    measured: str
    remedy: str = ""
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = ""
    stops: bool = True

    @property
    def reached(self) -> bool:
        return not self.measured.startswith(NOT_REACHED)

    @property
    def blocks(self) -> bool:
        """Whether checks that need this one have nothing to ask."""
        return (self.verdict is Verdict.FAILED and self.stops) or not self.reached

    def __str__(self) -> str:
        head = f" {self.verdict.value:<4}  {self.name:<16} "
        lines = _lines(head + self.measured, subsequent_indent=" " * TEXT_COLUMN)
        if self.remedy:
            indent = " " * NAME_COLUMN
            lines += _lines(f"-> {self.remedy}", initial_indent=indent, subsequent_indent=indent + "   ")
        return "\n".join(lines)


def passed(measured: str, **values: Any) -> Finding:
    return Finding(Verdict.PASSED, measured, values=values)


def note(measured: str, remedy: str = "", **values: Any) -> Finding:
    return Finding(Verdict.NOTE, measured, remedy, values)


def failed(measured: str, remedy: str, *, stops: bool = True, **values: Any) -> Finding:
    return Finding(Verdict.FAILED, measured, remedy, values, stops=stops)


def skipped(reason: str) -> Finding:
    return Finding(Verdict.SKIPPED, reason)


@dataclasses.dataclass(frozen=True)
class Check:
    """One question to a case.

    Attributes:
        name: At most 16 characters.
        run: case -> `Finding`. What it raises becomes a failure.
        remedy: What to do where it raises.
        needs: Names of the checks without which there is nothing to ask.
    """

    name: str
    run: Callable
    remedy: str
    needs: tuple = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What all reports share; `str(report)` is the text, `report["name"]` a finding.

    Attributes:
        title: What was examined.
        findings: A `Finding` for each check, in order.
    """

    title: str
    findings: tuple

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that failed."""
        return tuple(finding for finding in self.findings if finding.verdict is Verdict.FAILED)

    def __getitem__(self, name: str) -> Finding:
        return {finding.name: finding for finding in self.findings}[name]

    def __str__(self) -> str:
        reached = [str(finding) for finding in self.findings if finding.reached]
        return "\n".join([*_lines(self.title), *reached, *_lines(self._conclusion())])

    def _conclusion(self):
        if self.passed:
            return "Nothing failed."
        left = [finding.name for finding in self.findings if not finding.reached]
        text = f"{len(self.failures)} of {len(self.findings)} checks failed."
        return text + (f" Not reached because of that: {', '.join(left)}." if left else "")


SomeFindings = TypeVar("SomeFindings", bound=Findings)


def examine(
    report_type: type[SomeFindings], title: str, checks: Iterable[Check], case: Any, print_report: bool
) -> SomeFindings:
    """Run the checks in order, print each finding as it comes, and gather them with their values."""
    findings: dict[str, Finding] = {}

    def say(text):
        # A check may take minutes, and standard output may be a file.
        if print_report:
            print(text, flush=True)

    say("\n".join(_lines(title)))
    for check in checks:
        missing = [name for name in check.needs if findings[name].blocks]
        finding = skipped(f"{NOT_REACHED} {missing[0]}") if missing else _guarded(check, case)
        findings[check.name] = dataclasses.replace(finding, name=check.name)
        if finding.reached:
            say(findings[check.name])
    values = {name: value for finding in findings.values() for name, value in finding.values.items()}
    report = report_type(title=title, findings=tuple(findings.values()), **values)
    say("\n".join(_lines(report._conclusion())))
    return report


def described(thing: Any, limit: int = WIDTH - 20) -> str:
    """`repr` on one short line, of a solver with the options that are not defaults; never an error."""
    try:
        if dataclasses.is_dataclass(thing):
            options = [field for field in dataclasses.fields(thing) if getattr(thing, field.name) != field.default]
            arguments = ", ".join(f"{field.name}={getattr(thing, field.name)!r}" for field in options)
            text = f"{type(thing).__name__}({arguments})"
        else:
            text = repr(thing)
    except Exception:  # whatever a user's class raises
        text = type(thing).__name__
    return textwrap.shorten(text, limit, placeholder=" ...")


def _lines(text, **indents):
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False, **indents)


def _guarded(check, case):
    try:
        return check.run(case)
    except Exception as error:  # whatever a user's simulator raises is a finding
        return what_raised(error, check.remedy, case)


def what_raised(error: Exception, remedy: str, case: Any, *, stops: bool = True) -> Finding:
    """A failure that names the error; with the remedy for the operation, where it is one of TensorFlow's kernels."""
    # TensorFlow begins its messages with the names of internal nodes in braces.
    text = re.sub(r"{{.*?}}", "", str(error))
    # Where a check looks at x / x_scale, an error still speaks of the user's simulator.
    simulator = getattr(case, "simulator", None)
    text = text.replace(f"Nondimensional({simulator!r})", repr(simulator))
    text = textwrap.shorten(text, LONGEST_ERROR, placeholder=" ...")
    explanation = explained(error)
    if explanation is None:
        return failed(f"{type(error).__name__}: {text}", remedy, stops=stops)
    return failed(f"{explanation.operation} in `forward` raises: {text}", explanation.remedy, stops=stops)
