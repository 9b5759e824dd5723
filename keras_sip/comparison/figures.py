"""Learning curves of several methods and seeds."""

import importlib
import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from keras_sip import plotting
from keras_sip.comparison.records import Metrics

# Okabe and Ito 2008, then dark ones of Paul Tol's "muted": distinct also to colour-blind eyes.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555"),
    *("#332288", "#882255", "#999933", "#44AA99", "#AA4499", "#117733", "#000000"),
)
LEGEND_OF_LINES = (
    "Lines with dots: evaluation set, mean over seeds; bands: lowest to highest seed; thin lines: running mean of ten "
    "training batches."
)


def colours(methods: Iterable[str]) -> dict[str, str]:
    """{method: colour}; given all methods of an experiment, one keeps its colour whichever are drawn."""
    return dict(zip(methods, itertools.cycle(COLOURS), strict=False))


def learning_curves(metrics: Metrics, labels: Mapping[str, str], method_colours: Mapping[str, str], title: str):
    """Error in x over iterations and over training time, and loss in y over iterations; all logarithmic.

    Lines: mean over seeds on the evaluation set, in a band from the lowest to the highest seed. Thin lines: running
    mean of the last ten training batches.

    Args:
        metrics: `Metrics` of the runs.
        labels: {method: label}, in the order of the legend.
        method_colours: {method: colour}.
        title: Of the figure.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    error, loss = ("x_error", "train_x_error"), ("loss", "train_loss")
    with plotting.figure(width=10, height=3.7) as figure:
        figure.suptitle(title, x=0.02, ha="left", fontsize=10)
        panels = figure.subplots(1, 3)
        for axes, horizontal, columns, x_label, y_label in (
            (panels[0], "step", error, "iteration", "error in x"),
            (panels[1], "train_seconds", error, "training time [s]", "error in x"),
            (panels[2], "step", loss, "iteration", "loss in y"),
        ):
            axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
            for method, label in labels.items():
                runs = [metrics.run(method, seed) for seed in metrics.seeds(method)]
                _curve(axes, runs, columns, horizontal, label, method_colours[method])
            axes.grid(which="major", color="0.9", linewidth=0.6)
            for axis in (axes.xaxis, axes.yaxis):
                plain_ticks(axis)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=min(len(names), 4))
        figure.supxlabel(LEGEND_OF_LINES, x=0.02, ha="left", fontsize=7, color="0.35")
    return figure


def _curve(axes, runs, columns, horizontal, label, colour):
    evaluated, trained = columns
    x, low, mean, high = _over_seeds(runs, horizontal, evaluated)
    axes.plot(x, mean, color=colour, linewidth=1.6, label=label, marker="o", markersize=2.5)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    x, _, mean, _ = _over_seeds(runs, horizontal, trained)
    axes.plot(x, mean, color=colour, linewidth=0.6, alpha=0.7)


def _over_seeds(runs, horizontal, column):
    """(x, lowest, mean, highest) of a column at the steps that all runs measured."""
    measured = [{row["step"]: row for row in rows if row[column] is not None and row[horizontal] > 0} for rows in runs]
    steps = sorted(set.intersection(*map(set, measured)))
    x = [np.mean([run[step][horizontal] for run in measured]) for step in steps]
    values = np.array([[run[step][column] for run in measured] for step in steps]).reshape(len(steps), len(runs))
    return x, values.min(1, initial=np.inf), values.mean(1), values.max(1, initial=-np.inf)


def plain_ticks(axis):
    """Labels of a logarithmic axis: 0.1 rather than 10^-1 where numbers are neither small nor large.

    There are more labels the fewer decades there are.
    """
    ticker = importlib.import_module("matplotlib.ticker")
    low, high = axis.get_view_interval()
    if low < 1e-3 or high > 3e4:
        return
    plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(plain)
    if high / low < 300:
        axis.set_minor_locator(ticker.LogLocator(subs=(2, 5) if high / low > 10 else (2, 3, 4, 6, 8)))
        axis.set_minor_formatter(plain)
