"""Methods at equal steps and at equal time: numbers over seeds, as JSON and CSV."""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_sip.comparison.records import Metrics

MOST_LEVELS = 6
MANTISSAS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
FRACTIONS_OF_TIME = (0.1, 0.25, 0.5, 1.0)


class OverSeeds(NamedTuple):
    """A number of several seeds; `missing` of them don't have it."""

    mean: float
    low: float
    high: float
    missing: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "OverSeeds":
        known = [value for value in values if value is not None and math.isfinite(value)]
        if not known:
            return cls(math.nan, math.nan, math.nan, len(values))
        return cls(float(np.mean(known)), min(known), max(known), len(values) - len(known))


# {quantity: {method: {at: number}}}
Errors = dict[str, dict[str, dict[float, OverSeeds]]]


def errors_of(metrics: Metrics, methods: Sequence[str], table_steps: Sequence[int]) -> Errors:
    """The errors in x on the evaluation set, over seeds, at equal steps and at equal time; {} if nothing was trained.

    Quantities: "error_at_step"; "error_at_seconds" of training, equal for all; "seconds_to_error" and
    "steps_to_error", the first time that a level of error is reached. Between evaluations errors are interpolated,
    their logarithms linearly in time; compiling and evaluating are not counted.
    """
    runs = {method: [_evaluated(metrics.run(method, seed)) for seed in metrics.seeds(method)] for method in methods}
    runs = {method: [rows for rows in of_seeds if len(rows) > 1] for method, of_seeds in runs.items()}
    runs = {method: of_seeds for method, of_seeds in runs.items() if of_seeds}
    if not runs:
        return {}
    steps = _shown_steps(table_steps, runs)
    seconds, levels = _shown_seconds(runs), _shown_levels(runs)

    def over_seeds(places, value):
        return {
            method: {at: OverSeeds.of([value(rows, at) for rows in of_seeds]) for at in places}
            for method, of_seeds in runs.items()
        }

    return {
        "error_at_step": over_seeds(steps, _error_at_step),
        "error_at_seconds": over_seeds(seconds, _error_at_seconds),
        "seconds_to_error": over_seeds(levels, lambda rows, level: _reached(rows, level, "train_seconds")),
        "steps_to_error": over_seeds(levels, lambda rows, level: _reached(rows, level, "step")),
    }


def as_json(errors: Errors, **more: Any) -> str:
    """Everything as JSON text; what was not reached is null."""
    numbers = {
        quantity: {
            method: {
                f"{at:g}": {name: _or_none(value) for name, value in number._asdict().items()}
                for at, number in row.items()
            }
            for method, row in by_method.items()
        }
        for quantity, by_method in errors.items()
    }
    return json.dumps({**more, **numbers}, indent=1, default=str) + "\n"


def as_csv(errors: Errors) -> str:
    """One line for each quantity, method and place."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("quantity", "method", "at", *OverSeeds._fields))
    for quantity, by_method in errors.items():
        for method, row in by_method.items():
            for at, number in row.items():
                writer.writerow(
                    (quantity, method, f"{at:g}", *("" if _or_none(v) is None else f"{v:.6g}" for v in number))
                )
    return stream.getvalue()


def _evaluated(rows):
    known = [row for row in rows if row["x_error"] is not None and row["train_seconds"] is not None]
    return [row for row in known if math.isfinite(row["x_error"])]


def _shown_steps(table_steps, runs):
    reached = {row["step"] for of_seeds in runs.values() for rows in of_seeds for row in rows}
    return sorted(reached & {*table_steps, max(reached)})


def _shown_seconds(runs):
    """Fractions of the time that the quickest run has used: all are compared within what all have."""
    shortest = min(rows[-1]["train_seconds"] for of_seeds in runs.values() for rows in of_seeds)
    return [fraction * shortest for fraction in FRACTIONS_OF_TIME]


def _shown_levels(runs):
    """Round errors between the best and the worst one, the smallest of them."""
    errors = [[row["x_error"] for row in rows] for of_seeds in runs.values() for rows in of_seeds]
    best, worst = min(map(min, errors)), max(map(max, errors))
    decades = range(math.floor(math.log10(best)) - 1, math.ceil(math.log10(worst)) + 1) if best > 0 else ()
    levels = sorted(round(mantissa * 10.0**decade, 12) for decade in decades for mantissa in MANTISSAS)
    return [level for level in levels if best <= level < worst][:MOST_LEVELS]


def _error_at_step(rows, step):
    return next((row["x_error"] for row in rows if row["step"] == step), None)


def _error_at_seconds(rows, seconds):
    # Of several rows at one time, as the start and the step that compiled, the last counts.
    by_time = {row["train_seconds"]: math.log(row["x_error"]) for row in rows if row["x_error"] > 0}
    return math.exp(np.interp(seconds, list(by_time), list(by_time.values()))) if by_time else None


def _reached(rows, level, column):
    """Where training first brings the error down to the level; an untrained network may have been below it."""
    for before, row in zip(rows, rows[1:], strict=False):
        if row["x_error"] > level:
            continue
        if before["x_error"] <= level or row["x_error"] <= 0:
            return row[column]
        part = math.log(before["x_error"] / level) / math.log(before["x_error"] / row["x_error"])
        return before[column] + part * (row[column] - before[column])
    return None


def _or_none(value):
    return value if isinstance(value, int) or math.isfinite(value) else None
