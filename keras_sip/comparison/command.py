"""The shell command `python -m keras_sip compare package.module:Simulator`."""

import argparse
import importlib
import pathlib
import shlex
import sys

from keras_sip import plotting
from keras_sip.comparison.comparison import compare, seconds
from keras_sip.comparison.interruption import Terminated, sigterm_like_ctrl_c
from keras_sip.errors import three_part
from keras_sip.simulators.base import Simulator
from keras_sip.training.methods import METHODS

DONE, FAILED, INTERRUPTED, TERMINATED = 0, 1, 130, 143


def add_command(commands) -> None:
    """Add `compare` to the subcommands of a parser; its `command` takes the options and returns the exit code."""
    parser = commands.add_parser(
        "compare",
        help="compare training methods on a simulator of your own",
        description="Train one network with several methods from equal starts on equal data, and compare their errors.",
        epilog="example: python -m keras_sip compare decay:Decay --methods sip adjoint --budget 30s",
    )
    add = parser.add_argument
    add("simulator", metavar="MODULE:NAME", help="a Simulator, its class, or a function that returns one")
    add(
        "--methods",
        nargs="+",
        default=list(METHODS),
        metavar="NAME",
        help=f"of {', '.join(METHODS)} and recipe, what keras_sip.recipe recommends (default: all but that)",
    )
    add("--budget", metavar="TIME", help="training time of each run, as 120s, 10m or 1h (default: 60s)")
    add("--steps", type=int, metavar="N", help="training steps of each run, where they end it")
    add("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="one run for each (default: 0)")
    add("--batch", type=int, default=32, help="examples in a training batch (default: %(default)s)")
    add("--learning-rate", type=float, default=1e-3, metavar="RATE", help="of Adam (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FOLDER", help="where everything is written (default: runs/NAME)")
    add("--resume", action="store_true", help="go on with the run in the output folder")
    add("--quiet", action="store_true", help="no progress while training")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Compare; returns the exit code: 0 done, 1 where a run failed, 130 or 143 interrupted."""
    if options.budget is not None:
        options.budget = seconds("--budget", options.budget)
    simulator = find_simulator(options.simulator)
    output = options.output or pathlib.Path("runs") / type(simulator).__name__.lower()
    try:
        with sigterm_like_ctrl_c():
            comparison = compare(
                simulator,
                options.methods,
                seeds=options.seeds,
                budget=options.budget,
                steps=options.steps,
                batch=options.batch,
                learning_rate=options.learning_rate,
                output=output,
                resume=options.resume,
                verbose=not options.quiet,
            )
    except KeyboardInterrupt as error:
        words = [*sys.argv[1:], *([] if options.resume else ["--resume"])]
        print(f"\nInterrupted. To go on: {shlex.join(['python', '-m', 'keras_sip', *words])}")
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    print(f"\n{comparison}")
    print(f"{output}: table.txt, comparison.txt, .csv and .json, metrics.csv, checkpoints", end="")
    print(", learning_curves.png" if plotting.available() else f"\nNo figure: {plotting.REMEDY}")
    return FAILED if comparison.failures else DONE


def find_simulator(name: str) -> Simulator:
    """The simulator that "package.module:Name" stands for; modules are found from the working directory."""
    module_name, _, attribute = name.partition(":")
    expected = "a simulator as MODULE:NAME, such as decay:Decay for the class Decay in the file decay.py"
    if not attribute or "/" in module_name or module_name.endswith(".py"):
        stem = ".".join(pathlib.Path(module_name.removesuffix(".py")).parts) or "decay"
        raise ValueError(three_part(expected, repr(name), f"Write for example {stem}:{attribute or 'Decay'}."))
    if "" not in sys.path and str(pathlib.Path.cwd()) not in sys.path:
        sys.path.insert(0, str(pathlib.Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name not in (module_name, module_name.partition(".")[0]):
            raise
        remedy = f"Start it in the folder that holds {module_name.replace('.', '/')}.py."
        raise ValueError(three_part(expected, f"{name!r}, and no module {error.name}", remedy)) from None
    if not hasattr(module, attribute):
        found = [key for key, value in vars(module).items() if _is_simulator(value) and value is not Simulator]
        remedy = f"There are: {', '.join(found)}." if found else f"{module.__file__} defines no simulator."
        raise ValueError(three_part(expected, f"{name!r}, and {module_name} has no {attribute}", remedy))
    return _made(getattr(module, attribute), name)


def _made(value, name):
    if isinstance(value, Simulator):
        return value
    try:
        made = value() if callable(value) else value
    except TypeError as error:
        remedy = f"Make one in the module, simulator = {name.partition(':')[2]}(...), and name that."
        raise ValueError(three_part(f"{name} to be made without arguments", str(error), remedy)) from None
    if not isinstance(made, Simulator):
        raise ValueError(
            three_part(
                f"{name} to be a keras_sip.Simulator, its class, or a function that returns one",
                repr(made),
                "Subclass keras_sip.Simulator, or wrap a function by keras_sip.from_function.",
            )
        )
    return made


def _is_simulator(value):
    return isinstance(value, Simulator) or (isinstance(value, type) and issubclass(value, Simulator))
