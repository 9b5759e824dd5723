"""All figures: learning curves of several methods and seeds, and reconstructions side by side."""

import contextlib
import importlib.util
import io
import itertools
import textwrap

import numpy as np

from keras_sip.errors import three_part

REMEDY = "install matplotlib with: pip install keras_sip[plots]"

# Okabe and Ito 2008: distinct also to colour-blind eyes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
# Both diverge from white at 0; two maps, so that an error is not taken for a field.
FIELD_MAP, ERROR_MAP = "RdBu_r", "PuOr_r"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    # Minor ticks are 1.5 points shorter; their labels shall stand in line with the others.
    "xtick.minor.pad": 5.0,
    "ytick.minor.pad": 5.0,
    "legend.frameon": False,
}
DOTS_PER_INCH = 200
LEGEND_OF_LINES = (
    "Lines with dots: evaluation set, mean over seeds; bands: lowest to highest seed; thin lines: running mean of ten "
    "training batches."
)


def available():
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


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
    with _figure(width=10, height=3.7) as figure:
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
    truth = _fields(x_true)
    fields = {label: _fields(x) for label, x in predictions.items()}
    groups = [
        ("y_target", {"observation": _fields(y_target)}, FIELD_MAP),
        ("x", {**fields, "truth": truth}, FIELD_MAP),
        ("x − truth", {label: x - truth for label, x in fields.items()}, ERROR_MAP),
    ]
    rows, columns = len(truth), 2 + 2 * len(fields)
    with _figure(width=0.3 + 1.25 * columns, height=0.9 + 1.25 * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False)
        first = 0
        for quantity, members, colour_map in groups:
            limit = max(np.max(np.abs(values)) for values in members.values()) or 1.0
            group = panels[:, first : first + len(members)]
            for column, (label, values) in zip(group.T, members.items(), strict=True):
                column[0].set_title(f"{textwrap.fill(label, 14)}\n{quantity}")
                for axes, field in zip(column, values, strict=True):
                    # x axis first in our arrays, rows first in an image.
                    image = axes.imshow(field.T, origin="lower", cmap=colour_map, vmin=-limit, vmax=limit)
                    axes.set(xticks=[], yticks=[])
                    axes.spines[:].set_visible(False)
                    if quantity == "x − truth":
                        axes.set_xlabel(f"mean |error| {np.mean(np.abs(field)):.3f}", fontsize=7, labelpad=2)
            bar = figure.colorbar(image, ax=group, location="bottom", aspect=12 * len(members), pad=0.02)
            bar.outline.set_visible(False)
            first += len(members)
    return figure


def save(figure, path):
    """Write a PNG of print quality."""
    path.write_bytes(png(figure, DOTS_PER_INCH))


def png(figure, dots_per_inch=100):
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


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


def _fields(array):
    """The first channel `[N, H, W]`."""
    return np.asarray(array, np.float64)[..., 0]


def _style():
    """Our style, for what is drawn inside; the user's settings stay as they are."""
    if not available():
        raise ImportError(
            three_part("matplotlib, to draw figures", "a Python environment without it", f"Please {REMEDY}")
        )
    return importlib.import_module("matplotlib").rc_context(STYLE)


@contextlib.contextmanager
def _figure(*, width, height):
    """A figure that is drawn into a file only: without pyplot there is no display and no global state."""
    with _style():
        yield importlib.import_module("matplotlib.figure").Figure((width, height), layout="constrained")
