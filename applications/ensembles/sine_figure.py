"""The paper's figure 5: landscape, learning curves at xi = 1 and 32, sweeps over xi and phi, for six methods.

First each optimizer's rate is searched: every rate of a grid, at (xi, phi) = (1, 45) and (32, 45), with a seed of its
own; the one with the smallest geometric mean of the two errors is taken (rates.txt). Then all systems and seeds of one
method are trained together, as one ensemble. Wall times are those of one network alone, measured by turns afterwards,
without compilation.
"""

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np

from ensembles.options import opened, parse
from ensembles.sine import build, members, parser
from ensembles.sine_panels import draw
from ensembles.sweep import window
from experiments import figures
from experiments.experiment import Experiment
from keras_sip.errors import check_positive_int
from keras_sip.files import write_atomically

METHODS = ("sip", "adam", "sgd", "adadelta", "adagrad", "rmsprop")
XIS = (1, 3, 5, 10, 20, 32, 48, 64)
PHIS = (0, 1, 3, 5, 10, 23, 35, 40, 45)
CURVES = ((1, 45), (32, 45))
# Rates around those of the authors, by half decades.
FACTORS = tuple(10.0 ** (half / 2) for half in range(-1, 5))
SEARCH_SEED = 1000
TIMED_STEPS, TURNS = 250, 7


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Search, train, time, and draw; returns the exit code."""
    options = parse_options(argv)
    with opened(options) as (ended, sweep):
        rates = {method: search(experiment, method, sweep, options) for method in METHODS}
        write(options, "rates.txt", rates_table(rates, options))
        results = {method: train(experiment, method, rates[method], sweep, options) for method in METHODS}
        seconds = step_seconds(experiment, rates, options)
        write(options, "table.txt", results_table(experiment, results, seconds, options))
        if figures.available():
            labels = {method: experiment.variants[method].label for method in METHODS}
            figures.save(draw(results, labels, seconds, options.map), options.output / f"sine_{options.map}.png")
    return ended.code


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser("sine.py --figure", __doc__, "runs/sine_figure")
    options.add_argument("--search-steps", type=int, default=2000, help="of each rate tried (default: %(default)s)")
    parsed = parse(options, argv)
    check_positive_int("--search-steps", parsed.search_steps)
    return parsed


def rate_rule(method, base):
    """The learning rate as a function of xi: gradients grow as xi^2, which only SGD feels."""
    return (lambda xi: base / xi**2) if method == "sgd" else (lambda xi: base)


def search(experiment, method, sweep, options):
    """{rate at xi = 1: [error at xi = 1, at xi = 32]} of a method, over the grid."""
    variant = experiment.variants[method]
    base = float(variant.optimizer(_At(xi=1.0)).learning_rate)
    tried = [base * factor for factor in FACTORS]
    trials = [member for rate in tried for member in members([SEARCH_SEED], rate_rule(method, rate), CURVES)]
    curves = sweep.curves(
        f"search_{method}", trials, lambda: build(experiment, variant, trials, options), options.search_steps
    )
    errors = window(curves.errors, options.search_steps // 10).reshape(len(tried), len(CURVES))
    return dict(zip(tried, errors.tolist(), strict=True))


class _At:
    """Options of one system, for the optimizer's own rate."""

    def __init__(self, xi):
        self.xi = xi


def best(rates):
    """The rate of smallest geometric mean error."""
    return min(rates, key=lambda rate: np.prod(rates[rate]))


def train(experiment, method, rates, sweep, options):
    """The `Curves` of all systems of the figure."""
    systems = list(dict.fromkeys([*((xi, 0) for xi in XIS), *((32, phi) for phi in PHIS), *CURVES]))
    everyone = members(options.seeds, rate_rule(method, best(rates)), systems)
    variant = experiment.variants[method]
    return sweep.curves(method, everyone, lambda: build(experiment, variant, everyone, options), options.steps)


def step_seconds(experiment, rates, options):
    """{method: seconds of one step of one network}, by turns, after compilation; kept in times.json."""
    path = options.output / "times.json"
    if path.exists():
        return json.loads(path.read_text())
    alone = {}
    for method in METHODS:
        member = members([0], rate_rule(method, best(rates[method])), [(32, 45)])
        alone[method] = build(experiment, experiment.variants[method], member, options)
        alone[method].train(TIMED_STEPS)
    turns = {method: [] for method in METHODS}
    for _ in range(TURNS):
        for method, ensemble in alone.items():
            began = time.perf_counter()
            ensemble.train(TIMED_STEPS)
            turns[method].append((time.perf_counter() - began) / TIMED_STEPS)
    seconds = {method: float(np.median(values)) for method, values in turns.items()}
    write(options, "times.json", json.dumps(seconds))
    return seconds


def write(options, name, text):
    write_atomically(options.output / name, text.encode())
    print(f"\n{text}")


def rates_table(rates, options):
    """Error of each rate at both systems, the chosen one marked."""
    lines = [
        f"Rotated sine, map {options.map}: rates tried for {options.search_steps} steps with seed {SEARCH_SEED};",
        "distance to the nearest solution, mean over the last tenth, at xi = 1 and xi = 32 (phi = 45);",
        "SGD's rate at xi is the one below over xi^2",
    ]
    for method, tried in rates.items():
        lines += ["", method]
        lines += [
            f"  {rate:9.2e}{low:12.4g}{high:12.4g}{'   chosen' if rate == best(tried) else ''}"
            for rate, (low, high) in tried.items()
        ]
    return "\n".join(lines) + "\n"


def results_table(experiment, results, seconds, options):
    """Distances over xi and phi, and what a step costs."""
    last = options.steps // 10
    lines = [
        f"Rotated sine, map {options.map}, {options.steps} steps, seeds {' '.join(map(str, options.seeds))}:",
        f"distance to the nearest solution, mean over the last {last} steps and over seeds, +- half their range",
    ]
    for title, systems in (
        ("xi, at phi = 0", {xi: {"xi": xi, "phi": 0} for xi in XIS}),
        ("phi, at xi = 32", {phi: {"xi": 32, "phi": phi} for phi in PHIS}),
        ("xi, at phi = 45", {xi: {"xi": xi, "phi": phi} for xi, phi in CURVES}),
    ):
        lines += ["", f"{title:14}" + "".join(f"{value:>7g}" for value in systems)]
        for method, curves in results.items():
            errors = window(curves.errors, last)
            chosen = [errors[curves.select(**system)] for system in systems.values()]
            lines.append(f"{experiment.variants[method].label:14}" + "".join(_cell(e.mean()) for e in chosen))
            lines.append(
                f"{'  +-':14}" + "".join(_cell(np.ptp(e) / 2 if np.isfinite(e).all() else np.inf) for e in chosen)
            )
    lines += ["", f"{'cost':14}{'ms a step':>14}{'in ensemble':>14}{'compile s':>12}{'networks':>10}"]
    for method, curves in results.items():
        networks = len(curves.members)
        together = 1e3 * curves.step_seconds / networks
        lines.append(
            f"{experiment.variants[method].label:14}{1e3 * seconds[method]:14.3f}{together:14.3f}"
            f"{curves.compile_seconds:12.1f}{networks:10}"
        )
    lines.append("a step: of one network alone; in ensemble: of all networks together, over their number")
    return "\n".join(lines) + "\n"


def _cell(value):
    return f"{value:7.4f}" if value < 1 else f"{value:7.3g}"
