"""The methods without an inverse solver that SIP is compared with, for systems on a grid: the paper's, and more."""

import keras

import keras_sip
from experiments.experiment import Variant


def adam(options):
    return keras.optimizers.Adam(1e-3)


def baselines(*, through, sgd_rate, adahessian_rate, fno_rate):
    """{name: Variant} of back-propagation with each optimizer, of a Fourier neural operator, and of regression.

    Args:
        through: What is differentiated, in words.
        sgd_rate, adahessian_rate, fno_rate: Learning rates, for losses summed over cells and batch.
    """
    return {
        "adam": Variant(label="Adam", about=f"back-propagation through {through}", method="adjoint", optimizer=adam),
        "sgd": Variant(
            label="SGD",
            about="the same with SGD and momentum",
            method="adjoint",
            optimizer=lambda options: keras.optimizers.SGD(sgd_rate, momentum=0.9),
        ),
        "adahessian": Variant(
            label="AdaHessian",
            about="the same with the diagonal of the Hessian",
            method="adjoint",
            optimizer=lambda options: keras_sip.AdaHessian(adahessian_rate),
        ),
        "hessian_free": Variant(
            label="Hessian-free",
            about="the same with Gauss-Newton steps in all weights",
            method="adjoint",
            optimizer=lambda options: keras_sip.HessianFree(cg_steps=options.optimizer_cg_steps),
            # Its steps have a length of their own.
            rate_factors=(1.0,),
        ),
        "fno": Variant(
            label="FNO, Adam",
            about="back-propagation into a Fourier neural operator",
            method="adjoint",
            optimizer=lambda options: keras.optimizers.Adam(fno_rate),
            network=lambda simulator, seed: keras_sip.FNO(simulator.y_shape, simulator.x_shape[-1], seed=seed),
        ),
        "supervised": Variant(
            label="Supervised", about="regression on the true x", method="supervised", optimizer=adam
        ),
    }


def add_cg_options(parser, *, cg_steps, solvers):
    """The options `--cg-steps`, of the named solvers, and `--optimizer-cg-steps`, of hessian_free."""
    add = parser.add_argument
    steps = "conjugate-gradient steps of"
    add("--cg-steps", type=int, default=cg_steps, help=f"{steps} {solvers} (default: %(default)s)")
    add("--optimizer-cg-steps", type=int, default=20, help=f"{steps} hessian_free at most (default: %(default)s)")
