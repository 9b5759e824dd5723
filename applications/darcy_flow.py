"""Darcy flow: find the logarithm x of a medium's permeability of the pressure y that a source drives through it.

Trains a U-Net with each method, side by side; no inverse of the process is known:

  python applications/darcy_flow.py --methods sip_generic adjoint supervised
  python applications/darcy_flow.py --observed 0.1 --noise 0.05 --resolution 24 --steps 400 --seeds 0 1 2
  python applications/darcy_flow.py --data two_phase

--data two_phase draws media of two permeabilities, of which a Gaussian prior knows mean and covariance alone.

Writes metrics.csv, table.txt, learning_curves.png, reconstructions.png, refined.txt and answers_METHOD.png (the answers
refined by the generic solver, with error bars), event files for `tensorboard --logdir FOLDER` and the trained models
(saved_models/). An interrupted run goes on with the same command and --resume.
"""

import argparse
import sys

from experiments.startup import keras_sip

from experiments.baselines import gauss_newton, without_inverse
from experiments.experiment import Experiment
from experiments.refined import add_refine_option, refining
from experiments.runner import main
from keras_sip import MaximumAPosteriori
from keras_sip.comparison.networks import default_network


def simulator(options):
    return keras_sip.DarcyFlow(tuple(options.resolution), observed=options.observed, medium=options.data)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", choices=("smooth", "two_phase"), default="smooth", help="the media (default: %(default)s)")
    add("--observed", type=float, metavar="SHARE", help="share of the cells with a sensor (default: all)")
    add("--cg-steps", type=int, default=5, help="conjugate-gradient steps of gauss_newton (default: %(default)s)")
    add_refine_option(parser)


VARIANTS = {**without_inverse(through="the flow"), "gauss_newton": gauss_newton()}

EXPERIMENT = Experiment(
    name="darcy_flow",
    title="Darcy flow",
    description=__doc__,
    simulator=simulator,
    network=lambda simulator, seed: default_network(simulator)(seed),
    variants=VARIANTS,
    default_methods=("sip_generic", "adjoint", "supervised"),
    reference="adjoint",
    steps=200,
    batch=16,
    resolution=(12, 12),
    evaluation_examples=128,
    table_steps=(10, 20, 50, 100, 200, 400, 1000, 2000, 5000, 10000),
    add_options=add_options,
    free_options=("refine",),
    further_results=refining(MaximumAPosteriori()),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
