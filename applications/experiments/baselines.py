"""The methods without an inverse solver that SIP is compared with, for systems on a grid: the paper's, and more."""

import argparse
from collections.abc import Callable

import keras

import keras_sip
from experiments.experiment import Variant, adjoint, sip, supervised


def adam_with(rate: float) -> Callable:
    """`options -> Adam` of a learning rate."""
    return lambda options: keras.optimizers.Adam(rate)


adam = adam_with(1e-3)


def baselines(*, through: str, sgd_rate: float, adahessian_rate: float, fno_rate: float) -> dict[str, Variant]:
    """{name: Variant} of back-propagation with each optimizer, of a Fourier neural operator, and of regression.

    Args:
        through: What is differentiated, in words.
        sgd_rate, adahessian_rate, fno_rate: Learning rates, for losses summed over cells and batch.
    """
    return {
        "adam": adjoint("Adam", f"back-propagation through {through}", adam),
        "sgd": adjoint(
            "SGD", "the same with SGD and momentum", lambda options: keras.optimizers.SGD(sgd_rate, momentum=0.9)
        ),
        "adahessian": adjoint(
            "AdaHessian",
            "the same with the diagonal of the Hessian",
            lambda options: keras_sip.AdaHessian(adahessian_rate),
        ),
        "hessian_free": adjoint(
            "Hessian-free",
            "the same with Gauss-Newton steps in all weights",
            lambda options: keras_sip.HessianFree(cg_steps=options.optimizer_cg_steps),
            # Its steps have a length of their own.
            rate_factors=(1.0,),
        ),
        "fno": adjoint(
            "FNO, Adam",
            "back-propagation into a Fourier neural operator",
            adam_with(fno_rate),
            network=lambda simulator, seed: keras_sip.FNO(simulator.y_shape, simulator.x_shape[-1], seed=seed),
        ),
        "supervised": supervised(adam),
    }


def without_inverse(*, through: str) -> dict[str, Variant]:
    """{name: Variant} for a system whose inverse nobody knows: SIP by what the package can find, and its rivals.

    Args:
        through: What is differentiated, in words.
    """
    return {
        "sip": automatic(adam),
        "sip_generic": generic(adam),
        "adjoint": adjoint("Back-propagation", f"back-propagation through {through}, Adam", adam),
        "supervised": supervised(adam),
    }


def levenberg_marquardt() -> Variant:
    """SIP with Levenberg-Marquardt, which is given no prior."""
    about = "scale-invariant updates without a prior"
    return sip("SIP, Lev.-Marquardt", about, keras_sip.LevenbergMarquardt(), adam)


def gauss_newton() -> Variant:
    """SIP with Gauss-Newton steps of `--cg-steps` conjugate-gradient steps, without a prior."""
    return sip(
        "SIP, Gauss-Newton",
        "scale-invariant updates of few conjugate-gradient steps, without a prior",
        lambda options: keras_sip.GaussNewton(cg_steps=options.cg_steps, cg_tolerance=0.0),
        adam,
    )


def generic(optimizer: Callable) -> Variant:
    """SIP with a solver that is given `forward` and examples of x alone: no inverse, reverse form or spectral basis."""
    about = "the same, given samples of x alone: maximum a posteriori, prior measured"
    return sip("SIP, generic", about, keras_sip.MaximumAPosteriori(), optimizer)


def automatic(optimizer: Callable) -> Variant:
    """SIP with the package's own choice of a solver."""
    return sip(
        "SIP", "scale-invariant updates from the solver that the package chooses", lambda options: "auto", optimizer
    )


def add_cg_options(parser: argparse.ArgumentParser, *, cg_steps: int, solvers: str) -> None:
    """The options `--cg-steps`, of the named solvers, and `--optimizer-cg-steps`, of hessian_free."""
    add = parser.add_argument
    steps = "conjugate-gradient steps of"
    add("--cg-steps", type=int, default=cg_steps, help=f"{steps} {solvers} (default: %(default)s)")
    add("--optimizer-cg-steps", type=int, default=20, help=f"{steps} hessian_free at most (default: %(default)s)")
