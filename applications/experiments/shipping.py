"""The folder of a trained model that ships: exported, described, measured, and checked by loading it back."""

import json
import pathlib
import shutil

import numpy as np

from experiments import figures
from experiments.results import checked_difference, served_difference
from experiments.run import Run
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


def write_shipped_model(run: Run, target: pathlib.Path, *, method: str, baseline: str, schedule: str) -> None:
    """Write `target`: model.keras, saved_model/, metrics.json, curves, answers, card, checksums.

    Args:
        run: What was trained.
        target: The folder to write; one that is there is replaced when the new one is whole.
        method, baseline: The variants to ship and to compare with.
        schedule: What the learning rate did, in words.
    """
    options, experiment, evaluation = run.options, run.experiment, run.evaluation
    seed = options.seeds[0]
    models = {name: run.trained_model(name, seed) for name in dict.fromkeys((method, baseline))}
    model = models[method]
    measured = _measure(models, method, baseline, evaluation)
    seconds = {name: run.folder.metrics.run(name, seed)[-1]["train_seconds"] for name in models}
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
        _draw(run, folder, model, list(models))
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


def _draw(run, folder, model, methods):
    labels = {name: run.experiment.variants[name].label for name in methods}
    curves = figures.learning_curves(run.folder.metrics, labels, run.colours, run.heading)
    write_atomically(folder / "learning_curves.png", plotting.png(curves, 80))
    shown = EXAMPLES_DRAWN if len(model.simulator.x_shape) > 1 else len(run.evaluation[1])
    observation, x_true = run.shown_examples(shown)
    y_target, context = split_observation(observation)
    x = model(observation, training=False)
    figure = plotting.answers(y_target, x, model.simulator(x, context), x_true)
    write_atomically(folder / "answers.png", plotting.png(figure, 80))


def _check(target, model, observation):
    """What was written loads and answers as the model does."""
    expected = model.predict(observation, verbose=0)
    loaded = load_pretrained(target.name, target.parent).predict(observation, verbose=0)
    differences = {
        MODEL: checked_difference(target / MODEL, loaded, expected, EXPORT_TOLERANCE),
        SAVED_MODEL: served_difference(target / SAVED_MODEL, observation, expected, EXPORT_TOLERANCE),
    }
    for name, difference in differences.items():
        print(f"{target / name}: x equal to {difference:.1e} of its largest value")
