"""Pictures of observations and causes: colour panels of fields, arrows of flows, lines of low-dimensional systems."""

import contextlib
import importlib
import importlib.util
import io
import os
import pathlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sip.errors import three_part
from keras_sip.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REMEDY = 'install matplotlib from a checkout of keras_sip: pip install ".[plots]"'

# Both diverge from white at 0; two maps, so that an error is not taken for a field.
FIELD_MAP, ERROR_MAP = "RdBu_r", "PuOr_r"
# From 0 up.
STDDEV_MAP = "Greys"
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73")
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
ARROWS = 16
# Numbers that are shown as points over the true ones.
FEW = 2


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def answers(y_target: Any, x: Any, y: Any, x_true: Any = None, *, stddev: Any = None) -> "Figure":
    """What a model makes of examples: y_target and the simulated y, x and the true x, and the errors of both.

    With error bars of x fields get one more column, of several channels together; lines a band, and points over true
    ones bars, of one standard deviation to each side.

    Fields are colour panels, one row an example, those of one quantity on one colour bar; flows (two channels) are
    arrows over their vorticity; profiles and vectors are lines of prediction and truth over the index. Of x and y
    with at most `FEW` numbers, examples are points: simulated over observed y, predicted over true x.

    Args:
        y_target, y: `[N, *y_shape]`.
        x, x_true: `[N, *x_shape]`; without x_true its panels are left out.
        stddev: Standard deviations of x, `[N, *x_shape]`, or None.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    y_target, x, y = (np.asarray(value, np.float64) for value in (y_target, x, y))
    x_true, stddev = (None if value is None else np.asarray(value, np.float64) for value in (x_true, stddev))
    if x.ndim == y.ndim == 2 and max(x.shape[1], y.shape[1]) <= FEW:
        return _points(y_target, x, y, x_true, stddev)
    if x.ndim < 4 or y.ndim < 4:
        return _lines(y_target, x, y, x_true, stddev)
    groups = [("y", {"observed": y_target, "simulated": y}, FIELD_MAP), ("y error", {"": y - y_target}, ERROR_MAP)]
    causes = {"predicted": x} if x_true is None else {"predicted": x, "true": x_true}
    groups.append(("x", causes, FIELD_MAP))
    if x_true is not None:
        groups.append(("x error", {"": x - x_true}, ERROR_MAP))
    if stddev is not None:
        groups.append(("x stddev", {"": np.linalg.norm(stddev, axis=-1, keepdims=True)}, STDDEV_MAP))
    return field_panels(groups)


def field_panels(groups: Sequence[tuple[str, Mapping[str, np.ndarray], str]]) -> "Figure":
    """Rows of examples, columns of fields; the fields of one group share their colours and one labelled colour bar.

    Args:
        groups: (quantity, {label: `[N, H, W, C]`}, colour map). One channel is shown as it is; two are a flow, whose
            vorticity is coloured and whose vectors are arrows; of others the first is shown. Of three-dimensional
            fields `[N, H, W, D, C]` the middle slice is shown.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    groups = [
        (quantity, {label: _plane(field) for label, field in members.items()}, map_)
        for quantity, members, map_ in groups
    ]
    rows = len(next(iter(groups[0][1].values())))
    columns = sum(len(members) for _, members, _ in groups)
    with figure(width=0.3 + 1.25 * columns, height=0.9 + 1.25 * rows) as drawn:
        panels = drawn.subplots(rows, columns, squeeze=False)
        first = 0
        for quantity, members, colour_map in groups:
            is_flow = next(iter(members.values())).shape[-1] == 2
            coloured = {label: _vorticity(field) if is_flow else field[..., 0] for label, field in members.items()}
            limit = max(np.max(np.abs(values), initial=0.0) for values in coloured.values())
            limit = limit if np.isfinite(limit) and limit > 0 else 1.0
            lowest = 0.0 if colour_map == STDDEV_MAP else -limit
            group = panels[:, first : first + len(members)]
            for column, (label, field) in zip(group.T, members.items(), strict=True):
                column[0].set_title(f"{textwrap.fill(label, 14)}\n{quantity}" if label else quantity)
                for axes, values, vectors in zip(column, coloured[label], field, strict=True):
                    # x axis first in our arrays, rows first in an image.
                    image = axes.imshow(values.T, origin="lower", cmap=colour_map, vmin=lowest, vmax=limit)
                    axes.set(xticks=[], yticks=[])
                    axes.spines[:].set_visible(False)
                    if is_flow:
                        _arrows(axes, vectors)
                    if colour_map == ERROR_MAP:
                        axes.set_xlabel(f"mean |error| {np.mean(np.abs(vectors)):.3g}", fontsize=7, labelpad=2)
            bar = drawn.colorbar(image, ax=group, location="bottom", aspect=12 * len(members), pad=0.02)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=7)
            bar.set_label(f"{quantity}{' (vorticity)' if is_flow else ''}", fontsize=7)
            first += len(members)
    return drawn


