"""Compare training methods on one experiment, in one command.

  python applications/compare.py poisson --seeds 0 1 2 --budget 600s \\
      --methods sip adam sgd adahessian hessian_free fno
  python applications/compare.py heat --steps 200 --batch 32 --search
  python applications/compare.py heat --steps 200 --robustness --resume

The first word is the experiment, any script here that has an EXPERIMENT. For
every seed all methods start from the same weights (those with one network) and
see the same batches in the same order, for equal steps (--steps) or equal
training time (--budget), compiling apart; all are measured on one fixed
evaluation set. Beside what the experiment's own script writes:

  comparison.txt, .json, .csv   errors at equal steps and at equal time, time
                                and steps to errors, over seeds
  rates.json                    with --search: every learning rate's error
  robustness.txt, .json, .csv, .png
                                with --robustness: errors on degraded
                                observations

An interrupted comparison goes on with the same command and --resume. A method
that fails is named at the end and in comparison.json, and the others go on.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import pathlib
import sys
from collections.abc import Sequence

from experiments.startup import keras_sip  # noqa: F401

from experiments.experiment import rate_of
from experiments.runner import REFUSED, main
from keras_sip.errors import check_number, three_part
from studies.rate_search import rates_table, searched_rates
from studies.robustness import write_robustness

DEFAULT_FRACTION = 0.2


def run(argv: Sequence[str] | None = None) -> int:
    """The comparison of the experiment that the first word names; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(f"{__doc__}\nexperiments: {', '.join(experiments())}")
        return 0
    name, *rest = words
    if name not in experiments():
        message = three_part(f"an experiment from {', '.join(experiments())}", repr(name), "Name it first.")
        print(message, file=sys.stderr)
        return REFUSED
    return main_of(importlib.import_module(name).EXPERIMENT, rest)


def main_of(experiment, argv):
    """The comparison of an experiment; returns the exit code."""
    add = functools.partial(_add_options, experiment.add_options)
    return main(
        dataclasses.replace(experiment, add_options=add, description=__doc__),
        argv,
        program=f"compare.py {experiment.name}",
        prepare=_prepare,
        finish=_finish,
    )


def experiments():
    """Names of the scripts that have an EXPERIMENT."""
    folder = pathlib.Path(__file__).parent
    scripts = [path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")]
    return [path.stem for path in scripts if "\nEXPERIMENT = " in path.read_text(encoding="utf-8")]


def _add_options(add_others, parser):
    if add_others is not None:
        add_others(parser)
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--search",
        type=_fraction,
        nargs="?",
        const=DEFAULT_FRACTION,
        metavar="FRACTION",
        help="search each method's learning rate first, in runs of this fraction of the steps or budget "
        f"(default: {DEFAULT_FRACTION})",
    )
    group.add_argument(
        "--rates",
        type=_rates,
        default={},
        metavar="FILE",
        help="take the learning rates from the rates.json of an earlier search",
    )
    group.add_argument(
        "--robustness", action="store_true", help="also measure the trained networks on degraded observations"
    )


def _fraction(text):
    try:
        return check_number("--search", text, exclusive=True, maximum=1.0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rates(path):
    """{method: rate} of a file that a search has written."""
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        return {method: check_number(method, result["rate"], exclusive=True) for method, result in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        message = three_part("the rates.json of an earlier search", f"{path} ({error})", "Make one with --search.")
        raise argparse.ArgumentTypeError(message) from None


def _prepare(run):
    """The run with the learning rates of the file or of the search."""
    options = run.options
    rates = {method: rate for method, rate in options.rates.items() if method in run.experiment.variants}
    if options.search is not None:
        rates |= searched_rates(run, options.search)
        print(f"\n{rates_table(run.folder)}")
    return dataclasses.replace(run, experiment=run.experiment.with_rates(rates))


def _finish(run):
    """Comparison and, if asked for, robustness, beside what the runner has written."""
    comparison = run.comparison()
    variants = run.experiment.variants
    rates = {method: rate_of(variants[method].optimizer(run.options)) for method in run.methods}
    comparison.write_numbers(run.folder.path, learning_rates=rates)
    print(f"\n{comparison.time_tables()}")
    if run.options.robustness:
        write_robustness(run)


if __name__ == "__main__":
    sys.exit(run())
