"""A tiny experiment on the shared runner."""

import dataclasses
import pathlib
import types

import keras_sip
from experiments.baselines import adam_with
from experiments.experiment import Experiment, adjoint, sip
from experiments.runner import main
from keras_sip.checkpoints import Checkpoints
from keras_sip.comparison.records import Metrics

TINY = Experiment(
    name="tiny",
    title="Tiny",
    description="Poisson on 8 x 8 cells with the smallest U-Net, batch norm included.",
    simulator=lambda options: keras_sip.Poisson(tuple(options.resolution)),
    network=lambda simulator, seed: keras_sip.UNet(simulator.y_shape, 1, levels=1, filters=2, seed=seed),
    variants={
        "sip": sip("SIP", "with the known inverse", keras_sip.AnalyticInverse(), adam_with(1e-2)),
        "adam": adjoint("Adam", "end to end", adam_with(1e-2)),
    },
    steps=12,
    batch=3,
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
