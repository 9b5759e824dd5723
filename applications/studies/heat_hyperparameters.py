"""Study of rates and batch sizes: SIP against Adam's end-to-end training, every combination from equal starts.

Adam's rule makes the network's updates in both. Each batch size is a run of its own in a folder of its own, which the
same command and --resume go on with.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

from experiments.startup import add_flag

import keras

from experiments import figures
from experiments.experiment import Experiment
from experiments.runner import FAILED, FINISHED
from experiments.runner import main as run
from keras_sip.comparison.records import Metrics
from keras_sip.errors import check_number, check_positive_int
from keras_sip.files import write_atomically

COMPARED = ("sip", "adam")


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Train all combinations, then write table.txt and hyperparameters.png; returns the exit code."""
    options = parse_options(argv)
    compared = variants(experiment, options.rates)
    study = dataclasses.replace(experiment, variants=compared, reference=f"adam_{_short(options.rates[0])}")
    code = FINISHED
    for batch in options.batches:
        words = ["--methods", *study.variants, "--batch", batch, "--output", options.output / f"batch_{batch}"]
        words += ["--steps", options.steps, "--seeds", *options.seeds, "--resolution", options.resolution]
        words += ["--resume"] * options.resume + ["--quiet"] * options.quiet
        code = max(code, run(study, [str(word) for word in words]))
        if code > FAILED:
            return code
    metrics = {batch: Metrics(options.output / f"batch_{batch}" / "metrics.csv") for batch in options.batches}
    text = table(metrics, options)
    write_atomically(options.output / "table.txt", text.encode())
    print(f"\n{text}")
    if figures.available():
        figures.save(figure(metrics, options), options.output / "hyperparameters.png")
    return code


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="heat.py --study hyperparameters", description=__doc__)
    add = parser.add_argument
    add("--rates", type=float, nargs="+", default=[1e-2, 1e-3, 1e-4], help="rates of Adam (default: %(default)s)")
    add("--batches", type=int, nargs="+", default=[4, 32, 128], help="batch sizes (default: %(default)s)")
    add("--steps", type=int, default=100, help="training steps of each (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0], help="one run of each for each seed (default: 0)")
    add("--resolution", type=int, default=64, help="cells along each axis (default: %(default)s)")
    add("--output", type=pathlib.Path, default=pathlib.Path("runs/heat_hyperparameters"), metavar="FOLDER")
    add("--resume", action="store_true", help="go on with the study in the output folder, or start it")
    add("--quiet", action="store_true", help="no progress while training")
    add_flag(parser)
    options = parser.parse_args(argv)
    try:
        for name in ("steps", "resolution"):
            check_positive_int(f"--{name}", getattr(options, name))
        for batch in options.batches:
            check_positive_int("--batches", batch)
        for rate in options.rates:
            check_number("--rates", rate, exclusive=True)
    except ValueError as error:
        parser.error(str(error))
    return options


def variants(experiment, rates):
    """{"sip_1e-2": Variant, ...}: the compared methods with each rate."""
    return {
        f"{method}_{_short(rate)}": dataclasses.replace(
            experiment.variants[method],
            label=f"{experiment.variants[method].label} {_short(rate)}",
            optimizer=lambda options, rate=rate: keras.optimizers.Adam(rate),
        )
        for method in COMPARED
        for rate in rates
    }


def table(metrics, options):
    """Errors in x after the last step, mean over seeds: methods and rates by batch sizes."""
    lines = [
        f"Heat: error in x after {options.steps} steps, mean over seeds {' '.join(map(str, options.seeds))}",
        "",
        f"{'':16}" + "".join(f"{'batch ' + str(batch):>12}" for batch in metrics),
    ]
    for rate in options.rates:
        errors = {
            method: [_mean(final_errors(runs, f"{method}_{_short(rate)}", options)) for runs in metrics.values()]
            for method in COMPARED
        }
        for method, values in errors.items():
            lines.append(f"{method + ' ' + _short(rate):16}" + "".join(f"{value:12.4f}" for value in values))
        ratios = [adam / sip for sip, adam in zip(errors["sip"], errors["adam"], strict=True)]
        lines.append(f"{'  adam / sip':16}" + "".join(f"{ratio:12.2f}" for ratio in ratios))
    return "\n".join(lines) + "\n"


def final_errors(metrics, method, options):
    """The error in x at the last step of each seed; NaN for a run that failed."""
    curves = [metrics.curve(method, seed, "x_error") for seed in options.seeds]
    return [curve.get(options.steps, float("nan")) for curve in curves]


def figure(metrics, options):
    """A panel for each rate and batch size."""
    panels = {}
    for batch, runs in metrics.items():
        for rate in options.rates:
            curves = {
                method: [runs.curve(f"{method}_{_short(rate)}", seed, "x_error") for seed in options.seeds]
                for method in COMPARED
            }
            panels[f"batch {batch}, rate {_short(rate)}"] = {
                method: _common(by_seed) for method, by_seed in curves.items() if all(by_seed)
            }
    return figures.panels_of_curves(
        panels,
        {"sip": "SIP", "adam": "Adam"},
        figures.colours(COMPARED),
        title=f"Heat: rates and batch sizes, {options.resolution} x {options.resolution} cells",
        x_label="iteration",
        y_label="error in x (mean per cell)",
        columns=len(options.rates),
    )


def _common(curves):
    """(steps, values `[N, seeds]`) of the steps that all seeds measured, the start left out."""
    steps = sorted(set.intersection(*map(set, curves)) - {0})
    return steps, [[curve[step] for curve in curves] for step in steps]


def _mean(values):
    return sum(values) / len(values)


def _short(rate):
    """0.001 as 1e-3."""
    digits, exponent = f"{rate:.0e}".split("e")
    return f"{digits}e{int(exponent)}"
