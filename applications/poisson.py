"""Poisson's equation: find the charge distribution x of an observed potential y, where laplace y = x.

Trains a U-Net on random smooth charges with each method, side by side (Section 4 of the paper, Fig. 6a and 6b):

  python applications/poisson.py --methods sip adam --steps 60
  python applications/poisson.py --methods sip adam --steps 1000 --batch 32 --seeds 0 1 2 --output runs/poisson_long
  python applications/poisson.py --methods sip gauss_newton adam --steps 200 --output runs/poisson_hidden_inverse

Writes metrics.csv, table.txt, learning_curves.png, reconstructions.png, event files for `tensorboard --logdir FOLDER`
and the trained models (saved_models/). An interrupted run goes on with the same command and --resume.
"""

import sys

import keras

import keras_sip
from _runner import Experiment, Variant, main

# The slope |J^T r| is nearly all in the longest waves and falls long before the short ones are found.
CG_TOLERANCE = 1e-6


def adam(options):
    return keras.optimizers.Adam(1e-3)


def quick_adam(options):
    return keras.optimizers.Adam(3e-3)


def sgd(options):
    # The rate is the paper's, for losses summed over cells and batch; 1e-10 diverges.
    return keras.optimizers.SGD(3e-12, momentum=0.9)


def adahessian(options):
    return keras_sip.AdaHessian(1e-6)


def hessian_free(options):
    return keras_sip.HessianFree(cg_steps=options.optimizer_cg_steps)


def muon(options):
    return keras_sip.Muon(3e-3)


def add_options(parser):
    parser.add_argument(
        "--cg-steps",
        type=int,
        default=150,
        help="conjugate-gradient steps of gauss_newton and levenberg_marquardt (default: %(default)s)",
    )
    parser.add_argument(
        "--optimizer-cg-steps",
        type=int,
        default=20,
        help="conjugate-gradient steps of hessian_free at most (default: %(default)s)",
    )


VARIANTS = {
    "sip": Variant(
        label="SIP",
        about="scale-invariant updates, from the known inverse (one Laplacian)",
        method="sip",
        solver=lambda options: keras_sip.AnalyticInverse(),
        optimizer=adam,
    ),
    "adam": Variant(label="Adam", about="back-propagation through the solve", method="adjoint", optimizer=adam),
    "sgd": Variant(label="SGD", about="the same with SGD and momentum", method="adjoint", optimizer=sgd),
    "adahessian": Variant(
        label="AdaHessian",
        about="the same with the diagonal of the Hessian",
        method="adjoint",
        optimizer=adahessian,
    ),
    "hessian_free": Variant(
        label="Hessian-free",
        about="the same with Gauss-Newton steps in all weights",
        method="adjoint",
        optimizer=hessian_free,
        # Its steps have a length of their own.
        rate_factors=(1.0,),
    ),
    "fno": Variant(
        label="FNO, Adam",
        about="back-propagation into a Fourier neural operator",
        method="adjoint",
        optimizer=quick_adam,
        network=lambda simulator, seed: keras_sip.FNO(simulator.y_shape, simulator.x_shape[-1], seed=seed),
    ),
    "muon": Variant(label="Muon", about="the same with orthogonal steps of kernels", method="adjoint", optimizer=muon),
    "sip_muon": Variant(
        label="SIP, Muon",
        about="sip with orthogonal steps of kernels",
        method="sip",
        solver=lambda options: keras_sip.AnalyticInverse(),
        optimizer=muon,
    ),
    "supervised": Variant(
        label="Supervised", about="regression on the true x, which SIP equals here", method="supervised", optimizer=adam
    ),
    "gauss_newton": Variant(
        label="SIP, Gauss-Newton",
        about="scale-invariant updates, the inverse taken as unknown",
        method="sip",
        solver=lambda options: keras_sip.GaussNewton(cg_steps=options.cg_steps, cg_tolerance=CG_TOLERANCE),
        optimizer=adam,
    ),
    "levenberg_marquardt": Variant(
        label="SIP, Lev.-Marquardt",
        about="the same, damped",
        method="sip",
        solver=lambda options: keras_sip.LevenbergMarquardt(cg_steps=options.cg_steps, cg_tolerance=CG_TOLERANCE),
        optimizer=adam,
    ),
    "gradient_descent": Variant(
        label="SIP, gradient step",
        about="updates along the gradient: equals adam, as a check",
        method="sip",
        solver=lambda options: keras_sip.GradientDescent(),
        optimizer=adam,
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
