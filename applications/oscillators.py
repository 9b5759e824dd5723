"""Nonlinear oscillators: find the force u(t) that brings two coupled oscillators back to where they started.

The first problem of the half-inverse gradients (Schnell, Holl and Thuerey, ICLR 2022): 96 controls, a final state of 4
numbers, a network of 2,956 weights. There is no true x: the error in x is the root mean square of the force, and what
counts is the loss in y.

  python applications/oscillators.py --methods half_inverse adam --budget 60s
  python applications/oscillators.py --methods adam --batch 512 --budget 60s --output runs/oscillators_512

The source's settings: half-inverse gradients at a rate of 1, truncated at 1e-6, batch 128, against Adam at 3e-4, batch
512. Writes metrics.csv, table.txt, comparison.txt, learning_curves.png, event files for `tensorboard --logdir FOLDER`
and the trained models (saved_models/). An interrupted run goes on with the same command and --resume.
"""

import sys

from experiments.startup import keras_sip

from experiments.control import control_variants
from experiments.experiment import Experiment
from experiments.runner import main

# The source's 1.0 belongs to residuals that are not scaled, and to their gradient divided by the batch: in units of the
# norm r of the first batch's residuals over the root of the batch, about 0.9, that is batch^(-3/4) r^(1/2).
HALF_INVERSE_RATE = 0.025


def half_inverse(options):
    return keras_sip.HalfInverse(HALF_INVERSE_RATE, truncation=1e-6)


EXPERIMENT = Experiment(
    name="oscillators",
    title="Nonlinear oscillators",
    description=__doc__,
    simulator=lambda options: keras_sip.Oscillators(target="initial"),
    network=lambda simulator, seed: keras_sip.MLP(4, 96, (20, 20, 20), seed=seed),
    variants=control_variants(adam_rate=3e-4, half_inverse=half_inverse),
    default_methods=("half_inverse", "adam"),
    steps=1000,
    batch=128,
    resolution=(),
    steps_per_execution=5,
    input_scale=1.0,
    x_scale=1.0,
    table_steps=(10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000),
    reconstructions=None,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
