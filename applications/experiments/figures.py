"""The figures that applications share: reconstructions side by side, panels of curves, robustness."""

import numpy as np

from keras_sip import plotting
from keras_sip.comparison.figures import COLOURS, colours, learning_curves, plain_ticks
from keras_sip.plotting import ERROR_MAP, FIELD_MAP, REMEDY, available, png, save

__all__ = [
    "COLOURS",
    "ERROR_MAP",
    "FIELD_MAP",
    "REMEDY",
    "available",
    "colours",
    "learning_curves",
    "panels_of_curves",
    "png",
    "reconstructions",
    "robustness_curves",
    "save",
]


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
                plain_ticks(axis)
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
                plain_ticks(axis)
        panels[0].set_ylabel("error in x (mean per cell)")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6))
        figure.supxlabel("Dashed: the observations as they are.", x=0.02, ha="left", fontsize=7, color="0.35")
    return figure
