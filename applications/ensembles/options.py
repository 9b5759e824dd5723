"""The command line of figures and studies that sweep over many small networks."""

import argparse
import contextlib
import pathlib
from collections.abc import Iterator, Sequence

from experiments.startup import add_flag

from ensembles.sweep import Sweep
from experiments.runner import writing_to
from keras_sip.errors import check_positive_int, three_part


def parser(title: str, description: str, output: str) -> argparse.ArgumentParser:
    """A parser with the options that all of them take."""
    result = argparse.ArgumentParser(
        prog=title, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("--steps", type=int, default=10_000, help="training steps (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one network for each seed (default: 0 1 2)")
    add("--output", type=pathlib.Path, default=pathlib.Path(output), metavar="FOLDER", help="default: %(default)s")
    add("--resume", action="store_true", help="go on with what is in the output folder, or start it")
    add("--quiet", action="store_true", help="no progress while training")
    add_flag(result)
    return result


def parse(result: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The checked options; ends the program where they are wrong, or where the folder holds another run."""
    options = result.parse_args(argv)
    try:
        check_positive_int("--steps", options.steps)
        for seed in options.seeds:
            check_positive_int("--seeds", seed, minimum=0)
        if not options.resume and options.output.is_dir() and any(options.output.iterdir()):
            raise ValueError(
                three_part(
                    "an output folder that is new or empty",
                    f"{options.output}, which holds files",
                    "Choose another folder with --output, or go on with what is there with --resume.",
                )
            )
    except ValueError as error:
        result.error(str(error))
    options.seeds = list(dict.fromkeys(options.seeds))
    return options


@contextlib.contextmanager
def opened(options: argparse.Namespace) -> Iterator[tuple]:
    """(ended, sweep): the sweep in the output folder, which is this process's alone, and `ended.code` for the shell."""
    with writing_to(options.output, "give the same command with --resume") as ended:
        yield ended, Sweep(options.output / "curves", quiet=options.quiet)
