"""The trained models from the shell.

  python -m keras_sip list
  python -m keras_sip infer poisson --input y.npy --output x.npy --refine 5 --plot answers.png
  python -m keras_sip infer poisson --input y.npy --output x.npy --std std.npy
  python -m keras_sip serve poisson --port 8501
  python -m keras_sip compare package.module:Simulator --methods sip adjoint supervised --budget 120s

The input is an array [N, *y_shape] in a .npy file; where a model needs a context too, a .npz file with y and one array
for each entry of the context, under its name.
"""

import argparse
import io
import json
import pathlib
import sys

import numpy as np

from keras_sip import plotting
from keras_sip._quiet import FLAG
from keras_sip.comparison import command as comparison_command
from keras_sip.comparison.interruption import Terminated, sigterm_like_ctrl_c
from keras_sip.data import checked_arrays
from keras_sip.errors import check_positive_int, three_part
from keras_sip.files import write_atomically
from keras_sip.serving.card import METRICS
from keras_sip.serving.pretrained import find_pretrained, list_pretrained, load_pretrained, read_manifest
from keras_sip.serving.server import command as serving_command
from keras_sip.simulators.base import join_observation, split_observation
from keras_sip.untrusted import one_line, printable

BATCH = 32
EXAMPLES_DRAWN = 3
# Of the answers that get error bars, unless --refine says otherwise.
STEPS_BEFORE_STD = 10
DONE, REFUSED, INTERRUPTED, TERMINATED = 0, 2, 130, 143


def main(argv=None):
    """Run a command; returns the exit code: 0 done, 2 refused with a message and nothing written, 130, 143 stopped."""
    options = _parser().parse_args(argv)
    try:
        with sigterm_like_ctrl_c():
            code = options.command(options)
    except KeyboardInterrupt as interrupt:
        print("\nInterrupted.", file=sys.stderr)
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError, MemoryError) as error:
        message = str(error)
        if not message.startswith("Expected "):
            remedy = "Check the arguments with: python -m keras_sip --help"
            message = three_part("files and arguments that go together", f"{type(error).__name__}: {message}", remedy)
        print(printable(message), file=sys.stderr)
        return REFUSED
    return code or DONE


def list_models(options):
    """Print what is there: name, shapes, version, measured error."""
    models = list_pretrained(options.models)
    if not models:
        print("No trained models are installed. Train one: python applications/ship.py NAME")
    for name, path in models.items():
        description = read_manifest(path)
        line = f"{name:<16} y {_shape(description['y_shape'])} -> x {_shape(description['x_shape'])}"
        line += f"  {description['dtype']}, keras_sip {description['keras_sip']}"
        print(f"{one_line(line)}{_measured(path)}")


def infer(options):
    """Answer the observations of a file."""
    check_outputs(options)
    observation = read_observation(options.input)
    find_pretrained(options.name, options.models)
    if options.refine is not None:
        check_positive_int("--refine", options.refine)
    model = load_pretrained(options.name, options.models, trust=options.trust)
    y, context = split_observation(observation)
    _check_context(model.simulator, context)
    observation = checked_arrays(model.simulator, y, context=context)
    answers = [_answer(model, part, options.refine, options.std is not None) for part in _batches(observation)]
    x, stddev = (None if parts[0] is None else np.concatenate(parts) for parts in zip(*answers, strict=True))
    _check_answers(x)
    # Drawn before anything is written: what goes wrong there leaves no file.
    picture = options.plot and plotting.png(_picture(model, observation, x, stddev), plotting.DOTS_PER_INCH)
    for path, name, array in ((options.std, "standard deviations", stddev), (options.output, "x", x)):
        if path is not None:
            _save(path, array)
            print(f"{path}: {name} {_shape(array.shape)} of {len(array)} observations")
    if options.plot is not None:
        write_atomically(options.plot, picture)


