"""The exponential: find x in [-12, 0] from y = e^x, whose gradients span five orders of magnitude (paper, Fig. 2).

  python applications/exponential.py --methods sgd adam rescaled --seeds 0 1 2
  python applications/exponential.py --methods sip adam --log-input --output runs/exponential_log
  python applications/exponential.py --figure        Fig. 2: what each method predicts over x, and a table of all

The first three and the Newton methods have the paper's settings: 1-16-64-16-1 with sigmoids, raw y, losses summed over
the batch. An interrupted run goes on with the same command and --resume.
"""

import argparse
import sys

import keras

import keras_sip
from ensembles import exponential_figure
from experiments.runner import Experiment, Variant, main


def sgd(options):
    return keras.optimizers.SGD(1e-2)


def adam(options):
    return keras.optimizers.Adam(1e-3)


def fast_adam(options):
    return keras.optimizers.Adam(1e-2)


def decaying_adam(options):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, options.steps))


def network(simulator, seed):
    return keras_sip.MLP(1, 1, (16, 64, 16), activation="sigmoid", seed=seed)


def relu_network(simulator, seed):
    return keras_sip.MLP(1, 1, (32, 64, 32), seed=seed)


def levenberg_marquardt(options):
    # Where no try lowers the objective, its fallback is a bounded step downhill, never a silent zero.
    return keras_sip.LevenbergMarquardt()


VARIANTS = {
    "sgd": Variant(label="SGD", about="back-propagation, SGD 1e-2", method="adjoint", optimizer=sgd),
    "adam": Variant(label="Adam", about="back-propagation, Adam 1e-3", method="adjoint", optimizer=adam),
    "rescaled": Variant(
        label="Rescaled",
        about="updates of unit length in x towards the solution, SGD 1e-2",
        method="sip",
        solver=lambda options: keras_sip.SignStep(),
        optimizer=sgd,
    ),
    "newton": Variant(
        label="Newton, downhill",
        about="|g / h| downhill, SGD 1e-2",
        method="sip",
        solver=lambda options: keras_sip.SaddleFreeNewton(),
        optimizer=sgd,
    ),
    "newton_clipped": Variant(
        label="Newton, clipped",
        about="the same, at most 0.1 long",
        method="sip",
        solver=lambda options: keras_sip.LimitedStep(keras_sip.SaddleFreeNewton(), max_norm=0.1),
        optimizer=sgd,
    ),
    "newton_damped": Variant(
        label="Newton, damped",
        about="|g| / (|h| + 0.01) downhill",
        method="sip",
        solver=lambda options: keras_sip.SaddleFreeNewton(damping=0.01),
        optimizer=sgd,
    ),
    "supervised": Variant(
        label="Supervised", about="regression on the true x, SGD 1e-2", method="supervised", optimizer=sgd
    ),
    "sip": Variant(
        label="SIP",
        about="Levenberg-Marquardt, Adam 1e-2",
        method="sip",
        solver=levenberg_marquardt,
        optimizer=fast_adam,
    ),
    "sip_sign": Variant(
        label="SIP, unit steps",
        about="updates of unit length, Adam 1e-2",
        method="sip",
        solver=lambda options: keras_sip.SignStep(),
        optimizer=fast_adam,
    ),
    "sip_relu": Variant(
        label="SIP, ReLU",
        about="Levenberg-Marquardt, Adam decaying from 1e-2, 1-32-64-32-1 with ReLU",
        method="sip",
        solver=levenberg_marquardt,
        optimizer=decaying_adam,
        network=relu_network,
    ),
    "adam_relu": Variant(
        label="Adam, ReLU",
        about="back-propagation, the same network and optimizer",
        method="adjoint",
        optimizer=decaying_adam,
        network=relu_network,
    ),
}


def add_options(parser):
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


def run(argv=None):
    """The comparison, or the paper's figure."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--figure", action="store_true")
    own, others = parser.parse_known_args(argv)
    return (exponential_figure.main if own.figure else main)(EXPERIMENT, others)


if __name__ == "__main__":
    sys.exit(run())
