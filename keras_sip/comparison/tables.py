"""The tables at the end of a run: methods by iterations, by time and by errors, in a terminal's 80 columns."""

import math
import statistics
from collections.abc import Mapping, Sequence

from keras_sip.comparison.records import Metrics
from keras_sip.comparison.statistics import Errors

LABEL_WIDTH = 20
# In the table by steps there are many cells, in the others wide ones.
CELL_WIDTH, MOST_CELLS = 8, 7
WIDE_CELL, MOST_WIDE_CELLS = 10, 6


def line(label: str, cells: Sequence[str], *, width: int = WIDE_CELL, label_width: int = LABEL_WIDTH) -> str:
    """One line of a table: a label on the left, cells on the right of their columns."""
    return f"{label[:label_width]:<{label_width}}{''.join(f'{cell:>{width}}' for cell in cells)}".rstrip()


def steps_table(
    metrics: Metrics,
    labels: Mapping[str, str],
    *,
    heading: str,
    reference: str | None,
    table_steps: Sequence[int],
    evaluation_examples: int,
) -> str:
    """Errors in x at equal steps, their ratio to the reference, and what they cost.

    Args:
        metrics: Of the runs.
        labels: {method: label} of the methods to show, in order.
        heading: The first line.
        reference: The method to which the others' errors are related; None leaves the ratios out.
        table_steps: Steps to show, of those that were reached, beside the last.
        evaluation_examples: How many the errors are means of.
    """
    methods = list(labels)
    errors = {method: _by_step(metrics, method, "x_error") for method in methods}
    training = {method: _by_step(metrics, method, "train_x_error") for method in methods}
    steps = _shown_steps(table_steps, errors)

    lines = [
        heading,
        f"error in x on {evaluation_examples} fixed examples, mean over seeds +- half their range;",
        "training: running mean of the last ten training batches",
        "",
        _short_line("after step", steps, str),
    ]
    for method in methods:
        lines.append(_short_line(labels[method], [_mean(errors[method].get(step)) for step in steps]))
        if len(metrics.seeds(method)) > 1:
            lines.append(_short_line("  +-", [_half_range(errors[method].get(step)) for step in steps]))
        lines.append(_short_line("  training", [_mean(training[method].get(step)) for step in steps]))
    others = [method for method in methods if method != reference]
    if others and reference in methods:
        lines += ["", f"error of {labels[reference]} / error of the method (mean over common seeds)"]
        for method in others:
            for name, values in ((labels[method], errors), ("  training", training)):
                ratios = [_ratio(values[reference].get(step), values[method].get(step)) for step in steps]
                lines.append(_short_line(name, ratios))
    lines += ["", _short_line("cost (mean of seeds)", ["steps/s", "train s", "compile", "steps", "seeds"], str)]
    lines += [_short_line(labels[method], _cost(metrics, method), str) for method in methods]
    return "\n".join(lines) + "\n"


def time_tables(errors: Errors, labels: Mapping[str, str]) -> str:
    """Errors at equal time, and time and steps to errors."""
    if not errors:
        return "no method was evaluated after its first step\n"
    lines = ["error in x at equal training time, compiling apart (+-: half the seeds' range)"]
    lines += _rows(errors["error_at_seconds"], labels, "after seconds", "{:.4g}", _error, with_range=True)
    if any(errors["seconds_to_error"].values()):
        lines += ["", "training seconds to an error in x (-: not reached by all seeds)"]
        lines += _rows(errors["seconds_to_error"], labels, "error", "{:g}", _time)
        lines += ["", "steps to an error in x"]
        lines += _rows(errors["steps_to_error"], labels, "error", "{:g}", _time)
    return "\n".join(lines) + "\n"


def _rows(by_method, labels, head, head_form, form, with_range=False):
    places = list(next(iter(by_method.values())))[-MOST_WIDE_CELLS:]
    lines = [line(head, [head_form.format(at) for at in places])]
    for method, row in by_method.items():
        numbers = [row[at] for at in places]
        lines.append(line(labels[method], [form(number) for number in numbers]))
        if with_range and any(number.high > number.low for number in numbers):
            lines.append(line("  +-", [f"{(number.high - number.low) / 2:.4f}" for number in numbers]))
    return lines


def _error(number):
    return f"{number.mean:.4f}" if math.isfinite(number.mean) else "-"


def _time(number):
    return "-" if number.missing else f"{number.mean:.3g}" if number.mean < 1000 else f"{number.mean:.0f}"


def _by_step(metrics, method, column):
    """{step: {seed: value}} of a method."""
    table = {}
    for seed in metrics.seeds(method):
        for step, value in metrics.curve(method, seed, column).items():
            table.setdefault(step, {})[seed] = value
    return table


def _shown_steps(table_steps, errors):
    """The last of the table steps that were reached, and the very last step."""
    reached = set().union(*errors.values()) - {0}
    shown = sorted(reached & {*table_steps, max(reached, default=0)})
    return shown[-MOST_CELLS:]


def _mean(by_seed):
    return statistics.fmean(by_seed.values()) if by_seed else None


def _half_range(by_seed):
    return (max(by_seed.values()) - min(by_seed.values())) / 2 if by_seed else None


def _ratio(reference, by_seed):
    """Mean over the seeds that both have: equal starts and equal data are compared."""
    common = [seed for seed in set(reference or ()) & set(by_seed or ()) if by_seed[seed] > 0]
    return statistics.fmean(reference[seed] / by_seed[seed] for seed in common) if common else None


def _cost(metrics, method):
    """Steps a second (without the first of each start), seconds of training and of compiling, steps, seeds."""
    runs = [metrics.run(method, seed) for seed in metrics.seeds(method)]
    last = [rows[-1] for rows in runs]
    rates = [_steps_per_second(rows) for rows in runs]
    return [
        f"{statistics.fmean(rates):.3g}",
        f"{statistics.fmean(row['train_seconds'] or 0.0 for row in last):.0f}",
        f"{statistics.fmean(row['compile_seconds'] or 0.0 for row in last):.0f}",
        str(max(row["step"] for row in last)),
        str(len(runs)),
    ]


def _steps_per_second(rows):
    """From the median time of a step, which pauses of the machine do not move."""
    rows = [row for row in rows if row["train_seconds"] is not None]
    pairs = zip(rows, rows[1:], strict=False)
    times = [
        (b["train_seconds"] - a["train_seconds"]) / (b["step"] - a["step"])
        for a, b in pairs
        if b["compile_seconds"] == a["compile_seconds"]
    ]
    typical = statistics.median(times) if times else 0.0
    return 1 / typical if typical > 0 else float("nan")


def _short_line(label, cells, form=None):
    return line(label, ["" if cell is None else (form or _number)(cell) for cell in cells], width=CELL_WIDTH)


def _number(value):
    """Five places or fewer: columns are eight wide."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.3g}"
