"""The runner that all applications share: trains the methods of an `Experiment` from equal starts on equal data.

A new application describes its experiment and calls `main`; `poisson.py` is the example. For every seed, each method
gets the same initial weights and the same batches in the same order; all are measured on one fixed evaluation set.
"""

import contextlib
import functools
import shlex
import sys

import tensorflow as tf

import keras_sip
import report
from _callbacks import Checkpoint, Interruption, Progress, Recorder, TensorBoard
from _experiment import Experiment, Variant
from _options import FREE_ON_RESUME, parse_options
from _progress import ProgressBar
from _records import RunFolder
from _results import EXAMPLES_DRAWN, reconstruction_picture, write_results

__all__ = ["Experiment", "Variant", "main"]

# One evaluation set for all training seeds; keras_sip keeps its stream apart from that of the training batches.
EVALUATION_SEED = 0
EVALUATION_BATCH = 128

FINISHED, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(experiment, argv=None):
    """Run `experiment` as the command line says, and return the exit code.

    0: everything finished; 1: a method failed, the others finished; 2: refused, nothing was touched; 130: interrupted.
    """
    options = parse_options(experiment, argv)
    arguments = {"experiment": experiment.name, **vars(options), "output": str(options.output)}
    try:
        simulator = experiment.simulator(options)
        # A resolution that the network cannot take is refused before there is a folder.
        experiment.network(simulator, options.seeds[0])
        folder = RunFolder(
            options.output,
            arguments,
            free=FREE_ON_RESUME,
            resume=options.resume,
            error_parts=experiment.error_parts,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return REFUSED
    evaluation = keras_sip.evaluation_set(simulator, experiment.evaluation_examples, EVALUATION_SEED)
    if not report.available():
        print(f"No figures: {report.REMEDY}")
    try:
        train_all(experiment, options, folder, simulator, evaluation)
        write_results(experiment, options, folder, evaluation)
    except KeyboardInterrupt:
        print(f"Interrupted. To go on: {_resume_command(experiment, argv)}")
        return INTERRUPTED
    for name, message in folder.failures.items():
        print(f"FAILED: {name}: {message}", file=sys.stderr)
    return FAILED if folder.failures else FINISHED


def train_all(experiment, options, folder, simulator, evaluation):
    """Train every method with every seed, as far as they are not done yet.

    Seed by seed, so that the methods can be compared as early as possible. One that fails does not stop the others.
    """
    print(f"{experiment.heading(options)}, {options.steps} steps; results in {options.output}")
    runs = [(method, seed) for seed in options.seeds for method in options.methods]
    for number, (method, seed) in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {method} s{seed}"
        first_step = folder.checkpoint_step(method, seed)
        if first_step >= options.steps:
            print(f"{title} finished before")
            continue
        with folder.recording_failure(f"{method} seed {seed}"):
            if first_step:
                print(f"{title} goes on after step {first_step}")
                model = folder.load_checkpoint(method, seed)
            else:
                model = experiment.build_model(method, simulator, options, seed)
            folder.metrics.forget_after(method, seed, first_step or -1)
            train(model, experiment, options, folder, evaluation, seed=seed, first_step=first_step, title=title)


def train(model, experiment, options, folder, evaluation, *, seed, first_step, title):
    """Train one model up to `options.steps`, on the batches that follow `first_step`."""
    method = model.name
    evaluation_batches = tf.data.Dataset.from_tensor_slices(evaluation).batch(EVALUATION_BATCH)
    recorder = Recorder(
        folder.metrics,
        method,
        seed,
        first_step,
        evaluation_batches,
        experiment.evaluation_schedule(options),
        {name: functools.partial(part, model.simulator) for name, part in experiment.error_parts.items()},
    )
    examples = tf.nest.map_structure(lambda entry: entry[:EXAMPLES_DRAWN], evaluation)
    board = TensorBoard(
        recorder,
        folder.path / "tensorboard" / f"{method}_seed{seed}",
        picture_steps={*experiment.table_steps, options.steps},
        # One seed shows it, as one seed's model is exported.
        draw=reconstruction_picture(experiment, method, examples) if seed == options.seeds[0] else None,
    )
    bar = ProgressBar(title, options.steps)
    with contextlib.closing(board), contextlib.closing(bar), Interruption() as interruption:
        callbacks = [recorder, board, Checkpoint(recorder, folder, options.steps, interruption)]
        if not options.quiet:
            callbacks.insert(1, Progress(recorder, bar))
        batches = keras_sip.dataset(model.simulator, options.batch, seed, start_step=first_step)
        model.fit(
            # Without its end the last of several steps in one execution would go beyond `options.steps`.
            batches.take(options.steps - first_step),
            steps_per_epoch=options.steps - first_step,
            verbose=0,
            callbacks=callbacks,
        )


def _resume_command(experiment, argv):
    given = list(sys.argv[1:] if argv is None else argv)
    resume = [] if "--resume" in given else ["--resume"]
    return shlex.join(["python", f"applications/{experiment.name}.py", *map(str, given), *resume])
