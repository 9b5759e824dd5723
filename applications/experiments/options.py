"""The command line that all applications share."""

import argparse
import pathlib
from collections.abc import Sequence

from experiments.startup import add_flag

import keras_sip
from experiments.experiment import Experiment
from keras_sip.comparison.comparison import UNLIMITED_STEPS, seconds
from keras_sip.errors import check_positive_int, three_part

# Options that a resumed run may change: they add to the results or only show them.
FREE_ON_RESUME = (
    *("methods", "steps", "budget", "seeds", "output", "resume"),
    *("evaluate_every", "quiet", "robustness", "tensorflow_messages"),
)
DEGRADATIONS = {
    "noise": "Gaussian noise, its deviation over the root mean square of each y",
    "multiplicative_noise": "deviation of each sensor's factor",
    "missing_sensors": "share of silent sensors",
    "low_pass": "width in cells of a Gaussian average",
}


def parse_options(
    experiment: Experiment, argv: Sequence[str] | None = None, program: str | None = None
) -> argparse.Namespace:
    """The checked options of a run of `experiment`; ends the program with a message where they are wrong."""
    parser = _parser(experiment, program or f"{experiment.name}.py")
    options = parser.parse_args(argv)
    try:
        if options.budget is not None:
            options.budget = seconds("--budget", options.budget)
        if options.steps is None:
            options.steps = experiment.steps if options.budget is None else UNLIMITED_STEPS
        for name in ("steps", "batch"):
            check_positive_int(f"--{name}", getattr(options, name))
        for seed in options.seeds:
            check_positive_int("--seeds", seed, minimum=0)
        if options.evaluate_every is not None:
            check_positive_int("--evaluate-every", options.evaluate_every)
        _check_methods(options.methods, experiment.variants)
        if experiment.resolution:
            options.resolution = _resolution(options.resolution, len(experiment.resolution))
    except ValueError as error:
        parser.error(str(error))
    # In the order given, each once.
    options.methods = list(dict.fromkeys(options.methods))
    options.seeds = list(dict.fromkeys(options.seeds))
    return options


def degraded(simulator: keras_sip.Simulator, options: argparse.Namespace) -> keras_sip.Simulator:
    """The simulator, or `keras_sip.Degraded` around it where the command line asks for that.

    Raises:
        ValueError: A level out of bounds.
    """
    given = {name: getattr(options, name) for name in DEGRADATIONS if getattr(options, name)}
    levels = {name: value[0] if len(value) == 1 else tuple(value) for name, value in given.items()}
    return keras_sip.Degraded(simulator, **levels) if levels else simulator


def _parser(experiment, program):
    width = max(map(len, experiment.variants))
    methods = "\n".join(f"  {name:{width}}  {variant.about}" for name, variant in experiment.variants.items())
    parser = argparse.ArgumentParser(
        prog=program,
        description=experiment.description,
        epilog=f"methods:\n{methods}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--methods",
        nargs="+",
        metavar="NAME",
        default=list(experiment.default_methods),
        help=f"methods to compare, listed below (default: {' '.join(experiment.default_methods)})",
    )
    add(
        "--steps",
        type=int,
        help=f"training steps of each method (default: {experiment.steps}; unlimited with --budget)",
    )
    add(
        "--budget",
        metavar="TIME",
        help="stop each run after so much training time, as 600s, 10m or 1h; compiling and evaluating are not counted",
    )
    add("--batch", type=int, default=experiment.batch, help="examples in a training batch (default: %(default)s)")
    if experiment.resolution:
        add(
            "--resolution",
            type=int,
            nargs="+",
            metavar="CELLS",
            default=list(experiment.resolution),
            help=f"cells along each axis, or one number for all (default: {' '.join(map(str, experiment.resolution))})",
        )
    add("--seeds", type=int, nargs="+", default=[0], help="one run of each method for each seed (default: 0)")
    add(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs") / experiment.name,
        metavar="FOLDER",
        help="where everything is written (default: %(default)s)",
    )
    add("--resume", action="store_true", help="go on with the run in the output folder, or start it")
    add(
        "--evaluate-every",
        type=int,
        metavar="STEPS",
        help="measure the evaluation set every so many steps (default: some eight times a decade)",
    )
    add(
        "--statistics",
        choices=("measured", "moving"),
        default="measured",
        help="of batch norm in evaluations and exported models: measured on 512 examples of their own, "
        "or moving averages of the training batches' (default: %(default)s)",
    )
    add("--quiet", action="store_true", help="no progress while training")
    add_flag(parser)
    instrument = parser.add_argument_group(
        "degraded observations", "In training and evaluation; two numbers give each example a level between."
    )
    for name, about in DEGRADATIONS.items():
        option = f"--{name.replace('_', '-')}"
        instrument.add_argument(option, type=float, nargs="+", default=[], metavar="LEVEL", help=about)
    if experiment.add_options is not None:
        experiment.add_options(parser)
    return parser


def _check_methods(names, variants):
    unknown = [name for name in names if name not in variants]
    if unknown:
        raise ValueError(
            three_part(
                f"`--methods` from {', '.join(variants)}",
                ", ".join(map(repr, unknown)),
                "Choose from the listed names, separated by spaces.",
            )
        )


def _resolution(sizes, dimensions):
    if len(sizes) not in (1, dimensions):
        raise ValueError(
            three_part(
                f"`--resolution` with 1 or {dimensions} numbers", " ".join(map(str, sizes)), "Give one for each axis."
            )
        )
    sizes = [check_positive_int("--resolution", size) for size in sizes]
    return sizes * dimensions if len(sizes) == 1 else sizes
