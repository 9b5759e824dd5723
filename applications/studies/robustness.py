"""How trained networks bear degraded observations: errors in x over the level of each degradation."""

import csv
import io
import json

import numpy as np
import tensorflow as tf

import keras_sip
from experiments import figures
from experiments.run import Run
from keras_sip.comparison.statistics import OverSeeds
from keras_sip.comparison.tables import line
from keras_sip.simulators.base import join_observation, split_observation

# {degradation: levels of the sweep}; 0 is the observation as it is.
SWEEP = {
    "noise": (0.0, 0.01, 0.03, 0.1, 0.3),
    "multiplicative_noise": (0.0, 0.01, 0.03, 0.1, 0.3),
    "missing_sensors": (0.0, 0.01, 0.03, 0.1, 0.3),
    "low_pass": (0.0, 0.5, 1.0, 2.0, 4.0),
}
SEED = (0, 11)


def sweep(run: Run) -> dict[str, dict[str, dict[float, list[float]]]]:
    """{degradation: {method: {level: errors of the seeds}}} of the trained models on the degraded evaluation set.

    All methods see the same observations. Nothing is trained or told anew: it is what happens to a network in use.
    """
    observation, x = run.evaluation
    simulator, folder = run.simulator, run.folder
    y, context = split_observation(observation)
    kinds = [kind for kind in SWEEP if kind != "low_pass" or len(simulator.y_shape) > 1]
    degraded = {
        (kind, level): keras_sip.Degraded(simulator, **{kind: level}).degrade(y, None, SEED)[0]
        for kind in kinds
        for level in SWEEP[kind]
    }
    errors = {}
    for method in run.methods:
        for seed in folder.metrics.seeds(method):
            if not folder.checkpoint_step(method, seed):
                continue
            with folder.recording_failure(f"robustness {method} seed {seed}"):
                model = run.trained_model(method, seed)
                for (kind, level), seen in degraded.items():
                    predicted = model.predict(
                        tf.data.Dataset.from_tensor_slices(join_observation(seen, context)).batch(64), verbose=0
                    )
                    error = tf.reduce_mean(simulator.distance(simulator.as_x(predicted), x))
                    errors.setdefault(kind, {}).setdefault(method, {}).setdefault(level, []).append(float(error))
    return errors


def write_robustness(run: Run) -> None:
    """robustness.json, .csv, .txt and .png of the sweep."""
    errors = sweep(run)
    if not errors:
        return
    folder = run.folder
    text = f"{run.heading}\n{robustness_table(errors, run.labels)}"
    folder.write_text("robustness.txt", text)
    folder.write_text("robustness.json", json.dumps(errors, indent=1) + "\n")
    folder.write_text("robustness.csv", as_csv(errors))
    print(f"\n{text}")
    if figures.available():
        with folder.recording_failure("robustness figure"):
            figure = figures.robustness_curves(errors, run.labels, run.colours, run.heading)
            figures.save(figure, folder.path / "robustness.png")


def robustness_table(errors, labels):
    """A block for each degradation, in at most 80 columns."""
    lines = ["error in x of the trained networks on degraded observations, mean over seeds"]
    for kind, by_method in errors.items():
        levels = SWEEP[kind]
        lines += ["", line(kind.replace("_", " "), [f"{level:g}" for level in levels])]
        for method, by_level in by_method.items():
            numbers = [OverSeeds.of(by_level[level]) for level in levels]
            lines.append(line(labels[method], [f"{number.mean:.4f}" for number in numbers]))
    return "\n".join(lines) + "\n"


def as_csv(errors):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("degradation", "method", "level", "mean", "low", "high"))
    for kind, by_method in errors.items():
        for method, by_level in by_method.items():
            for level, values in by_level.items():
                numbers = (np.mean(values), np.min(values), np.max(values))
                writer.writerow((kind, method, f"{level:g}", *(f"{number:.6g}" for number in numbers)))
    return stream.getvalue()
