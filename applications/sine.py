"""The rotated sine: find one of the many x with (sin(u1) / xi, xi u2) = y, u = gamma R_phi x (paper, Fig. 5).

xi sets how differently the two directions of x act, phi how much they are coupled. One setting, on the shared runner:

  python applications/sine.py --methods sip adam --xi 32 --phi 45 --seeds 0 1 2
  python applications/sine.py --methods sip_l1 adam --map released --xi 32 --phi 45 --output runs/sine_released

The paper's figure, with its search of rates and its sweeps over xi and phi, and studies, each with its own --help:

  python applications/sine.py --figure                  Fig. 5a to e: landscape, curves, sweeps, for six methods
  python applications/sine.py --study options           what SIP's options do to errors in x and losses in y
  python applications/sine.py --study two_stage         labels from a solver, which fail where causes are many
  python applications/sine.py --study initial_guess     solvers from good and bad starts, and from networks

--map paper is the formula printed in the paper, --map released that of the authors' published code (gamma = 10). An
interrupted run goes on with the same command and --resume.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.startup import keras_sip

import keras

from ensembles import sine_figure
from experiments.baselines import adam, generic
from experiments.experiment import Experiment, adjoint, sip
from experiments.runner import main_or_study
from keras_sip import LBFGS, MaximumAPosteriori
from studies import initial_guess, sine_options, sine_two_stage


def saddle_free_newton(options):
    # The paper's limit of the predicted change of the loss along flat directions.
    return keras_sip.SaddleFreeNewton(max_loss_change=0.2)


def relative_limit(options):
    return keras_sip.SaddleFreeNewton(max_relative_loss_change=2.0)


# Where Keras' defaults differ from those of the framework that the paper used, these are the latter.


def sgd(options):
    return keras.optimizers.SGD(1e-2 / options.xi**2)


def adadelta(options):
    return keras.optimizers.Adadelta(3e-3, rho=0.9, epsilon=1e-6)


def adagrad(options):
    return keras.optimizers.Adagrad(3e-3, initial_accumulator_value=0.0, epsilon=1e-10)


def rmsprop(options):
    return keras.optimizers.RMSprop(3e-5, rho=0.99, epsilon=1e-8)


def _end_to_end(label, optimizer):
    return adjoint(label, f"back-propagation, {label}", optimizer)


VARIANTS = {
    "sip": sip("SIP", "scale-invariant updates, saddle-free Newton with the paper's limit", saddle_free_newton, adam),
    "sip_generic": generic(adam),
    "adam": _end_to_end("Adam", adam),
    "sgd": _end_to_end("SGD", sgd),
    "adadelta": _end_to_end("Adadelta", adadelta),
    "adagrad": _end_to_end("Adagrad", adagrad),
    "rmsprop": _end_to_end("RMSprop", rmsprop),
    "sip_l1": sip(
        "SIP, signs",
        "the same, only the sign of each component counts (the authors' published code)",
        saddle_free_newton,
        adam,
        method=keras_sip.SIP(proxy="l1"),
    ),
    "sip_relative": sip(
        "SIP, relative limit", "the limit in units of each example's loss, 2 L / |g|", relative_limit, adam
    ),
    "sip_curvature": sip(
        "SIP, p = 1/4",
        "each component times its curvature to the power 1/4: better in y",
        lambda options: saddle_free_newton(options).with_options(curvature_power=0.25),
        adam,
    ),
    "sip_adjoint": sip(
        "SIP + 3 adjoints",
        "three parts of the adjoint mixed in: better in y",
        saddle_free_newton,
        adam,
        method=keras_sip.SIP(adjoint_mix=3.0),
    ),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--xi", type=float, default=1.0, help="conditioning (default: %(default)s)")
    add("--phi", type=float, default=0.0, help="rotation in degrees (default: %(default)s)")
    add("--map", choices=("paper", "released"), default="paper", help="which of the two maps (default: %(default)s)")


EXPERIMENT = Experiment(
    name="sine",
    title="Rotated sine",
    description=__doc__,
    simulator=lambda options: keras_sip.RotatedSine(xi=options.xi, phi=options.phi, map=options.map),
    network=lambda simulator, seed: keras_sip.MLP(2, 2, seed=seed),
    variants=VARIANTS,
    steps=10_000,
    batch=100,
    resolution=(),
    steps_per_execution=50,
    input_scale=1.0,
    x_scale=1.0,
    evaluation_examples=1024,
    table_steps=(100, 300, 1000, 3000, 10_000, 30_000, 100_000),
    add_options=add_options,
    reconstructions=None,
)

STUDIES = {
    "options": sine_options.main,
    "two_stage": sine_two_stage.main,
    "initial_guess": initial_guess.study(
        {"saddle-free Newton": saddle_free_newton(None), "L-BFGS": LBFGS(), "generic": MaximumAPosteriori()}
    ),
}


def run(argv: Sequence[str] | None = None) -> int:
    """The comparison of one setting, the paper's figure, or a study."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--figure", action="store_true")
    own, others = parser.parse_known_args(argv)
    return sine_figure.main(EXPERIMENT, others) if own.figure else main_or_study(EXPERIMENT, STUDIES, others)


if __name__ == "__main__":
    sys.exit(run())
