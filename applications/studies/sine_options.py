"""What the options of SIP do on the rotated sine: signs, limits, rate decay, and the two that care for the loss in y.

For each variant, with a constant rate and with one that decays to 0 over the run: distance to the nearest solution and
loss in y, means over the last 256 batches before the steps of the table, and over seeds (options.txt).
"""

import argparse
from collections.abc import Sequence

import numpy as np

from ensembles.options import opened, parse
from ensembles.sine import build, members, parser
from ensembles.sweep import WINDOW, window
from experiments.experiment import Experiment
from keras_sip.files import write_atomically

VARIANTS = ("sip_l1", "sip", "sip_relative", "sip_curvature", "sip_adjoint", "adam")
TABLE_STEPS = (1000, 3000, 10_000, 30_000, 100_000)


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Train all variants, then write options.txt; returns the exit code."""
    options = parse_options(argv)
    with opened(options) as (ended, sweep):
        results = {
            (name, schedule): curves(experiment, name, schedule, sweep, options)
            for name in options.variants
            for schedule in options.schedules
        }
        text = table(experiment, results, options)
        write_atomically(options.output / "options.txt", text.encode())
        print(f"\n{text}")
    return ended.code


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    result = parser("sine.py --study options", __doc__, "runs/sine_options")
    add = result.add_argument
    add("--xi", type=float, nargs="+", default=[32.0], help="conditioning, one or several (default: 32)")
    add("--phi", type=float, nargs="+", default=[45.0], help="rotations in degrees (default: 45)")
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    add("--schedules", nargs="+", choices=("constant", "decay"), default=["constant", "decay"], help="default: both")
    return parse(result, argv)


def curves(experiment, name, schedule, sweep, options):
    """(errors, losses) `[steps, systems, seeds]` of a variant."""
    variant = experiment.variants[name]
    rate = float(variant.optimizer(options).learning_rate)
    systems = [(xi, phi) for xi in options.xi for phi in options.phi]
    everyone = members(options.seeds, lambda xi: rate, systems)
    # The norms of a mix with the adjoint are over a batch of one network.
    alone = getattr(variant.method, "adjoint_mix", 0.0) > 0
    groups = [[member] for member in everyone] if alone else [everyone]
    decay_steps = options.steps if schedule == "decay" else None
    trained = []
    for number, group in enumerate(groups):
        part = f"{name}_{schedule}" + (f"_{number}" if alone else "")
        make = lambda group=group: build(experiment, variant, group, options, decay_steps=decay_steps)  # noqa: E731
        trained.append(sweep.curves(part, group, make, options.steps))
    shape = (-1, len(systems), len(options.seeds))
    return tuple(
        np.concatenate([getattr(entry, values) for entry in trained], axis=1).reshape(shape)
        for values in ("errors", "losses")
    )


def table(experiment, results, options):
    """Distances and losses at the steps of the table."""
    steps = sorted({step for step in TABLE_STEPS if step < options.steps} | {options.steps})
    lines = [
        f"Rotated sine, map {options.map}, network Adam 1e-3, seeds {' '.join(map(str, options.seeds))}:",
        f"distance to the nearest solution / loss in y, means of the last {WINDOW} batches and over seeds",
    ]
    for index, (xi, phi) in enumerate((xi, phi) for xi in options.xi for phi in options.phi):
        lines += ["", f"{f'xi = {xi:g}, phi = {phi:g}':26}" + "".join(f"{step:>18}" for step in steps)]
        for (name, schedule), values in results.items():
            errors, losses = ([window(entry[:step, index], WINDOW).mean() for step in steps] for entry in values)
            cells = "".join(f"{f'{e:.4f} / {y:.2g}':>18}" for e, y in zip(errors, losses, strict=True))
            lines.append(f"{experiment.variants[name].label + ', ' + schedule:26}{cells}")
    return "\n".join(lines) + "\n"