def read_observation(path):
    """y, or {"y", "context"}, from a .npy or .npz file; nothing in it is executed.

    Raises:
        ValueError: The file is not there, truncated, of another kind, or holds Python objects.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # NumPy and zipfile have no common error for what a damaged file can hold.
        raise _unreadable(path, f"{type(error).__name__}: {error}") from None
    if "y" not in arrays:
        names = ", ".join(map(one_line, sorted(arrays))) or "(none)"
        raise _unreadable(path, f"the arrays {names}, and none that is named y")
    return join_observation(arrays.pop("y"), arrays or None)


def check_outputs(options):
    """Refuse outputs that are there already or cannot be written, before anything is computed."""
    if options.std is not None and options.std.resolve() == options.output.resolve():
        raise ValueError(three_part("--std and --output to be two files", f"{options.std}", "Name one std.npy."))
    for name, suffix in (("output", ".npy"), ("std", ".npy"), ("plot", ".png")):
        path = getattr(options, name)
        if path is None:
            continue
        if path.suffix != suffix:
            raise ValueError(three_part(f"--{name} to end in {suffix}", f"{path}", f"Name it {path.stem}{suffix}."))
        if not path.parent.is_dir():
            raise ValueError(
                three_part(f"--{name} in a folder that exists", f"{path}", f"Make it first: mkdir -p {path.parent}")
            )
        if path.exists() and not options.overwrite:
            raise ValueError(
                three_part(f"--{name} that does not exist yet", f"{path}", "Choose another name, or add --overwrite.")
            )


def _unreadable(path, received):
    return ValueError(
        three_part(
            f"observations in {path}: a .npy file of y, or a .npz file of y and its context",
            f"{received}",
            "Write it with numpy.save(path, y) or numpy.savez(path, y=y, NAME=values).",
        )
    )


def _check_context(simulator, context):
    declared = simulator.context_shape
    known = sorted(context or () if declared is None else declared)
    if known != sorted(context or ()):
        raise ValueError(
            three_part(
                f"observations with the context {', '.join(known)}" if known else "observations without a context",
                ", ".join(map(one_line, sorted(context))) if context else "none",
                "Write them with numpy.savez(path, y=y, NAME=values)." if known else "Write y alone.",
            )
        )


def _batches(observation):
    entries = split_observation(observation)
    count = len(entries[0])
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        y, context = entries
        yield join_observation(y[part], context and {name: value[part] for name, value in context.items()})


def _answer(model, observation, steps, with_stddev):
    """(x, standard deviations or None)."""
    if with_stddev:
        result, stddev = model.refine(observation, steps or STEPS_BEFORE_STD, return_stddev=True)
        return result.x.numpy(), stddev.numpy()
    if steps is None:
        return model.predict_on_batch(observation), None
    return model.refine(observation, steps).x.numpy(), None


def _save(path, array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getbuffer())


def _check_answers(x):
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if bad.size:
        raise ArithmeticError(
            three_part(
                "a finite answer to every observation",
                f"NaN or Inf for {bad.size} of {len(x)}: {bad[:10].tolist()}",
                "Leave these observations out; they are too far from those the model was trained on.",
            )
        )


def _picture(model, observation, x, stddev):
    y, context = split_observation(observation)
    shown = slice(EXAMPLES_DRAWN)
    context = context and {name: value[shown] for name, value in context.items()}
    stddev = None if stddev is None else stddev[shown]
    return plotting.answers(y[shown], x[shown], model.simulator(x[shown], context), stddev=stddev)


def _measured(path):
    try:
        measured = json.loads((path / METRICS).read_text(encoding="utf-8"))["measured"]
        return "".join(f"\n{'':16} {one_line(name)}: {value:.4g}" for name, value in measured.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _shape(shape):
    return f"[{', '.join(map(str, shape))}]"


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m keras_sip", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(FLAG, action="store_true", help="show TensorFlow's messages")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    models = {"type": pathlib.Path, "metavar": "FOLDER", "help": "where the models are (default: those that ship)"}
    listing = commands.add_parser("list", help="the trained models that are there")
    listing.add_argument("--models", **models)
    listing.set_defaults(command=list_models)
    answering = commands.add_parser("infer", help="find x of observations in a file")
    add = answering.add_argument
    add("name", help="of the model, such as poisson")
    add("--input", type=pathlib.Path, required=True, metavar="FILE", help=".npy of y, or .npz of y and its context")
    add("--output", type=pathlib.Path, required=True, metavar="FILE", help=".npy to write x to")
    add("--refine", type=int, metavar="STEPS", help="improve the answers by so many solver steps")
    add(
        "--std",
        type=pathlib.Path,
        metavar="FILE",
        help=f".npy to write standard deviations of x to; refines, by {STEPS_BEFORE_STD} steps unless --refine says",
    )
    add("--plot", type=pathlib.Path, metavar="FILE", help=".png of the first answers")
    add("--overwrite", action="store_true", help="replace files that are there")
    add("--trust", type=pathlib.Path, metavar="KEY", help="public key (PEM) that must have signed the model")
    add("--models", **models)
    answering.set_defaults(command=infer)
    serving_command.add_command(commands)
    comparison_command.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
