"""Where each method breaks as the window of observations grows: one comparison for each window, and a table of all.

Writes a run of `lorenz.py` in window_W for each window, windows.txt and windows.png: the error in x of each method's
networks, and of the prior's mean, before and after refining.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

from experiments import figures
from experiments.experiment import Experiment
from experiments.refined import MEASURED
from experiments.runner import main as run
from experiments.runner import writing_to
from keras_sip import plotting
from keras_sip.comparison.tables import line
from keras_sip.errors import check_number
from keras_sip.files import write_atomically


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """A run for each window, its options those of the application; returns the worst exit code."""
    parser = argparse.ArgumentParser(prog="lorenz.py --study windows", description=__doc__, allow_abbrev=False)
    parser.add_argument("--windows", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0], help="default: 0.5 1 2 4")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/lorenz_windows"), metavar="FOLDER")
    own, others = parser.parse_known_args(argv)
    measured, codes = {}, []
    for window in own.windows:
        check_number("--windows", window, exclusive=True)
        folder = own.output / f"window_{window:g}"
        named = dataclasses.replace(experiment, title=f"{experiment.title}, window {window:g}")
        words = [*others, "--window", f"{window:g}", "--output", str(folder)]
        codes.append(run(named, words, program="lorenz.py"))
        if (folder / MEASURED).exists():
            measured[window] = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
    if not measured:
        return max(codes)
    with writing_to(own.output) as ended:
        text = table(measured)
        write_atomically(own.output / "windows.txt", text.encode())
        print(f"\n{text}")
        if figures.available():
            figures.save(figure(measured), own.output / "windows.png")
    return max(ended.code, *codes)


def mean_of(measured, label, column):
    """`[windows]`, over seeds."""
    rows = [of_window[label] for of_window in measured.values()]
    return [sum(row[column] for row in of_seeds) / len(of_seeds) for of_seeds in rows]


def table(measured: Mapping[float, Mapping[str, list[dict[str, float]]]]) -> str:
    """Errors in x over windows, of {window: {method: rows of refined.txt}}."""
    labels = next(iter(measured.values()))
    lines = [
        "error in x, over the components' sizes, mean over seeds",
        "",
        line("window", [f"{w:g}" for w in measured]),
    ]
    for column in ("network", "refined"):
        lines.append(f"{column}:")
        for label in labels:
            lines.append(line(f"  {label}", [f"{value:.4f}" for value in mean_of(measured, label, column)]))
    return "\n".join(lines) + "\n"


def figure(measured):
    """Error over window, dashed before and full after refining."""
    labels = list(next(iter(measured.values())))
    with plotting.figure(width=5.0, height=3.6) as drawn:
        axes = drawn.subplots()
        for label, colour in zip(labels, figures.COLOURS, strict=False):
            axes.plot(list(measured), mean_of(measured, label, "network"), "--", color=colour, linewidth=1.0)
            axes.plot(list(measured), mean_of(measured, label, "refined"), "o-", color=colour, label=label, ms=3)
        axes.set(xscale="log", yscale="log", xlabel="window", ylabel="error in x")
        axes.set_title("dashed: networks (or the mean); full: refined", loc="left")
        axes.grid(which="major", color="0.9", linewidth=0.6)
        for axis in (axes.xaxis, axes.yaxis):
            figures.plain_ticks(axis)
        axes.legend(fontsize=7)
    return drawn
