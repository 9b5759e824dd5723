"""The drawing of figure 5: five panels for the rotated sine."""

import numpy as np
import tensorflow as tf

import keras_sip
from ensembles.sweep import WINDOW
from experiments import figures
from keras_sip import plotting

LANDSCAPE = {"y_target": (0.3, -0.5), "xi": 1.0, "phi": 15.0}
MAPS = {"paper": "printed map, gamma = 1", "released": "released map, gamma = 10"}


def draw(results, labels, seconds, map_name):
    """Fig. 5a to e: landscape, curves over wall time at xi = 1 and 32, errors over xi and over phi.

    Args:
        results: {method: `Curves`}.
        labels: {method: label}.
        seconds: {method: seconds of a step}.
        map_name: "paper" or "released".

    Returns:
        A `matplotlib.figure.Figure`.
    """
    colours = figures.colours(labels)
    with plotting.figure(width=11, height=6.2) as figure:
        figure.suptitle(f"Rotated sine, {MAPS[map_name]}", x=0.02, ha="left", fontsize=10)
        panels = figure.subplot_mosaic("aabbcc;dddeee")
        landscape(panels["a"], map_name)
        for name, xi in (("b", 1), ("c", 32)):
            axes = panels[name]
            for method, curves in results.items():
                time_curve(axes, curves, seconds[method], xi, labels[method], colours[method])
            axes.set(
                xlabel="wall time of one network [s]", ylabel="distance to nearest solution", xscale="log", yscale="log"
            )
            axes.set_title(f"({name}) xi = {xi}, phi = 45°")
        for name, parameter, fixed in (("d", "xi", {"phi": 0}), ("e", "phi", {"xi": 32})):
            axes = panels[name]
            for method, curves in results.items():
                sweep_curve(axes, curves, parameter, fixed, labels[method], colours[method])
            axes.set(ylabel="distance to nearest solution", yscale="log")
        panels["d"].set(xlabel="xi", xscale="log", title="(d) over xi, phi = 0°")
        panels["d"].set_xticks([1, 3, 10, 32, 64], ["1", "3", "10", "32", "64"], minor=False)
        panels["d"].minorticks_off()
        panels["e"].set(xlabel="phi [degrees]", title="(e) over phi, xi = 32")
        for name in "bcde":
            panels[name].grid(which="major", color="0.9", linewidth=0.6)
        handles, names = panels["d"].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=len(names))
        figure.supxlabel(
            "Lines: mean over seeds; bands: lowest to highest seed. "
            f"(b, c): means of {WINDOW} batches. (d, e): mean over the last tenth of a run.",
            x=0.02,
            ha="left",
            fontsize=7,
            color="0.35",
        )
    return figure


def landscape(axes, map_name):
    """Contours of L over x, and the solutions."""
    simulator = keras_sip.RotatedSine(xi=LANDSCAPE["xi"], phi=LANDSCAPE["phi"], map=map_name)
    half = 5.5 / simulator.gamma
    line = np.linspace(-half, half, 301, dtype="float32")
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    y_target = np.broadcast_to(np.float32(LANDSCAPE["y_target"]), grid.shape)
    objective = simulator.objective(simulator(grid), tf.constant(y_target)).numpy().reshape(301, 301)
    filled = axes.contourf(
        line, line, np.log10(objective.T + 1e-6), levels=np.arange(-4, 2.1, 0.5), cmap="Blues_r", extend="min"
    )
    near = tf.constant(grid[::7])
    solutions = np.unique(np.round(simulator.inverse(tf.constant(y_target[::7]), near).numpy(), 4), axis=0)
    inside = solutions[np.all(np.abs(solutions) < half, axis=1)]
    axes.plot(*inside.T, "o", color="#D55E00", markersize=4, label="solutions")
    axes.figure.colorbar(filled, ax=axes, label="log10 L", ticks=[-4, -2, 0, 2])
    axes.set(xlabel="x1", ylabel="x2", aspect="equal", title="(a) y* = (0.3, -0.5), xi = 1, phi = 15°")


def time_curve(axes, curves, step_seconds, xi, label, colour):
    """Means of `WINDOW` batches over the time that one network takes."""
    chosen = curves.errors[:, curves.select(xi=xi, phi=45)].astype("float64")
    count = len(chosen) // WINDOW
    if count == 0:
        return
    means = chosen[: count * WINDOW].reshape(count, WINDOW, -1).mean(1)
    means = np.where(np.isfinite(means), means, np.nan)
    seconds = step_seconds * WINDOW * (np.arange(count) + 0.5)
    band(axes, seconds, means, label, colour)


def sweep_curve(axes, curves, parameter, fixed, label, colour):
    """Means over the last tenth of the runs, over one parameter."""
    last = len(curves.errors) // 10
    errors = curves.errors[-last:].mean(0, dtype="float64")
    values = sorted({member[parameter] for member in curves.members if member.items() >= fixed.items()})
    by_seed = np.array([errors[curves.select(**fixed, **{parameter: value})] for value in values])
    band(axes, values, np.where(np.isfinite(by_seed), by_seed, np.nan), label, colour, marker="o")


def band(axes, x, by_seed, label, colour, **options):
    """Mean over seeds, in a band from the lowest to the highest."""
    axes.plot(x, by_seed.mean(1), color=colour, linewidth=1.4, label=label, markersize=3, **options)
    axes.fill_between(x, by_seed.min(1), by_seed.max(1), color=colour, alpha=0.2, linewidth=0)
