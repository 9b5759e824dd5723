"""The heat equation: find the initial temperature x of an observed one y, after most of its detail has diffused away.

Trains a U-Net on random boxes with each method, side by side (Section 4 of the paper, Fig. 6c and 6d):

  python applications/heat.py --methods sip adam --steps 100
  python applications/heat.py --methods sip gauss_newton adam --steps 1000 --batch 32 --seeds 0 1 2 --output runs/long

and two studies, each with its own `--help`:

  python applications/heat.py --study hyperparameters    rates x batch sizes, SIP against Adam
  python applications/heat.py --study solvers            inverse solvers on single problems, without a network

Physics and solvers compute in float64, the network in float32. Writes metrics.csv, table.txt, learning_curves.png,
reconstructions.png, event files for `tensorboard --logdir FOLDER` and the trained models (saved_models/). An
interrupted run goes on with the same command and --resume.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.startup import keras_sip

import keras

from experiments.baselines import adam, add_cg_options, baselines, generic
from experiments.experiment import Experiment, adjoint, sip
from experiments.runner import main_or_study
from keras_sip import DampedSpectralInverse, GaussNewton, WienerInverse
from studies import heat_hyperparameters, heat_solvers


def muon(options):
    # Orthogonal steps do not get smaller by themselves: without a decay the network's weights keep jumping.
    return keras_sip.Muon(keras.optimizers.schedules.CosineDecay(1e-2, options.steps), momentum=0.9)


def unet(simulator, seed):
    return keras_sip.UNet(simulator.y_shape, simulator.x_shape[-1], padding="periodic", seed=seed)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_cg_options(parser, cg_steps=20, solvers="gauss_newton")


VARIANTS = {
    "sip": sip("SIP", "scale-invariant updates, from the damped spectral inverse", DampedSpectralInverse(), adam),
    "sip_generic": generic(adam),
    # The paper's rate of SGD.
    **baselines(through="the diffusion", sgd_rate=2e-6, adahessian_rate=1e-3, fno_rate=1e-4),
    "muon": adjoint("Muon", "adam with orthogonal steps of kernels, their rate falling to 0 over --steps", muon),
    "sip_muon": sip("SIP, Muon", "sip with the optimizer of muon", DampedSpectralInverse(), muon),
    "sip_wiener_muon": sip("SIP, Wiener, Muon", "sip_wiener with the optimizer of muon", WienerInverse(), muon),
    "sip_wiener": sip("SIP, Wiener", "scale-invariant updates, from the Wiener inverse", WienerInverse(), adam),
    "gauss_newton": sip(
        "SIP, Gauss-Newton",
        "scale-invariant updates, the physics taken as a black box that can be differentiated",
        lambda options: GaussNewton(cg_steps=options.cg_steps, cg_tolerance=0.0),
        adam,
    ),
}

EXPERIMENT = Experiment(
    name="heat",
    title="Heat",
    description=__doc__,
    simulator=lambda options: keras_sip.Heat(tuple(options.resolution)),
    network=unet,
    variants=VARIANTS,
    # The paper sums over cells and batch, and its network sees y as it is (about 0.2).
    batch_reduction="sum",
    input_scale=1.0,
    steps=100,
    add_options=add_options,
)

STUDIES = {"hyperparameters": heat_hyperparameters.main, "solvers": heat_solvers.main}


def run(argv: Sequence[str] | None = None) -> int:
    """The comparison, or the study that `--study` names."""
    return main_or_study(EXPERIMENT, STUDIES, argv)


if __name__ == "__main__":
    sys.exit(run())
