"""Two-stage training on the rotated sine: a solver labels a data set, then a network learns the labels (Eq. 4).

Every observation has infinitely many causes, and which one the solver finds depends on where it starts. From random
starts the labels of neighbouring observations lie on different branches, and the network learns their mean, which is no
cause of anything. SIP asks the solver to start from the network's own answer, and stays on one branch. As a control,
labels found from one start, zero, are on few branches.

Writes two_stage.txt and two_stage.png: over the first component of the observation, the phase gamma u1 of the labels
and of what networks make of new observations; the grey lines are the true causes.
"""

import argparse
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

import keras_sip
from ensembles.options import parse
from ensembles.sine import parser
from experiments import figures
from experiments.experiment import Experiment
from experiments.runner import writing_to
from keras_sip import plotting
from keras_sip.errors import check_positive_int
from keras_sip.files import write_atomically

STEPS_PER_EXECUTION = 250
BATCH, EVALUATION = 100, 1024
LABELS = {"two-stage, random starts": "random", "two-stage, start 0": "zero"}


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Label, train, and draw; returns the exit code."""
    options = parse_options(argv)
    with writing_to(options.output) as ended:
        simulator = keras_sip.RotatedSine(xi=options.xi, phi=options.phi, map=options.map)
        solver = experiment.variants["sip"].solver(options)
        y, _ = keras_sip.evaluation_set(simulator, options.examples, seed=0)
        labels = {name: label(simulator, solver, y, start) for name, start in LABELS.items()}
        found = {name: residual_share(simulator, y, *labelled) for name, labelled in labels.items()}
        errors, losses, pictures = {}, {}, {}
        unseen = keras_sip.evaluation_set(simulator, EVALUATION, seed=1)
        for name in [*LABELS, "SIP"]:
            models = [
                train(experiment, simulator, solver, y, labels.get(name), seed, options) for seed in options.seeds
            ]
            measured = [model.evaluate(*unseen, batch_size=EVALUATION, verbose=0, return_dict=True) for model in models]
            errors[name] = [entry["x_error"] for entry in measured]
            losses[name] = [entry["loss"] for entry in measured]
            pictures[name] = models[0](unseen[0]).numpy()
            print(f"{name}: distance to the nearest solution {np.mean(errors[name]):.4f}", flush=True)
        text = table(errors, losses, found, options)
        write_atomically(options.output / "two_stage.txt", text.encode())
        print(f"\n{text}")
        if figures.available():
            figures.save(figure(simulator, y, labels, unseen[0], pictures, options), options.output / "two_stage.png")
    return ended.code


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    result = parser("sine.py --study two_stage", __doc__, "runs/sine_two_stage")
    add = result.add_argument
    add("--xi", type=float, default=1.0, help="conditioning (default: %(default)s)")
    add("--phi", type=float, default=45.0, help="rotation in degrees (default: %(default)s)")
    add("--examples", type=int, default=10_000, help="observations that are labelled (default: %(default)s)")
    options = parse(result, argv)
    check_positive_int("--examples", options.examples)
    return options


def label(simulator, solver, y, start):
    """(x, weight): labels of a solver run to convergence, from zero or from random x of two periods."""
    x0 = np.zeros((len(y), 2), "float32")
    if start == "random":
        x0 += np.random.default_rng(0).uniform(-2 * np.pi, 2 * np.pi, x0.shape).astype("float32") / simulator.gamma
    converging = solver.with_options(max_steps=100, residual_tolerance=1e-4)
    return keras_sip.label_with_solver(simulator, converging, y, x0, batch_size=1000)


def residual_share(simulator, y, x, weight):
    """Share of the labels that explain their observation to a hundredth of its size."""
    misfit = np.linalg.norm(simulator(x) - y, axis=1)
    return float(np.mean((misfit < 1e-2 * np.linalg.norm(y, axis=1)) & (weight > 0)))


def train(experiment, simulator, solver, y, labelled, seed, options):
    """A network trained on labels, or by SIP on the same observations."""
    network = experiment.network(simulator, seed)
    scales = {"x_scale": 1.0, "input_scale": 1.0}
    if labelled is None:
        model = keras_sip.SIPModel(network, simulator, solver, "sip", **scales)
        data = keras_sip.from_arrays(simulator, y, batch_size=BATCH, seed=seed)
    else:
        x, weight = labelled
        model = keras_sip.SIPModel(network, simulator, None, "supervised", **scales)
        data = keras_sip.from_arrays(simulator, y, x, sample_weight=weight, batch_size=BATCH, seed=seed)
    model.compile(keras.optimizers.Adam(1e-3), steps_per_execution=STEPS_PER_EXECUTION)
    model.fit(data.take(options.steps), steps_per_epoch=options.steps, verbose=0)
    return model


def table(errors, losses, found, options):
    lines = [
        f"Rotated sine, map {options.map}, xi = {options.xi:g}, phi = {options.phi:g}:",
        f"{options.examples} observations, {options.steps} steps;",
        f"{EVALUATION} new observations, mean over seeds {' '.join(map(str, options.seeds))} +- half their range",
        "",
        f"{'':28}{'distance in x':>18}{'loss in y':>12}{'labels that solve':>20}",
    ]
    for name, values in errors.items():
        distance = f"{np.mean(values):.4f} +- {np.ptp(values) / 2:.4f}"
        share = f"{100 * found[name]:.1f} %" if name in found else "none needed"
        lines.append(f"{name:28}{distance:>18}{np.mean(losses[name]):12.2g}{share:>20}")
    return "\n".join(lines) + "\n"


def figure(simulator, y, labels, unseen, predictions, options):
    """Labels (dots) and predictions (orange) of each training, over the observation, with the true causes."""
    with plotting.figure(width=9.5, height=3.6) as drawn:
        drawn.suptitle(
            f"Two-stage training and SIP, rotated sine, map {options.map}, xi = {options.xi:g}", x=0.02, ha="left"
        )
        panels = drawn.subplots(1, len(predictions), sharey=True)
        for axes, (name, x) in zip(panels, predictions.items(), strict=True):
            true_causes(axes)
            if name in labels:
                axes.plot(
                    z1(simulator, y[:2000]),
                    phase(simulator, labels[name][0][:2000]),
                    ".",
                    color="#56B4E9",
                    markersize=2,
                    label="labels",
                )
            axes.plot(z1(simulator, unseen), phase(simulator, x), ".", color="#D55E00", markersize=2.5, label="network")
            axes.set(xlabel="observation, z1", title=name, ylim=(-8, 8))
        panels[0].set_ylabel("phase of x along the sine")
        handles, names = panels[0].get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside upper right", ncols=3, markerscale=4)
    return drawn


def true_causes(axes):
    line = np.linspace(-1, 1, 201)
    for turn in range(-2, 3):
        for branch in (np.arcsin(line), np.pi - np.arcsin(line)):
            axes.plot(
                line,
                branch + 2 * np.pi * turn,
                color="0.75",
                linewidth=0.8,
                zorder=0,
                label="true causes" if turn == 0 and branch[0] < 0 else None,
            )


def z1(simulator, y):
    return simulator.network_input(tf.convert_to_tensor(y))[:, 0].numpy()


def phase(simulator, x):
    """The argument of the sine."""
    angle = np.deg2rad(simulator.phi)
    frequency = simulator.gamma if simulator.map == "paper" else simulator.gamma / simulator.xi
    x = np.asarray(x)
    return frequency * (np.cos(angle) * x[:, 0] - np.sin(angle) * x[:, 1])
