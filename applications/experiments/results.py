"""What is made of a run when it is done: the table, the figures, the exported models."""

import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from experiments import figures
from experiments.experiment import Experiment
from experiments.run import Run
from keras_sip import SIPModel
from keras_sip.simulators.base import split_observation

EXAMPLES_DRAWN = 3
# Of the largest |x|; the exported graph may sum in another order than the model it was made from.
EXPORT_TOLERANCE = 1e-5


def write_results(run: Run) -> None:
    """Table, learning curves, reconstructions and SavedModels of everything in the folder."""
    folder, experiment = run.folder, run.experiment
    comparison = run.comparison()
    table = comparison.steps_table()
    folder.write_text("table.txt", table)
    print(f"\n{table}")
    if run.methods and figures.available():
        with folder.recording_failure("learning curves"):
            figures.save(comparison.learning_curves(), folder.path / "learning_curves.png")

    models, predictions = {}, {}
    for method, label in run.labels.items():
        seed = folder.metrics.seeds(method)[0]
        if not folder.checkpoint_step(method, seed):
            continue
        with folder.recording_failure(f"{method} export"):
            model = models[method] = run.trained_model(method, seed)
            predictions[label] = model(run.evaluation[0], training=False).numpy()
            difference = _export(model, folder.path / "saved_models" / method, run.evaluation[0])
            print(f"saved_models/{method}: loaded back, x equal to {difference:.1e} of its largest value")

    if predictions and experiment.reconstructions and figures.available():
        with folder.recording_failure("reconstructions"):
            figures.save(_reconstructions(run, predictions), folder.path / "reconstructions.png")
    if models and experiment.further_results:
        with folder.recording_failure("further results"):
            experiment.further_results(run, models)


def reconstruction_figure(experiment: Experiment, method: str) -> Callable | None:
    """`(y_target, x, y, x_true) -> Figure` of what one method makes of examples; None for the package's own figure."""
    if not experiment.reconstructions:
        return None
    label = experiment.variants[method].label
    return lambda y_target, x, y, x_true: experiment.reconstructions(y_target, x_true, {label: x})


def served_difference(saved_model: pathlib.Path, observation, expected: np.ndarray, tolerance: float) -> float:
    """How far an exported model's x is from the expected one, over the largest |x|.

    Raises:
        ValueError: Farther than the tolerance.
    """
    y, context = split_observation(observation)
    inputs = {"y": y, **{f"context_{name}": value for name, value in (context or {}).items()}}
    served = tf.saved_model.load(str(saved_model)).signatures["infer"](**inputs)["x"].numpy()
    return checked_difference(saved_model, served, expected, tolerance)


def checked_difference(source: pathlib.Path, x: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    """The largest difference over the largest expected value; `ValueError` above the tolerance."""
    difference = np.max(np.abs(x - expected)) / np.max(np.abs(expected))
    if not difference <= tolerance:
        raise ValueError(f"{source}: x differs from the trained model's by {difference:.1e} of its largest value")
    return difference


def _reconstructions(run, predictions):
    observation, x_true = run.shown_examples(EXAMPLES_DRAWN)
    y_target, _ = split_observation(observation)
    shown = {label: x[:EXAMPLES_DRAWN] for label, x in predictions.items()}
    return run.experiment.reconstructions(y_target.numpy(), x_true.numpy(), shown)


def _export(model: SIPModel, path: pathlib.Path, observation) -> float:
    """Write the SavedModel, load it back, and return how far its answers are from the model's."""
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    model.export(temporary)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)
    return served_difference(path, observation, model(observation, training=False).numpy(), EXPORT_TOLERANCE)
