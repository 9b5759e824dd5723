"""A tiny experiment on the shared runner."""

import dataclasses
import pathlib
import types

import keras

import keras_sip
from experiments.baselines import adam_with
from experiments.experiment import Experiment, adjoint, sip
from experiments.runner import main
from keras_sip.checkpoints import Checkpoints
from keras_sip.comparison.records import Metrics


def network(simulator, seed):
    """Two convolutions with batch norm between them: a tenth of the U-Net's operations to trace and compile."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(simulator.y_shape),
            layers.Conv2D(2, 3, padding="same", kernel_initializer=keras.initializers.HeNormal(seed)),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(1, 1, kernel_initializer=keras.initializers.HeNormal(seed + 1)),
        ]
    )


TINY = Experiment(
    name="tiny",
    title="Tiny",
    description="Poisson on 8 x 8 cells with two convolutions and batch norm.",
    simulator=lambda options: keras_sip.Poisson(tuple(options.resolution)),
    network=network,
    variants={
        "sip": sip("SIP", "with the known inverse", keras_sip.AnalyticInverse(), adam_with(1e-2)),
        "adam": adjoint("Adam", "end to end", adam_with(1e-2)),
    },
    steps=12,
    # Batch norm is measured on 512 examples in batches of this size: a larger one takes fewer of them.
    batch=256,
    resolution=(8, 8),
    batch_reduction="sum",
    evaluation_examples=8,
    table_steps=(10,),
)


@dataclasses.dataclass
class FinishedRun:
    path: pathlib.Path
    exit_code: int
    printed: str
    metrics: Metrics


def run(*arguments, experiment=TINY):
    """`main` with the words of a command line; returns the exit code."""
    return main(experiment, [str(word) for word in arguments])


def trained_model(path, method, seed):
    """The model of a run of the tiny experiment at its last checkpoint."""
    options = types.SimpleNamespace(steps=TINY.steps)
    model = TINY.build_model(method, keras_sip.Poisson((8, 8)), options, seed)
    Checkpoints(path / "checkpoints" / f"{method}_seed{seed}").restore(model)
    return model


def files(folder):
    """{path: bytes} of all files in a folder."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
