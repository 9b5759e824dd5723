"""The runner that all applications share: trains the methods of an `Experiment` from equal starts on equal data.

A new application describes its experiment and calls `main`; `poisson.py` is the example. For every seed, each method
gets the same initial weights and the same batches in the same order; all are measured on one fixed evaluation set.
"""

import argparse
import contextlib
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

from experiments import figures
from experiments.callbacks import TensorBoard
from experiments.experiment import Experiment, Variant
from experiments.options import parse_options
from experiments.results import EXAMPLES_DRAWN, reconstruction_figure, write_results
from experiments.run import Run
from keras_sip.comparison.interruption import Terminated, sigterm_like_ctrl_c
from keras_sip.files import OutputError, writing
from keras_sip.locks import FolderLock

__all__ = ["Experiment", "Run", "Variant", "main", "ending_cleanly", "main_or_study", "train_all", "writing_to"]

FINISHED, FAILED, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def main(
    experiment: Experiment,
    argv: Sequence[str] | None = None,
    *,
    program: str | None = None,
    prepare: Callable[[Run], Run] | None = None,
    finish: Callable[[Run], None] | None = None,
) -> int:
    """Run `experiment` as the command line says, and return the exit code.

    Args:
        experiment: What to run.
        argv: The words of the command line.
        program: How it was started, for `--help` and for the command that goes on; None is the experiment's script.
        prepare: Called before training; returns the run with its changes.
        finish: Called after the results are written.

    0: everything finished; 1: a method failed, the others finished; 2: refused and nothing touched, or the disk is full
    and the checkpoints are as they were; 130 and 143: interrupted by Ctrl-C and by SIGTERM.
    """
    program = program or f"{experiment.name}.py"
    options = parse_options(experiment, argv, program)
    with ending_cleanly(resume_command(program, argv)) as ended:
        with contextlib.closing(Run.opened(experiment, options, resume=options.resume)) as run:
            if not figures.available():
                print(f"No figures: {figures.REMEDY}")
            if prepare is not None:
                run = prepare(run)
            train_all(run)
            write_results(run)
            if finish is not None:
                finish(run)
            for name, message in run.folder.failures.items():
                print(f"FAILED: {name}: {message}", file=sys.stderr)
            ended.code = FAILED if run.folder.failures else FINISHED
    return ended.code


def main_or_study(experiment: Experiment, studies: Mapping[str, Callable], argv: Sequence[str] | None = None) -> int:
    """`main`, or the study `{name: (experiment, argv) -> exit code}` that `--study` names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--study", choices=studies)
    own, others = parser.parse_known_args(argv)
    return main(experiment, others) if own.study is None else studies[own.study](experiment, others)


def train_all(run: Run) -> None:
    """Train every method with every seed, as far as they are not done yet. One that fails does not stop the others."""
    options, experiment = run.options, run.experiment
    length = f"{options.steps} steps" if options.budget is None else f"{options.budget:g} s each"
    print(f"{run.heading}, {length}; results in {options.output}")

    def tensorboard(method, seed, line):
        return [
            TensorBoard(
                run.folder.path / "tensorboard" / f"{method}_seed{seed}",
                run.evaluation,
                {*experiment.table_steps, options.steps},
                line=line,
                # One seed shows them, as one seed's model is exported.
                pictures=EXAMPLES_DRAWN if seed == options.seeds[0] else 0,
                hyperparameters={"batch": options.batch, "seed": seed},
                draw=reconstruction_figure(experiment, method),
            )
        ]

    run.training.train_all(run.build_model, options.methods, options.seeds, tensorboard)


class _Ended:
    code = FINISHED


@contextlib.contextmanager
def ending_cleanly(command: str):
    """What is refused, a full disk, Ctrl-C and SIGTERM as messages and exit codes: sets `code` of what it yields.

    Args:
        command: What goes on after an interruption.
    """
    ended = _Ended()
    try:
        with sigterm_like_ctrl_c():
            yield ended
    except (ValueError, OutputError) as error:
        # Wrong options, a folder that is not ours, or one that cannot be written: each says so in three parts.
        if not str(error).startswith("Expected "):
            raise
        print(f"\n{error}" if isinstance(error, OutputError) else error, file=sys.stderr)
        ended.code = REFUSED
    except KeyboardInterrupt as error:
        print(f"\nInterrupted. To go on: {command}")
        ended.code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED


@contextlib.contextmanager
def writing_to(folder: pathlib.Path, command: str = "start the same command again"):
    """`ending_cleanly`, with the folder made and this process's alone."""
    with ending_cleanly(command) as ended:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with FolderLock(folder):
            yield ended


def resume_command(program: str, argv: Sequence[str] | None) -> str:
    """The command line that goes on with a run."""
    given = list(sys.argv[1:] if argv is None else argv)
    resume = [] if "--resume" in given else ["--resume"]
    return shlex.join(["python", *f"applications/{program}".split(), *map(str, given), *resume])
