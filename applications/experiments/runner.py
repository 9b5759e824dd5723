"""The runner that all applications share: trains the methods of an `Experiment` from equal starts on equal data.

A new application describes its experiment and calls `main`; `poisson.py` is the example. For every seed, each method
gets the same initial weights and the same batches in the same order; all are measured on one fixed evaluation set.
"""

import argparse
import contextlib
import functools
import shlex
import sys

import tensorflow as tf

import keras_sip
from experiments import figures
from experiments.callbacks import Checkpoint, Interruption, Progress, Recorder, TensorBoard, is_used_up
from experiments.experiment import Experiment, Variant
from experiments.options import FREE_ON_RESUME, degraded, parse_options
from experiments.records import RunFolder
from experiments.results import EXAMPLES_DRAWN, reconstruction_figure, write_results
from keras_sip.callbacks.progress_bar import ProgressLine

__all__ = ["Experiment", "Variant", "main", "main_or_study"]

# One evaluation set for all training seeds; keras_sip keeps its stream apart from that of the training batches.
EVALUATION_SEED = 0
EVALUATION_BATCH = 128
# Batch norm is measured on examples of its own, in batches of the training's size.
STATISTICS_SEED = 1
STATISTICS_EXAMPLES = 512

FINISHED, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(experiment, argv=None, *, program=None, prepare=None, finish=None):
    """Run `experiment` as the command line says, and return the exit code.

    Args:
        experiment: What to run.
        argv: The words of the command line.
        program: How it was started, for `--help` and for the command that goes on; None is the experiment's script.
        prepare: `(experiment, options, folder, simulator, evaluation) -> experiment`, called before training.
        finish: Called with the same after the results are written.

    0: everything finished; 1: a method failed, the others finished; 2: refused, nothing was touched; 130: interrupted.
    """
    program = program or f"{experiment.name}.py"
    options = parse_options(experiment, argv, program)
    arguments = {"experiment": experiment.name, **vars(options), "output": str(options.output)}
    try:
        simulator = degraded(experiment.simulator(options), options)
        # A resolution that the network cannot take is refused before there is a folder.
        experiment.network(simulator, options.seeds[0])
        folder = RunFolder(
            options.output,
            arguments,
            free=(*FREE_ON_RESUME, *experiment.free_options),
            resume=options.resume,
            error_parts=experiment.error_parts,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return REFUSED
    evaluation = keras_sip.evaluation_set(simulator, experiment.evaluation_examples, EVALUATION_SEED)
    if not figures.available():
        print(f"No figures: {figures.REMEDY}")
    try:
        if prepare is not None:
            experiment = prepare(experiment, options, folder, simulator, evaluation)
        train_all(experiment, options, folder, simulator, evaluation)
        write_results(experiment, options, folder, evaluation)
        if finish is not None:
            finish(experiment, options, folder, simulator, evaluation)
    except KeyboardInterrupt:
        print(f"Interrupted. To go on: {_resume_command(program, argv)}")
        return INTERRUPTED
    for name, message in folder.failures.items():
        print(f"FAILED: {name}: {message}", file=sys.stderr)
    return FAILED if folder.failures else FINISHED


def main_or_study(experiment, studies, argv=None):
    """`main`, or the study `{name: (experiment, argv) -> exit code}` that `--study` names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--study", choices=studies)
    own, others = parser.parse_known_args(argv)
    return main(experiment, others) if own.study is None else studies[own.study](experiment, others)


def train_all(experiment, options, folder, simulator, evaluation):
    """Train every method with every seed, as far as they are not done yet.

    Seed by seed, so that the methods can be compared as early as possible. One that fails does not stop the others.
    """
    length = f"{options.steps} steps" if options.budget is None else f"{options.budget:g} s each"
    print(f"{experiment.heading(options)}, {length}; results in {options.output}")
    runs = [(method, seed) for seed in options.seeds for method in options.methods]
    for number, (method, seed) in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {method} s{seed}"
        if is_finished(folder, options, method, seed):
            print(f"{title} finished before")
            continue
        with folder.recording_failure(f"{method} seed {seed}"):
            model = experiment.build_model(method, simulator, options, seed)
            train(model, experiment, options, folder, evaluation, seed=seed, title=title)


def is_finished(folder, options, method, seed):
    """Whether a run has come to its last step, or to the end of its budget."""
    step = folder.checkpoint_step(method, seed)
    seconds = folder.metrics.curve(method, seed, "train_seconds").get(step, 0.0)
    return step >= options.steps or (step > 0 and is_used_up(options.budget, seconds))


def train(model, experiment, options, folder, evaluation, *, seed, title):
    """Train one model up to `options.steps`, going on after its last checkpoint where there is one."""
    method = model.name
    with Interruption() as interruption:
        checkpoint = Checkpoint(folder.checkpoint_folder(method, seed), interruption)
        first_step = checkpoint.restore(model)
        if first_step:
            print(f"{title} goes on after step {first_step}")
        folder.metrics.forget_after(method, seed, first_step or -1)
        recorder = Recorder(
            folder.metrics,
            method,
            seed,
            first_step,
            tf.data.Dataset.from_tensor_slices(evaluation).batch(EVALUATION_BATCH),
            experiment.evaluation_schedule(options),
            options.budget,
            {name: functools.partial(part, model.simulator) for name, part in experiment.error_parts.items()},
            _batch_statistics(model.simulator, options),
        )
        board = TensorBoard(
            folder.path / "tensorboard" / f"{method}_seed{seed}",
            evaluation,
            {*experiment.table_steps, options.steps},
            # One seed shows them, as one seed's model is exported.
            pictures=EXAMPLES_DRAWN if seed == options.seeds[0] else 0,
            hyperparameters={"batch": options.batch, "seed": seed},
            draw=reconstruction_figure(experiment, method),
        )
        callbacks = [recorder, board, checkpoint]
        with (
            contextlib.closing(board),
            contextlib.closing(ProgressLine(title, options.steps, budget=options.budget)) as line,
        ):
            if not options.quiet:
                callbacks.insert(1, Progress(recorder, line))
            batches = keras_sip.dataset(model.simulator, options.batch, seed, start_step=first_step)
            model.fit(
                # Without its end the last of several steps in one execution would go beyond `options.steps`.
                batches.take(options.steps - first_step),
                steps_per_epoch=options.steps - first_step,
                verbose=0,
                callbacks=callbacks,
            )


def _batch_statistics(simulator, options):
    """What measures batch norm's statistics before evaluations, on examples of no other use; None leaves the moving."""
    if options.statistics == "moving":
        return None
    examples = max(1, STATISTICS_EXAMPLES // options.batch) * options.batch
    observation, _ = keras_sip.evaluation_set(simulator, examples, STATISTICS_SEED)
    return keras_sip.callbacks.BatchStatistics(observation, options.batch)


def _resume_command(program, argv):
    given = list(sys.argv[1:] if argv is None else argv)
    resume = [] if "--resume" in given else ["--resume"]
    return shlex.join(["python", *f"applications/{program}".split(), *map(str, given), *resume])
