"""The paper's figure 2: what networks trained in different ways predict for y = e^x, over x.

All seeds of a method are trained together, as one ensemble. Writes exponential.png and table.txt: mean |x - x*| over
the last 256 batches of x uniform in [-12, 0], and that of the trained networks in the lower and in the upper half.
"""

from collections.abc import Sequence

import numpy as np

import keras_sip
from ensembles.ensemble import Ensemble, Member
from ensembles.options import opened, parse, parser
from ensembles.sweep import WINDOW, window
from experiments import figures
from experiments.experiment import Experiment
from keras_sip import plotting
from keras_sip.files import write_atomically

# {title of a panel: (variant, whether the network sees log y)}
PANELS = {
    "the paper's settings": (("sgd", False), ("adam", False), ("rescaled", False)),
    "Newton and labels": (
        ("newton", False),
        ("newton_clipped", False),
        ("newton_damped", False),
        ("supervised", False),
    ),
    "Adam for the network": (("sip", False), ("sip_sign", False), ("sip_relu", False), ("adam_relu", False)),
    "networks that see log y": (("sip", True), ("adam", True), ("sip_relu", True), ("adam_relu", True)),
}
LAYOUT = (2, 2)
LINE = np.linspace(-12, 0, 481, dtype="float32")[:, None]


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Train, write the table, draw; returns the exit code."""
    options = parse(parser("exponential.py --figure", __doc__, "runs/exponential_figure"), argv)
    with opened(options) as (ended, sweep):
        errors, predictions = {}, {}
        for run in (run for panel in PANELS.values() for run in panel):
            errors[run], predictions[run] = train(experiment, *run, sweep, options)
        labels = {run: _label(experiment, *run) for run in errors}
        text = table(labels, errors, predictions, options)
        write_atomically(options.output / "table.txt", text.encode())
        print(f"\n{text}")
        if figures.available():
            figures.save(figure(labels, predictions), options.output / "exponential.png")
    return ended.code


def train(experiment, name, log_input, sweep, options):
    """(mean errors of the last batches `[seeds]`, predictions over `LINE` `[seeds, N]`) of a variant."""
    variant = experiment.variants[name]
    optimizer = variant.optimizer(options)
    members = [Member(seed, float(optimizer.learning_rate)) for seed in options.seeds]
    decays = isinstance(optimizer.get_config()["learning_rate"], dict)

    def build():
        simulator = keras_sip.Exponential(log_input=log_input)
        return Ensemble(
            members,
            simulator,
            lambda seed: (variant.network or experiment.network)(simulator, seed),
            method=variant.method,
            solver=variant.solver(options) if variant.solver else None,
            optimizer=variant.optimizer(options),
            batch=experiment.batch,
            batch_reduction=experiment.batch_reduction,
            decay_steps=options.steps if decays else None,
        )

    key = f"{name}_log" if log_input else name
    curves = sweep.curves(key, members, build, options.steps)
    trained = build()
    sweep.restore(key, trained)
    return window(curves.errors, WINDOW), trained.predict(np.exp(LINE))[..., 0]


def table(labels, errors, predictions, options):
    """Errors of the last batches and by halves of the range."""
    lines = [
        f"Exponential, {options.steps} steps, batch summed, mean over seeds {' '.join(map(str, options.seeds))}",
        "+- half their range: |x - x*| in the last 256 batches; of the trained network by halves of the range",
        "",
        f"{'':24}{'|x - x*|':>20}{'x in [-12, -6]':>18}{'x in [-6, 0]':>16}",
    ]
    lower = LINE[:, 0] < -6
    for run, values in errors.items():
        distances = np.abs(predictions[run] - LINE[:, 0])
        mean = f"{values.mean():.4f} +- {np.ptp(values) / 2:.4f}"
        halves = f"{distances[:, lower].mean():18.4f}{distances[:, ~lower].mean():16.4f}"
        lines.append(f"{labels[run]:24}{mean:>20}{halves}")
    return "\n".join(lines) + "\n"


def figure(labels, predictions):
    """Prediction over x, a panel for each group of methods; lines are means over seeds, bands their range."""
    with plotting.figure(width=9, height=6.2) as drawn:
        panels = drawn.subplots(*LAYOUT, sharex=True, sharey=True, squeeze=False)
        for axes, (title, runs) in zip(panels.flat, PANELS.items(), strict=True):
            axes.plot(LINE, LINE, color="black", linewidth=0.9, linestyle="--", label="x = log y*")
            for run, colour in zip(runs, figures.COLOURS, strict=False):
                x = predictions[run]
                axes.plot(LINE, x.mean(0), color=colour, linewidth=1.4, label=labels[run])
                axes.fill_between(LINE[:, 0], x.min(0), x.max(0), color=colour, alpha=0.2, linewidth=0)
            axes.set(title=title, ylim=(-14, 1.5))
            axes.legend(loc="lower right", fontsize=8)
        for axes in panels[-1]:
            axes.set_xlabel("log y* = true x")
        for axes in panels[:, 0]:
            axes.set_ylabel("predicted x")
        drawn.supxlabel(
            "Lines: mean over seeds; bands: lowest to highest seed.", x=0.02, ha="left", fontsize=7, color="0.35"
        )
    return drawn


def _label(experiment, name, log_input):
    label = experiment.variants[name].label
    return f"{label}, log y" if log_input else label
