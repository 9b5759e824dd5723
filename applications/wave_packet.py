"""Wave packets: find position and frequency x of a packet in a noisy signal y, among many local minima (appendix).

Trains a small network with each method, side by side:

  python applications/wave_packet.py --methods sip_generic adjoint supervised
  python applications/wave_packet.py --noise 0.3 --steps 2000 --seeds 0 1 2
  python applications/wave_packet.py --study initial_guess      iterative solvers from good and bad starts, and networks

The study has its own `--help`. Writes metrics.csv, table.txt, learning_curves.png, refined.txt and answers_METHOD.png
(the answers refined by the generic solver, with error bars), event files for `tensorboard --logdir FOLDER` and the
trained models (saved_models/). An interrupted run goes on with the same command and --resume.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.startup import keras_sip

from experiments.baselines import levenberg_marquardt, without_inverse
from experiments.experiment import Experiment
from experiments.networks import starting_at
from experiments.refined import add_refine_option, refining
from experiments.runner import main_or_study
from keras_sip import LBFGS, LevenbergMarquardt, MaximumAPosteriori
from studies import initial_guess


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(noise=[0.1])
    add_refine_option(parser, 10)


def network(simulator, seed):
    """It starts at the middle of the ranges, 1 in units of x: from outside no solver finds the packet."""
    return starting_at(keras_sip.MLP(simulator.y_shape[0], 2, (128, 128, 64), seed=seed))


VARIANTS = {**without_inverse(through="the signal"), "levenberg_marquardt": levenberg_marquardt()}

EXPERIMENT = Experiment(
    name="wave_packet",
    title="Wave packet",
    description=__doc__,
    simulator=lambda options: keras_sip.WavePacket(),
    network=network,
    variants=VARIANTS,
    default_methods=("sip_generic", "adjoint", "supervised"),
    reference="adjoint",
    steps=3000,
    batch=64,
    resolution=(),
    steps_per_execution=50,
    evaluation_examples=1024,
    table_steps=(100, 300, 1000, 3000, 10_000, 30_000),
    add_options=add_options,
    free_options=("refine",),
    further_results=refining(MaximumAPosteriori()),
    reconstructions=None,
)

STUDIES = {
    "initial_guess": initial_guess.study(
        {
            "Lev.-Marquardt": LevenbergMarquardt(),
            "L-BFGS": LBFGS(),
            "generic": MaximumAPosteriori(),
        }
    )
}


def run(argv: Sequence[str] | None = None) -> int:
    """The comparison, or the study that `--study` names."""
    return main_or_study(EXPERIMENT, STUDIES, argv)


if __name__ == "__main__":
    sys.exit(run())
