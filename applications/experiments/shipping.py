"""The folder of a trained model that ships: exported, described, measured, and checked by loading it back."""

import json
import shutil

import numpy as np
import tensorflow as tf

from experiments import figures
from keras_sip import plotting
from keras_sip.files import new_folder, write_atomically, write_checksums
from keras_sip.serving import card
from keras_sip.serving.export import MANIFEST, manifest
from keras_sip.serving.pretrained import MODEL, SAVED_MODEL, load_pretrained
from keras_sip.simulators.base import split_observation

EXAMPLES_DRAWN = 3
REFINE_STEPS = 5
# Predictions of the exported graph, relative to the largest |x|.
EXPORT_TOLERANCE = 1e-6

_USE = """```python
import keras_sip

model = keras_sip.load_pretrained("{name}")
x = model.predict(y)
x = model.refine(y, max_steps=5).x  # improved by the solver
```

    python -m keras_sip infer {name} --input y.{suffix} --output x.npy --refine 5 --plot answers.png

In plain TensorFlow, without keras_sip: see saved_model/README.md.

![Learning curves](learning_curves.png)

![Answers](answers.png)
"""


def write_shipped_model(experiment, options, run, target, evaluation, *, method, baseline, schedule):
    """Write `target`: model.keras, saved_model/, metrics.json, curves, answers, card, checksums.

    Args:
        experiment, options: What was trained.
        run: Its `RunFolder`.
        target: The folder to write; one that is there is replaced when the new one is whole.
        evaluation: (observation, x).
        method, baseline: The variants to ship and to compare with.
        schedule: What the learning rate did, in words.
    """
    seed = options.seeds[0]
    simulator = experiment.simulator(options)
    models = {
        name: run.restore(experiment.build_model(name, simulator, options, seed), name, seed)
        for name in dict.fromkeys((method, baseline))
    }
    model = models[method]
    measured = _measure(models, method, baseline, evaluation)
    seconds = {name: run.metrics.run(name, seed)[-1]["train_seconds"] for name in models}
    facts = {
        "command": f"`{card.command()}`",
        "seeds": f"{seed} (weights and data); evaluated on {len(evaluation[1])} examples apart from the training's",
        "training": f"{options.steps} steps, batch {options.batch}, {schedule}; "
        + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
        + " without compiling",
    }
    title = f"{experiment.title}: trained with {experiment.variants[method].label}"
    staging = target.with_name(f".{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    with new_folder(staging) as folder:
        model.save(folder / MODEL)
        model.export(folder / SAVED_MODEL, title=title, facts=facts, measured=measured)
        signatures = json.loads((folder / SAVED_MODEL / MANIFEST).read_text(encoding="utf-8"))["signatures"]
        write_atomically(folder / MANIFEST, manifest(model, signatures).encode())
        suffix = "npz" if isinstance(evaluation[0], dict) else "npy"
        text = card.model_card(
            model, title=title, use=_USE.format(name=target.name, suffix=suffix), measured=measured, facts=facts
        )
        metrics = {
            "measured": measured,
            "steps": options.steps,
            "batch": options.batch,
            "seed": seed,
            "train_seconds": seconds,
            "command": card.command(),
            "versions": card.versions(),
            "machine": card.machine(),
        }
        card.write_card(folder, text, metrics)
        _draw(experiment, options, run, folder, evaluation, model, list(models))
        write_checksums(folder)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    _check(target, model, evaluation[0])


def _measure(models, method, baseline, evaluation):
    """Errors on the evaluation set, of the model, its refined answers and the baseline."""
    observation, x_true = evaluation
    measured = {}
    for name, model in models.items():
        values = model.evaluate(observation, x_true, verbose=0, return_dict=True)
        measured |= {f"x_error {name}": values["x_error"], f"loss {name}": values["loss"]}
    if baseline != method:
        measured[f"x_error {baseline} / {method}"] = measured[f"x_error {baseline}"] / measured[f"x_error {method}"]
    if models[method].solver is not None:
        refined = models[method].refine(observation, REFINE_STEPS)
        error = models[method].simulator.distance(refined.x, x_true)
        measured[f"x_error {method}, refined {REFINE_STEPS} steps"] = float(np.mean(error))
        measured[f"loss {method}, refined {REFINE_STEPS} steps"] = float(np.mean(refined.objective))
    return {name: float(value) for name, value in measured.items()}


def _draw(experiment, options, run, folder, evaluation, model, methods):
    labels = {name: experiment.variants[name].label for name in methods}
    colours = figures.colours(experiment.variants)
    curves = figures.learning_curves(run.metrics, labels, colours, experiment.heading(options))
    write_atomically(folder / "learning_curves.png", plotting.png(curves, 80))
    shown = slice(EXAMPLES_DRAWN if len(model.simulator.x_shape) > 1 else None)
    observation, x_true = tf.nest.map_structure(lambda entry: entry[shown], evaluation)
    y_target, context = split_observation(observation)
    x = model(observation, training=False)
    figure = plotting.answers(y_target, x, model.simulator(x, context), x_true)
    write_atomically(folder / "answers.png", plotting.png(figure, 80))


def _check(target, model, observation):
    """What was written loads and answers as the model does."""
    y, context = split_observation(observation)
    expected = model.predict(observation, verbose=0)
    loaded = load_pretrained(target.name, target.parent).predict(observation, verbose=0)
    inputs = {"y": y, **{f"context_{name}": value for name, value in (context or {}).items()}}
    served = tf.saved_model.load(str(target / SAVED_MODEL)).signatures["infer"](**inputs)["x"].numpy()
    for name, x in ((MODEL, loaded), (SAVED_MODEL, served)):
        difference = np.max(np.abs(x - expected)) / np.max(np.abs(expected))
        if not difference <= EXPORT_TOLERANCE:
            raise ValueError(f"{target / name}: x differs from the trained model's by {difference:.1e} of its largest")
        print(f"{target / name}: x equal to {difference:.1e} of its largest value")
