"""All figures: learning curves of several methods and seeds, and reconstructions side by side."""

import importlib
import itertools

import numpy as np

from keras_sip import plotting
from keras_sip.plotting import ERROR_MAP, FIELD_MAP, REMEDY, available, png, save

__all__ = ["REMEDY", "available", "colours", "learning_curves", "png", "reconstructions", "save"]

# Okabe and Ito 2008, then dark ones of Paul Tol's "muted": distinct also to colour-blind eyes.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555"),
    *("#332288", "#882255", "#999933", "#44AA99", "#AA4499", "#117733", "#000000"),
)
LEGEND_OF_LINES = (
    "Lines with dots: evaluation set, mean over seeds; bands: lowest to highest seed; thin lines: running mean of ten "
    "training batches."
)


def colours(methods):
    """{method: colour}; given all methods of an experiment, one keeps its colour whichever are drawn."""
    return dict(zip(methods, itertools.cycle(COLOURS), strict=False))


def learning_curves(metrics, labels, method_colours, title):
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
            (panels[0], "step", error, "iteration", "error in x (mean per cell)"),
            (panels[1], "train_seconds", error, "training time [s]", "error in x (mean per cell)"),
            (panels[2], "step", loss, "iteration", "loss in y (sum over cells)"),
        ):
            axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
            for method, label in labels.items():
                runs = [metrics.run(method, seed) for seed in metrics.seeds(method)]
                _curve(axes, runs, columns, horizontal, label, method_colours[method])
            axes.grid(which="major", color="0.9", linewidth=0.6)
            for axis in (axes.xaxis, axes.yaxis):
                _plain_ticks(axis)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=min(len(names), 4))
        figure.supxlabel(LEGEND_OF_LINES, x=0.02, ha="left", fontsize=7, color="0.35")
    return figure


def reconstructions(y_target, x_true, predictions):
    """Examples (rows): y_target, the x of each method, the true x, and the error of each method (columns).

    Args:
        y_target: `[N, H, W, C]`; the first channel is shown.
        x_true: `[N, H, W, C]`.
        predictions: {label: x `[N, H, W, C]`}.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    return plotting.field_panels(
        [
            ("y_target", {"observation": y_target}, FIELD_MAP),
            ("x", {**predictions, "truth": x_true}, FIELD_MAP),
            ("x − truth", {label: x - x_true for label, x in predictions.items()}, ERROR_MAP),
        ]
    )


def panels_of_curves(panels, labels, method_colours, *, title, x_label, y_label, columns=None, share_y=True):
    """Logarithmic panels side by side, with a line for each method, in a band over seeds or problems.

    Args:
        panels: {title of a panel: {method: (x `[N]`, values `[N, seeds]`)}}.
        labels: {method: label}, in the order of the legend.
        method_colours: {method: colour}.
        title: Of the figure.
        x_label, y_label: Of the axes.
        columns: Panels in a row; None puts all into one.
        share_y: Whether all panels have one vertical axis.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    columns = columns or len(panels)
    rows = -(-len(panels) // columns)
    with plotting.figure(width=1.0 + 2.8 * columns, height=1.0 + 2.2 * rows) as figure:
        figure.suptitle(title, x=0.02, ha="left", fontsize=10)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=share_y)
        for axes, (name, lines) in zip(grid.flat, panels.items(), strict=True):
            axes.set(xscale="log", yscale="log", title=name)
            for method, (x, values) in lines.items():
                values = np.asarray(values)
                colour = method_colours[method]
                axes.plot(x, values.mean(1), color=colour, linewidth=1.6, label=labels[method])
                axes.fill_between(x, values.min(1), values.max(1), color=colour, alpha=0.2, linewidth=0)
            axes.grid(which="major", color="0.9", linewidth=0.6)
            for axis in (axes.xaxis, axes.yaxis):
                _plain_ticks(axis)
        for axes in grid[:, 0]:
            axes.set_ylabel(y_label)
        for axes in grid[-1]:
            axes.set_xlabel(x_label)
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4))
    return figure


def robustness_curves(errors, labels, method_colours, title):
    """A panel for each degradation: error in x over its level, lines over the mean of the seeds, bands over all.

    Level 0, which a logarithmic axis has no place for, is drawn as a dashed line across.

    Args:
        errors: {degradation: {method: {level: errors of the seeds}}}.
        labels: {method: label}.
        method_colours: {method: colour}.
        title: Of the figure.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    axis_labels = {"missing_sensors": "share of sensors", "low_pass": "width [cells]"}
    with plotting.figure(width=1.0 + 2.4 * len(errors), height=3.4) as figure:
        figure.suptitle(title, x=0.02, ha="left", fontsize=10)
        panels = figure.subplots(1, len(errors), squeeze=False, sharey=True)[0]
        for axes, (kind, by_method) in zip(panels, errors.items(), strict=True):
            axes.set(xscale="log", yscale="log", title=kind.replace("_", " "))
            axes.set_xlabel(axis_labels.get(kind, "relative deviation"))
            for method, by_level in by_method.items():
                levels = [level for level in by_level if level > 0]
                values = np.array([by_level[level] for level in levels])
                colour = method_colours[method]
                axes.plot(levels, values.mean(1), color=colour, linewidth=1.6, label=labels[method], marker="o", ms=2.5)
                axes.fill_between(levels, values.min(1), values.max(1), color=colour, alpha=0.2, linewidth=0)
                axes.axhline(np.mean(by_level[0.0]), color=colour, linewidth=0.7, linestyle="--")
            axes.grid(which="major", color="0.9", linewidth=0.6)
            for axis in (axes.xaxis, axes.yaxis):
                _plain_ticks(axis)
        panels[0].set_ylabel("error in x (mean per cell)")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6))
        figure.supxlabel("Dashed: the observations as they are.", x=0.02, ha="left", fontsize=7, color="0.35")
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


def _plain_ticks(axis):
    """0.1 rather than 10^-1 where numbers are neither small nor large; more labels the fewer decades there are."""
    ticker = importlib.import_module("matplotlib.ticker")
    low, high = axis.get_view_interval()
    if low < 1e-3 or high > 3e4:
        return
    plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(plain)
    if high / low < 300:
        axis.set_minor_locator(ticker.LogLocator(subs=(2, 5) if high / low > 10 else (2, 3, 4, 6, 8)))
        axis.set_minor_formatter(plain)