def curves(title: str, panels: Sequence[tuple[str, str, Mapping[str, tuple]]]) -> "Figure":
    """Logarithmic curves side by side.

    Args:
        title: Of the figure.
        panels: (x label, y label, {label: (x `[n]`, y `[n]`)}) for each panel.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    with figure(width=3.4 * len(panels), height=3.2) as drawn:
        drawn.suptitle(title, x=0.02, ha="left", fontsize=10)
        for axes, (x_label, y_label, lines) in zip(
            drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
            for (label, (x, y)), colour in zip(lines.items(), LINE_COLOURS, strict=False):
                axes.plot(x, y, label=label, color=colour, linewidth=1.2)
            axes.grid(which="major", color="0.9", linewidth=0.6)
            axes.legend(fontsize=7)
    return drawn


def save(drawn: "Figure", path: str | os.PathLike) -> None:
    """Write a PNG of print quality; it is whole or not there."""
    write_atomically(pathlib.Path(path), png(drawn, DOTS_PER_INCH))


def png(drawn: "Figure", dots_per_inch: float = 100) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    with style():
        drawn.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


def style() -> contextlib.AbstractContextManager[None]:
    """Our style, for what is drawn inside; the user's settings stay as they are.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if not available():
        raise ImportError(
            three_part("matplotlib, to draw figures", "a Python environment without it", f"Please {REMEDY}")
        )
    return importlib.import_module("matplotlib").rc_context(STYLE)


@contextlib.contextmanager
def figure(*, width: float, height: float) -> Iterator["Figure"]:
    """A figure that is drawn into a file only: without pyplot there is no display and no global state."""
    with style():
        yield importlib.import_module("matplotlib.figure").Figure((width, height), layout="constrained")


def _points(y_target, x, y, x_true, stddev):
    """A row of panels: for each component simulated over observed y, then predicted over true x."""
    pairs = [("observed y", "simulated y", y_target, y, None)]
    if x_true is not None:
        pairs.append(("true x", "predicted x", x_true, x, stddev))
    panels = [
        (_numbered(across, a, i), _numbered(up, a, i), a[:, i], b[:, i], bars if bars is None else bars[:, i])
        for across, up, a, b, bars in pairs
        for i in range(a.shape[1])
    ]
    with figure(width=0.4 + 2.2 * len(panels), height=2.4) as drawn:
        row = drawn.subplots(1, len(panels), squeeze=False)[0]
        for axes, (across, up, a, b, bars) in zip(row, panels, strict=True):
            axes.axline((np.mean(a), np.mean(a)), slope=1.0, color="0.6", linewidth=0.8)
            axes.plot(a, b, "o", color=LINE_COLOURS[0], markersize=2.5, alpha=0.6, markeredgewidth=0)
            if bars is not None:
                axes.errorbar(a, b, yerr=bars, fmt="none", ecolor=LINE_COLOURS[0], elinewidth=0.6, alpha=0.4)
            axes.set(xlabel=across, ylabel=up)
    return drawn


def _numbered(quantity, values, component):
    return quantity if values.shape[1] == 1 else f"{quantity}, component {component}"


def _lines(y_target, x, y, x_true, stddev):
    """Rows of examples; left y_target and simulated y, right predicted and true x, over the index."""
    causes = {"predicted": x} if x_true is None else {"predicted": x, "true": x_true}
    sides = [("y", {"observed": y_target, "simulated": y}), ("x", causes)]
    with figure(width=7, height=0.6 + 1.3 * len(x)) as drawn:
        panels = drawn.subplots(len(x), 2, squeeze=False)
        for column, (quantity, members) in zip(panels.T, sides, strict=True):
            for row, axes in enumerate(column):
                for (label, values), colour in zip(members.items(), LINE_COLOURS, strict=False):
                    profile = _profile(values[row])
                    marker = "o" if len(profile) <= 32 else None
                    axes.plot(profile, color=colour, label=label, marker=marker, markersize=3, linewidth=1.0)
                    if label == "predicted" and stddev is not None:
                        band = _profile(stddev[row])
                        cells = np.arange(len(profile))
                        axes.fill_between(cells, profile - band, profile + band, color=colour, alpha=0.2, linewidth=0)
                if len(profile) <= 8:
                    axes.set_xticks(range(len(profile)))
                axes.set_ylabel(quantity)
            column[0].legend(fontsize=7)
            column[-1].set_xlabel("component" if x.ndim == 2 else "cell")
    return drawn


def _profile(example):
    """One example as a line: the first channel of a profile, all entries of a vector, a middle row of a field."""
    if example.ndim == 1:
        return example
    while example.ndim > 2:
        example = example[:, example.shape[1] // 2]
    return example[:, 0]


def _plane(field):
    """`[N, H, W, C]` of fields of two dimensions, or the middle slice of those of three."""
    field = np.asarray(field, np.float64)
    return field[:, :, :, field.shape[3] // 2] if field.ndim == 5 else field


def _vorticity(flow):
    """dv/dx - du/dy `[N, H, W]` by central differences, in units of one cell."""
    return np.gradient(flow[..., 1], axis=1) - np.gradient(flow[..., 0], axis=2)


def _arrows(axes, flow):
    stride = max(1, flow.shape[0] // ARROWS)
    u, v = (flow[::stride, ::stride, channel].T for channel in (0, 1))
    x, y = np.meshgrid(np.arange(0, flow.shape[0], stride), np.arange(0, flow.shape[1], stride))
    axes.quiver(x, y, u, v, color="0.15", width=0.006, angles="xy")
