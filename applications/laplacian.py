"""Poisson's equation by its residual: find the potential x of a charge y, where y = laplace x, on 8 x 8 cells.

The third problem of the half-inverse gradients (Schnell, Holl and Thuerey, ICLR 2022): a network of 41,408 weights, its
loss the residual of the equation. It is the reverse of poisson.py, where a charge is sought; here the short waves of x
weigh most in the loss.

  python applications/laplacian.py --methods half_inverse sip adam --budget 60s

The source's settings: half-inverse gradients truncated at 1e-5 against Adam at 3e-4, batch 64 both. 4,096 residuals a
batch are too many for a dense decomposition: `--lanczos-steps` of Lanczos' iteration take its place. Writes
metrics.csv, table.txt, comparison.txt, learning_curves.png, reconstructions.png, event files for `tensorboard --logdir
FOLDER` and the trained models (saved_models/). An interrupted run goes on with the same command and --resume.
"""

import argparse
import sys

from experiments.startup import keras_sip

from experiments.baselines import adam_with, generic
from experiments.control import NATURAL_DAMPING
from experiments.experiment import Experiment, adjoint, sip, supervised
from experiments.runner import main
from keras_sip import AnalyticInverse
from keras_sip.comparison.networks import flat_mlp

ADAM = adam_with(3e-4)
# The source's 0.01 belongs to residuals that are summed and not scaled: in units of the norm r of the first batch's
# residuals over the root of the batch, about 10, that is batch^(1/4) r^(1/2) times as much.
HALF_INVERSE_RATE = 0.1


def half_inverse(options):
    return keras_sip.HalfInverse(HALF_INVERSE_RATE, truncation=1e-5, lanczos_steps=options.lanczos_steps)


def natural_gradient(options):
    return keras_sip.NaturalGradient(0.1, NATURAL_DAMPING, lanczos_steps=options.lanczos_steps)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lanczos-steps", type=int, default=30, help="of half_inverse and natural_gradient (default: %(default)s)"
    )


def network(simulator, seed):
    return flat_mlp(simulator.y_shape, simulator.x_shape, hidden=(64, 256, 64), activation="tanh", seed=seed)


EXPERIMENT = Experiment(
    name="laplacian",
    title="Poisson by its residual",
    description=__doc__,
    simulator=lambda options: keras_sip.Laplacian(tuple(options.resolution)),
    network=network,
    variants={
        "adam": adjoint("Adam", "back-propagation through the Laplacian", ADAM),
        "half_inverse": adjoint(
            "Half-inverse", "the same with half-inverse gradients in all weights", half_inverse, rate_factors=(1.0,)
        ),
        "natural_gradient": adjoint(
            "Natural gradient",
            "the same with damped Gauss-Newton steps in all weights and momentum",
            natural_gradient,
            rate_factors=(1.0,),
        ),
        "sip": sip("SIP", "scale-invariant updates, from the direct solve", AnalyticInverse(), ADAM),
        "sip_generic": generic(ADAM),
        "supervised": supervised(ADAM),
    },
    default_methods=("half_inverse", "sip", "adam"),
    steps=1000,
    batch=64,
    resolution=(8, 8),
    steps_per_execution=10,
    input_scale=1.0,
    table_steps=(10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000),
    add_options=add_options,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
