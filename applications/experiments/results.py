"""What is made of a run when it is done: the table, the figures, the exported models."""

import shutil

import numpy as np
import tensorflow as tf

import keras_sip
from experiments import figures
from experiments.options import degraded
from experiments.table import comparison_table
from keras_sip.simulators.base import split_observation

EXAMPLES_DRAWN = 3
# Of the largest |x|; the exported graph may sum in another order than the model it was made from.
EXPORT_TOLERANCE = 1e-5


def write_results(experiment, options, folder, evaluation):
    """Table, learning curves, reconstructions and SavedModels of everything in the folder."""
    simulator = degraded(experiment.simulator(options), options)
    methods = [method for method in experiment.variants if method in folder.metrics.methods()]
    table = comparison_table(experiment, folder.metrics, methods, experiment.heading(options))
    folder.write_text("table.txt", table)
    print(f"\n{table}")
    labels = {method: experiment.variants[method].label for method in methods}
    if methods and figures.available():
        with folder.recording_failure("learning curves"):
            colours = figures.colours(experiment.variants)
            figure = figures.learning_curves(folder.metrics, labels, colours, experiment.heading(options))
            figures.save(figure, folder.path / "learning_curves.png")

    models, predictions = {}, {}
    for method in methods:
        seed = folder.metrics.seeds(method)[0]
        if not folder.checkpoint_step(method, seed):
            continue
        with folder.recording_failure(f"{method} export"):
            model = folder.restore(experiment.build_model(method, simulator, options, seed), method, seed)
            models[method] = model
            predictions[labels[method]] = _predict(model, evaluation[0])
            difference = _export(model, folder.path / "saved_models" / method, evaluation[0])
            print(f"saved_models/{method}: loaded back, x equal to {difference:.1e} of its largest value")

    if predictions and experiment.reconstructions and figures.available():
        with folder.recording_failure("reconstructions"):
            figures.save(_reconstructions(experiment, evaluation, predictions), folder.path / "reconstructions.png")
    if models and experiment.further_results:
        with folder.recording_failure("further results"):
            experiment.further_results(options, folder, evaluation, models)


def reconstruction_figure(experiment, method):
    """`(y_target, x, y, x_true) -> Figure` of what one method makes of examples; None for the package's own figure."""
    if not experiment.reconstructions:
        return None
    label = experiment.variants[method].label
    return lambda y_target, x, y, x_true: experiment.reconstructions(y_target, x_true, {label: x})


def _reconstructions(experiment, evaluation, predictions):
    y_target, _ = split_observation(evaluation[0])
    first = slice(EXAMPLES_DRAWN)
    return experiment.reconstructions(
        y_target[first].numpy(),
        evaluation[1][first].numpy(),
        {label: x[first] for label, x in predictions.items()},
    )


def _predict(model, observation):
    return model(observation, training=False).numpy()


def _export(model, path, observation):
    """Write the SavedModel, load it back, and return how far its answers are from the model's."""
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    keras_sip.export_saved_model(model, temporary)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)

    y, context = split_observation(observation)
    inputs = {"y": y, **{f"context_{name}": value for name, value in (context or {}).items()}}
    served = tf.saved_model.load(str(path)).signatures["infer"](**inputs)["x"].numpy()
    expected = _predict(model, observation)
    difference = np.max(np.abs(served - expected)) / np.max(np.abs(expected))
    if not difference <= EXPORT_TOLERANCE:
        raise ValueError(
            f"{path}: the exported model's x differs from the model's by {difference:.1e} of its largest value"
        )
    return difference
