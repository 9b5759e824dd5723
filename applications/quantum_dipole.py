"""A quantum dipole: find the field u(t) that takes an electron in a box from its ground state to a given excited one.

The second problem of the half-inverse gradients (Schnell, Holl and Thuerey, ICLR 2022): 384 controls, a wave function
at 14 points, a network of 9,484 weights. There is no true x: the error in x is the root mean square of the field, and
what counts is the loss in y, 1 - |<y*, y>|^2.

  python applications/quantum_dipole.py --methods half_inverse adam --budget 60s
  python applications/quantum_dipole.py --methods adam --batch 256 --budget 60s --output runs/quantum_dipole_256

The source's settings: half-inverse gradients at a rate of 0.5, truncated at 1e-5, batch 16, against Adam at 5e-4, batch
256. Writes metrics.csv, table.txt, comparison.txt, learning_curves.png, event files for `tensorboard --logdir FOLDER`
and the trained models (saved_models/). An interrupted run goes on with the same command and --resume.
"""

import sys

from experiments.startup import keras_sip

from experiments.control import control_variants
from experiments.experiment import Experiment
from experiments.runner import main
from keras_sip.comparison.networks import flat_mlp

# As for the oscillators: 0.5 times 2^(3/4) batch^(-3/4) r^(1/2), r = sqrt(2) the norm of the first residuals.
HALF_INVERSE_RATE = 0.12


def half_inverse(options):
    return keras_sip.HalfInverse(HALF_INVERSE_RATE, truncation=1e-5)


def network(simulator, seed):
    return flat_mlp(simulator.y_shape, simulator.x_shape, hidden=(20, 20, 20), activation="tanh", seed=seed)


EXPERIMENT = Experiment(
    name="quantum_dipole",
    title="Quantum dipole",
    description=__doc__,
    simulator=lambda options: keras_sip.QuantumDipole(target="excited"),
    network=network,
    variants=control_variants(adam_rate=5e-4, half_inverse=half_inverse),
    default_methods=("half_inverse", "adam"),
    steps=1000,
    batch=16,
    resolution=(),
    steps_per_execution=5,
    input_scale=1.0,
    x_scale=1.0,
    table_steps=(10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000),
    reconstructions=None,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
