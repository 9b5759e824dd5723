"""Predators and prey: find the rates x, from 1e-3 to 1e3, of the numbers of animals y over time (Lotka-Volterra).

Trains a small network with each method, side by side:

  python applications/ode_parameters.py --methods sip_generic adjoint supervised
  python applications/ode_parameters.py --noise 0.02 --seeds 0 1 2
  python applications/ode_parameters.py --coordinates linear

With --coordinates log the unknown is the logarithm of each parameter over its typical size: all are positive, and the
prior of the samples is Gaussian. With linear it is the parameters themselves; steps may leave the possible ones.

Writes metrics.csv, table.txt, learning_curves.png, refined.txt and answers_METHOD.png (the answers refined by the
generic solver, with error bars), event files for `tensorboard --logdir FOLDER` and the trained models (saved_models/).
An interrupted run goes on with the same command and --resume.
"""

import argparse
import sys

from experiments.startup import keras_sip

import numpy as np
import tensorflow_probability as tfp

from experiments.baselines import levenberg_marquardt, without_inverse
from experiments.experiment import Experiment
from experiments.networks import of_standardised_input, starting_at
from experiments.refined import add_refine_option, refining
from experiments.runner import main
from keras_sip import MaximumAPosteriori
from keras_sip.comparison.networks import flat_mlp


def simulator(options):
    process = keras_sip.LotkaVolterra()
    if options.coordinates == "linear":
        return process
    bijectors = tfp.bijectors
    typical = np.array(process.typical, process.dtype)
    return keras_sip.Constrained(process, bijectors.Chain([bijectors.Scale(typical), bijectors.Exp()]))


def network(simulator, seed):
    """Dense layers on the standardised record. In linear coordinates it starts from the typical parameters, not 0."""
    dense = flat_mlp(simulator.y_shape, simulator.x_shape, hidden=(64, 64, 64), seed=seed)
    dense = dense if hasattr(simulator, "bijector") else starting_at(dense)
    return of_standardised_input(dense, simulator)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--coordinates", choices=("log", "linear"), default="log", help="of the unknown (default: %(default)s)"
    )
    add_refine_option(parser)


VARIANTS = {**without_inverse(through="all time steps"), "levenberg_marquardt": levenberg_marquardt()}

EXPERIMENT = Experiment(
    name="ode_parameters",
    title="Lotka-Volterra",
    description=__doc__,
    simulator=simulator,
    network=network,
    variants=VARIANTS,
    default_methods=("sip_generic", "adjoint", "supervised"),
    reference="adjoint",
    steps=500,
    batch=32,
    resolution=(),
    steps_per_execution=10,
    # The network standardises its input itself.
    input_scale=1.0,
    evaluation_examples=256,
    table_steps=(10, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
    add_options=add_options,
    free_options=("refine",),
    further_results=refining(MaximumAPosteriori()),
    reconstructions=None,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
