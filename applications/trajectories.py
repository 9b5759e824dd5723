"""Trajectories of three minimisers in a bowl that is quadratic along one axis and quartic along the other (Fig. 1).

  python applications/trajectories.py --figure
  python applications/trajectories.py --start 2 -1 --output runs/elsewhere

P(x) = (x1, x2^2), y* = 0. Gradient descent, Newton's method and the physics inverted step by step in y space, seen in
x space (left) and y space (right): circles are 10 iterations, lines many small ones. No network takes part. Writes
trajectories.png and trajectories.csv.

The paper minimises |y|^2, twice our objective; the same steps of gradient descent are at twice its rates here.
"""

import argparse
import csv
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.startup import add_flag, keras_sip

import numpy as np
import tensorflow as tf

from experiments import figures
from experiments.runner import writing_to
from keras_sip import plotting
from keras_sip.files import writing

SIMULATOR = keras_sip.QuarticBowl(dtype="float64")
Y_TARGET = tf.zeros([1, 2], tf.float64)


class Minimiser(NamedTuple):
    """A minimiser: `step(x, size) -> x`, and (size, iterations) of the circles and of the line."""

    label: str
    step: Callable
    coarse: tuple
    fine: tuple


def main(argv: Sequence[str] | None = None) -> int:
    """Minimise, write and draw; returns the exit code."""
    options = parse_options(argv)
    with writing_to(options.output) as ended:
        paths = {
            minimiser.label: {
                kind: iterates(minimiser, options.start, *getattr(minimiser, kind)) for kind in ("coarse", "fine")
            }
            for minimiser in MINIMISERS
        }
        write_csv(paths, options.output / "trajectories.csv")
        for label, path in paths.items():
            x1, x2 = path["coarse"][-1]
            print(f"{label}: x = ({x1:.4f}, {x2:.4f}), |y|^2 = {np.sum(observed(path['coarse'][-1:]) ** 2):.3g}")
        if figures.available():
            figures.save(figure(paths), options.output / "trajectories.png")
        else:
            print(f"No figure: {figures.REMEDY}")
    return ended.code


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="trajectories.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--figure", action="store_true", help="draw the paper's figure 1; this is all the script does")
    add("--start", type=float, nargs=2, default=[3.0, 3.0], metavar=("X1", "X2"), help="default: 3 3")
    add("--output", type=pathlib.Path, default=pathlib.Path("runs/trajectories"), metavar="FOLDER")
    add_flag(parser)
    return parser.parse_args(argv)


def by_solver(make):
    """The step of a solver, `make(size) -> InverseSolver`."""
    return lambda x, size: make(size).solve(SIMULATOR, x, Y_TARGET).x


def inverted(x, size):
    """The x of the point that lies `size` of the way from P(x) to y*."""
    y = SIMULATOR.forward(x)
    return keras_sip.AnalyticInverse().solve(SIMULATOR, x, y + size * (Y_TARGET - y)).x


MINIMISERS = (
    Minimiser(
        "gradient descent",
        by_solver(lambda size: keras_sip.GradientDescent(step_size=2 * size)),
        coarse=(0.5 / 36, 10),
        fine=(0.005, 1000),
    ),
    Minimiser(
        "Newton's method",
        by_solver(lambda size: keras_sip.Newton(step_size=size)),
        coarse=(0.5, 10),
        fine=(0.1, 100),
    ),
    Minimiser("physics inversion", inverted, coarse=(0.5, 10), fine=(0.05, 100)),
)


def iterates(minimiser, start, size, iterations):
    """x of all iterations, `[iterations + 1, 2]`."""
    step = tf.function(lambda x: minimiser.step(x, size))
    path = [tf.constant([start], tf.float64)]
    for _ in range(iterations):
        path.append(step(path[-1]))
    return np.concatenate(path)


def observed(x):
    """y of points x, as an array."""
    return SIMULATOR(x).numpy()


def write_csv(paths, file):
    with writing(file), file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["minimiser", "kind", "iteration", "x1", "x2", "y1", "y2"])
        for label, path in paths.items():
            for kind, x in path.items():
                for iteration, row in enumerate(np.hstack([x, observed(x)])):
                    writer.writerow([label, kind, iteration, *row])


def figure(paths):
    """x space and y space, with contours of |y|^2 at powers of two."""
    colours = figures.colours(paths)
    with plotting.figure(width=7.5, height=3.9) as drawn:
        left, right = drawn.subplots(1, 2)
        start = next(iter(paths.values()))["fine"][0]
        contours(left, start, lambda x: x)
        contours(right, observed(start[None])[0], observed_inverse)
        for label, path in paths.items():
            for axes, space in ((left, lambda x: x), (right, observed)):
                axes.plot(*space(path["fine"]).T, color=colours[label], linewidth=1.3, label=label)
                axes.plot(*space(path["coarse"]).T, "o", color=colours[label], markersize=4, fillstyle="none")
        left.set(xlabel="x1", ylabel="x2", title="x space")
        right.set(xlabel="y1 = x1", ylabel="y2 = x2²", title="y space")
        handles, labels = left.get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper center", ncols=3)
    return drawn


def observed_inverse(y):
    """Any x that is observed as y >= 0."""
    return np.stack([y[:, 0], np.sqrt(y[:, 1])], axis=1)


def contours(axes, corner, to_x):
    """|y|^2 at powers of two between the solution and beyond the start; `to_x` maps the panel's points to x."""
    spans = [np.linspace(min(0.0, end) - 0.12 * abs(end), max(0.0, end) + 0.12 * abs(end), 201) for end in corner]
    if to_x is observed_inverse:
        spans[1] = np.maximum(spans[1], 0.0)
    grid = np.stack(np.meshgrid(*spans, indexing="ij"), -1).reshape(-1, 2)
    objective = np.sum(observed(to_x(grid)) ** 2, axis=1).reshape(201, 201)
    axes.contour(*spans, objective.T, levels=2.0 ** np.arange(-6, 9), colors="0.75", linewidths=0.7)
    axes.plot(0, 0, "*", color="black", markersize=8, clip_on=False)


if __name__ == "__main__":
    sys.exit(main())
