"""Lorenz' system: find the state x at the beginning of a window from sparse noisy observations y of one component.

Trains a small network with each method, side by side, for one window; or asks how each method bears a growing one:

  python applications/lorenz.py --methods sip_generic adjoint supervised --window 1
  python applications/lorenz.py --study windows --windows 0.5 1 2 4

A network trained by back-propagation differentiates through the whole window, where errors grow as e^(0.9 t).

Writes metrics.csv, table.txt, learning_curves.png, refined.txt and answers_METHOD.png (the answers refined by the
generic solver, with error bars), event files for `tensorboard --logdir FOLDER` and the trained models (saved_models/).
An interrupted run goes on with the same command and --resume.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.startup import keras_sip

from experiments.baselines import levenberg_marquardt, without_inverse
from experiments.experiment import Experiment
from experiments.refined import add_refine_option, refining
from experiments.runner import main_or_study
from keras_sip import MaximumAPosteriori
from keras_sip.comparison.networks import flat_mlp
from studies import lorenz_windows

# Observations are this long apart, so that a longer window has more of them.
INTERVAL = 0.1


def simulator(options):
    times = max(2, round(options.window / INTERVAL))
    return keras_sip.Lorenz(window=options.window, num_times=times)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(noise=[0.05])
    parser.add_argument("--window", type=float, default=1.0, help="time of the observations (default: %(default)s)")
    add_refine_option(parser, 10)


VARIANTS = {**without_inverse(through="all time steps"), "levenberg_marquardt": levenberg_marquardt()}

EXPERIMENT = Experiment(
    name="lorenz",
    title="Lorenz",
    description=__doc__,
    simulator=simulator,
    network=lambda simulator, seed: flat_mlp(simulator.y_shape, simulator.x_shape, hidden=(128, 128, 64), seed=seed),
    variants=VARIANTS,
    default_methods=("sip_generic", "adjoint", "supervised"),
    reference="adjoint",
    steps=1000,
    batch=64,
    resolution=(),
    steps_per_execution=20,
    evaluation_examples=256,
    table_steps=(10, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
    add_options=add_options,
    free_options=("refine",),
    further_results=refining(MaximumAPosteriori()),
    reconstructions=None,
)

STUDIES = {"windows": lorenz_windows.main}


def run(argv: Sequence[str] | None = None) -> int:
    """The comparison, or the study that `--study` names."""
    return main_or_study(EXPERIMENT, STUDIES, argv)


if __name__ == "__main__":
    sys.exit(run())
