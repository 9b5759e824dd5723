"""Poisson's equation: find the charge distribution x of an observed potential y, where laplace y = x.

Trains a U-Net on random smooth charges with each method, side by side (Section 4 of the paper, Fig. 6a and 6b):

  python applications/poisson.py --methods sip adam --steps 60
  python applications/poisson.py --methods sip adam --steps 1000 --batch 32 --seeds 0 1 2 --output runs/poisson_long
  python applications/poisson.py --methods sip gauss_newton adam --steps 200 --output runs/poisson_hidden_inverse

Writes metrics.csv, table.txt, learning_curves.png, reconstructions.png, event files for `tensorboard --logdir FOLDER`
and the trained models (saved_models/). An interrupted run goes on with the same command and --resume.
"""

import argparse
import sys

from experiments.startup import keras_sip

from experiments.baselines import adam, add_cg_options, baselines, generic
from experiments.experiment import Experiment, adjoint, sip
from experiments.runner import main
from keras_sip import AnalyticInverse, GaussNewton, GradientDescent, LevenbergMarquardt

# The slope |J^T r| is nearly all in the longest waves and falls long before the short ones are found.
CG_TOLERANCE = 1e-6


def muon(options):
    return keras_sip.Muon(3e-3)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_cg_options(parser, cg_steps=150, solvers="gauss_newton and levenberg_marquardt")


VARIANTS = {
    "sip": sip("SIP", "scale-invariant updates, from the known inverse (one Laplacian)", AnalyticInverse(), adam),
    "sip_generic": generic(adam),
    # The paper's rate of SGD; 1e-10 diverges.
    **baselines(through="the solve", sgd_rate=3e-12, adahessian_rate=1e-2, fno_rate=3e-3),
    "muon": adjoint("Muon", "adam with orthogonal steps of kernels", muon),
    "sip_muon": sip("SIP, Muon", "sip with orthogonal steps of kernels", AnalyticInverse(), muon),
    "gauss_newton": sip(
        "SIP, Gauss-Newton",
        "scale-invariant updates, the inverse taken as unknown",
        lambda options: GaussNewton(cg_steps=options.cg_steps, cg_tolerance=CG_TOLERANCE),
        adam,
    ),
    "levenberg_marquardt": sip(
        "SIP, Lev.-Marquardt",
        "the same, damped",
        lambda options: LevenbergMarquardt(cg_steps=options.cg_steps, cg_tolerance=CG_TOLERANCE),
        adam,
    ),
    "gradient_descent": sip(
        "SIP, gradient step", "updates along the gradient: equals adam, as a check", GradientDescent(), adam
    ),
}

EXPERIMENT = Experiment(
    name="poisson",
    title="Poisson",
    description=__doc__,
    simulator=lambda options: keras_sip.Poisson(tuple(options.resolution)),
    network=lambda simulator, seed: keras_sip.UNet(simulator.y_shape, simulator.x_shape[-1], seed=seed),
    variants=VARIANTS,
    # The paper sums over cells and batch, and its network sees y as it is (rms 14).
    batch_reduction="sum",
    input_scale=1.0,
    add_options=add_options,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
