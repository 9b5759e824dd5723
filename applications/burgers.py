"""Control through time: find forces that steer the velocity of Burgers' equation from a state to a target.

A controller network acts at every one of --horizon steps. It is trained end to end through all steps, by a chain of SIP
layers with links or by back-propagation, from equal starts on equal data:

  python applications/burgers.py --methods sip adjoint --steps 200 --seeds 0 1 2
  python applications/burgers.py --horizon 32 --resolution 64

Writes curves/METHOD_SEED.json, table.txt, learning_curves.png and control.png: the states of one example over time, and
the forces. With --resume the runs that are finished are kept.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence

import keras
import numpy as np

from ensembles.options import parse, parser
from experiments import figures
from experiments.runner import writing_to
from keras_sip import plotting
from keras_sip.comparison.statistics import OverSeeds
from keras_sip.comparison.tables import line
from keras_sip.comparison.training import evaluation_schedule
from keras_sip.errors import check_positive_int
from keras_sip.files import write_atomically
from studies.burgers_control import Control

METHODS = {"sip": "SIP, chained", "adjoint": "Back-propagation"}
EVALUATION, EVALUATION_SEED = 128, (1, 2**41)


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    result = parser("burgers.py", __doc__, "runs/burgers")
    result.set_defaults(steps=100, seeds=[0])
    add = result.add_argument
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: sip adjoint")
    for name, default, about in (
        ("batch", 32, "examples in a training batch"),
        ("horizon", 16, "steps with a force"),
        ("resolution", 32, "cells"),
        ("cg-steps", 3, "conjugate-gradient steps of each SIP layer"),
    ):
        add(f"--{name}", type=int, default=default, help=f"{about} (default: %(default)s)")
    add("--rate", type=float, default=1e-3, help="learning rate of Adam (default: %(default)s)")
    options = parse(result, argv)
    for name in ("batch", "horizon", "resolution", "cg_steps"):
        check_positive_int(f"--{name}", getattr(options, name))
    return options


def run(argv: Sequence[str] | None = None) -> int:
    """Train, measure, draw; returns the exit code."""
    options = parse_options(argv)
    control = Control(options.resolution, options.horizon, cg_steps=options.cg_steps)
    with writing_to(options.output, "give the same command with --resume") as ended:
        curves, drawn = {}, {}
        for method in options.methods:
            for seed in options.seeds:
                path = options.output / "curves" / f"{method}_{seed}.json"
                path.parent.mkdir(exist_ok=True)
                if not path.exists():
                    curve, whole = train(control, method, seed, options)
                    write_atomically(path, json.dumps(curve, indent=1).encode())
                    drawn.setdefault(METHODS[method], whole)
                curves.setdefault(method, []).append(json.loads(path.read_text()))
        text = table(curves, options)
        write_atomically(options.output / "table.txt", text.encode())
        print(f"\n{text}")
        if figures.available():
            figures.save(learning_curves(curves, options), options.output / "learning_curves.png")
            if drawn:
                figures.save(control_figure(control, drawn), options.output / "control.png")
    return ended.code


def train(control, method, seed, options):
    """([{step, error, effort, seconds}], the model of all states and forces)."""
    keras.utils.set_random_seed(seed)
    fitted, whole = control.trained(method, seed, keras.optimizers.Adam(options.rate))
    evaluation = control.evaluation(EVALUATION, EVALUATION_SEED)
    batches = iter(control.dataset(options.batch, seed))
    curve, seconds, step = [], 0.0, 0
    for due in evaluation_schedule(options.steps, (10, 20, 50)):
        begin = time.perf_counter()
        losses = [fitted.train_on_batch(*next(batches)) for _ in range(due - step)]
        # The first steps are traced.
        seconds += time.perf_counter() - begin if step else 0.0
        step = due
        curve.append({"step": step, **control.measured(whole, evaluation), "seconds": seconds})
        if not options.quiet:
            print(f"{method} seed {seed}: step {step}, error {curve[-1]['error']:.4f}", flush=True)
        if losses and not np.isfinite(losses[-1]):
            print(f"{method} seed {seed}: the loss is not finite, ended", flush=True)
            break
    return curve, whole


def table(curves, options):
    first = next(iter(curves.values()))[0]
    steps = [row["step"] for row in first if row["step"] in (0, 10, 20, 50, 100, 200, 500, 1000, options.steps)]
    lines = [
        f"Burgers, {options.resolution} cells, {options.horizon} steps with a force, batch {options.batch}",
        f"|u - target| over that without a force, mean of {EVALUATION} fixed examples and seeds +- half their range;",
        "effort: root mean square of the change of u that a step's force makes; seconds without tracing",
        "",
        line("after step", [*map(str, steps), "effort", "seconds"], width=9),
    ]
    for method, runs in curves.items():
        by_step = [{row["step"]: row for row in each} for each in runs]
        numbers = [OverSeeds.of([rows[step]["error"] for rows in by_step if step in rows]) for step in steps]
        last = [np.mean([each[-1][name] for each in runs]) for name in ("effort", "seconds")]
        cells = [*(f"{number.mean:.4f}" for number in numbers), f"{last[0]:.4f}", f"{last[1]:.1f}"]
        lines.append(line(METHODS[method], cells, width=9))
        if len(runs) > 1:
            lines.append(line("  +-", [f"{(number.high - number.low) / 2:.4f}" for number in numbers], width=9))
    return "\n".join(lines) + "\n"


def learning_curves(curves, options):
    lines = {}
    for method, runs in curves.items():
        shared = [row["step"] for row in min(runs, key=len) if row["step"]]
        values = [[row["error"] for row in each if row["step"] in shared] for each in runs]
        lines[method] = (shared, np.array(values).T)
    panel = {f"{options.horizon} steps with a force": lines}
    colours = figures.colours(METHODS)
    return figures.panels_of_curves(
        panel, METHODS, colours, title="Burgers", x_label="training step", y_label="error over that without a force"
    )


def control_figure(control: Control, models):
    """An example: for each method the states from the first to the last beside the target, and the forces."""
    state, target = (each[:1] for each in control.examples(EVALUATION, EVALUATION_SEED))
    positions = control.state_simulator.positions
    scales = np.array([control.force_scale(step) for step in range(control.horizon)])
    with plotting.figure(width=7.0, height=0.8 + 2.2 * len(models)) as drawn:
        panels = drawn.subplots(len(models), 2, squeeze=False, sharex=True)
        for (left, right), (label, model) in zip(panels, models.items(), strict=True):
            _, states, forces = (entry.numpy() for entry in model([state, target]))
            rows = np.concatenate([state[:, None], states], axis=1)[0, ..., 0]
            changes = scales[:, None] * forces[0, ..., 0]
            for axes, values in ((left, rows), (right, changes)):
                for number, row in enumerate(values):
                    axes.plot(positions, row, color=str(0.85 - 0.7 * number / len(values)), linewidth=0.9)
            left.plot(positions, target[0, :, 0], "--", color=plotting.LINE_COLOURS[1], label="target")
            left.set(ylabel="u", title=f"{label}: states, later ones darker")
            right.set(title="change by the force in each step")
            left.legend(fontsize=7)
        for axes in panels[-1]:
            axes.set_xlabel("position")
    return drawn


if __name__ == "__main__":
    sys.exit(run())
