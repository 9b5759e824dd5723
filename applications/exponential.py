"""The exponential: find x in [-12, 0] from y = e^x, whose gradients span five orders of magnitude (paper, Fig. 2).

  python applications/exponential.py --methods sgd adam rescaled --seeds 0 1 2
  python applications/exponential.py --methods sip adam --log-input --output runs/exponential_log
  python applications/exponential.py --figure        Fig. 2: what each method predicts over x, and a table of all

The first three and the Newton methods have the paper's settings: 1-16-64-16-1 with sigmoids, raw y, losses summed over
the batch. An interrupted run goes on with the same command and --resume.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.startup import keras_sip

import keras

from ensembles import exponential_figure
from experiments.baselines import adam, adam_with, generic
from experiments.experiment import Experiment, adjoint, sip, supervised
from experiments.runner import main
from keras_sip import LevenbergMarquardt, LimitedStep, SaddleFreeNewton, SignStep


def sgd(options):
    return keras.optimizers.SGD(1e-2)


def decaying_adam(options):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, options.steps))


def network(simulator, seed):
    return keras_sip.MLP(1, 1, (16, 64, 16), activation="sigmoid", seed=seed)


def relu_network(simulator, seed):
    return keras_sip.MLP(1, 1, (32, 64, 32), seed=seed)


# Where no try lowers the objective, its fallback is a bounded step downhill, never a silent zero.
LEVENBERG_MARQUARDT = LevenbergMarquardt()

VARIANTS = {
    "sgd": adjoint("SGD", "back-propagation, SGD 1e-2", sgd),
    "adam": adjoint("Adam", "back-propagation, Adam 1e-3", adam),
    "rescaled": sip("Rescaled", "updates of unit length in x towards the solution, SGD 1e-2", SignStep(), sgd),
    "newton": sip("Newton, downhill", "|g / h| downhill, SGD 1e-2", SaddleFreeNewton(), sgd),
    "newton_clipped": sip(
        "Newton, clipped", "the same, at most 0.1 long", LimitedStep(SaddleFreeNewton(), max_norm=0.1), sgd
    ),
    "newton_damped": sip("Newton, damped", "|g| / (|h| + 0.01) downhill", SaddleFreeNewton(damping=0.01), sgd),
    "supervised": supervised(sgd, about="regression on the true x, SGD 1e-2"),
    "sip": sip("SIP", "Levenberg-Marquardt, Adam 1e-2", LEVENBERG_MARQUARDT, adam_with(1e-2)),
    "sip_generic": generic(adam_with(1e-2)),
    "sip_sign": sip("SIP, unit steps", "updates of unit length, Adam 1e-2", SignStep(), adam_with(1e-2)),
    "sip_relu": sip(
        "SIP, ReLU",
        "Levenberg-Marquardt, Adam decaying from 1e-2, 1-32-64-32-1 with ReLU",
        LEVENBERG_MARQUARDT,
        decaying_adam,
        network=relu_network,
    ),
    "adam_relu": adjoint(
        "Adam, ReLU", "back-propagation, the same network and optimizer", decaying_adam, network=relu_network
    ),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log-input", action="store_true", help="the network sees log y")


EXPERIMENT = Experiment(
    name="exponential",
    title="Exponential",
    description=__doc__,
    simulator=lambda options: keras_sip.Exponential(log_input=options.log_input),
    network=network,
    variants=VARIANTS,
    default_methods=("sgd", "adam", "rescaled"),
    steps=10_000,
    batch=100,
    resolution=(),
    steps_per_execution=50,
    # The paper sums over the batch; its networks see y and give x.
    batch_reduction="sum",
    input_scale=1.0,
    x_scale=1.0,
    evaluation_examples=1024,
    add_options=add_options,
    reconstructions=None,
)


def run(argv: Sequence[str] | None = None) -> int:
    """The comparison, or the paper's figure."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--figure", action="store_true")
    own, others = parser.parse_known_args(argv)
    return (exponential_figure.main if own.figure else main)(EXPERIMENT, others)


if __name__ == "__main__":
    sys.exit(run())
