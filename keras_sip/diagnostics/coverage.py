"""Coverage: how often intervals of a posterior hold the truth."""

from typing import Any, NamedTuple

import numpy as np

from keras_sip._on_use import statistics

LEVELS = (0.5, 0.8, 0.95)


class Coverage(NamedTuple):
    """Of central intervals of single components, over examples whose truth is known.

    Attributes:
        shares: {level: share of true components inside their interval}.
        standard_errors: {level: of that share}, from its spread between examples.
        spread: Root mean square of (x - mean) / stddev: 1 where error bars are right, more where they are too small.
    """

    shares: dict[float, float]
    standard_errors: dict[float, float]
    spread: float

    @classmethod
    def of(cls, x: Any, mean: Any, stddev: Any) -> "Coverage":
        """That of x, mean and stddev `[N, ...]`."""
        count = len(x)
        x, mean, stddev = (np.reshape(np.asarray(values, np.float64), [count, -1]) for values in (x, mean, stddev))
        away = np.abs(x - mean) / stddev
        inside = {level: np.mean(away <= statistics.norm.ppf(0.5 + level / 2), axis=1) for level in LEVELS}
        shares = {level: float(np.mean(each)) for level, each in inside.items()}
        errors = {level: float(np.std(each) / np.sqrt(count)) for level, each in inside.items()}
        return cls(shares, errors, float(np.sqrt(np.mean(np.square(away)))))


def draw_coverage(axes: Any, coverage: Coverage) -> None:
    """Observed over stated coverage, with bars of two standard errors, on matplotlib's axes."""
    from keras_sip import plotting

    levels = list(coverage.shares)
    axes.axline((0, 0), slope=1.0, color="0.6", linewidth=0.8)
    errors = [2 * coverage.standard_errors[level] for level in levels]
    axes.errorbar(levels, list(coverage.shares.values()), errors, fmt="o", color=plotting.LINE_COLOURS[0])
    axes.set(xlabel="stated coverage", ylabel="observed", xlim=(0, 1), ylim=(0, 1))
