"""Load every model that ships in a new environment that holds TensorFlow alone, and compare its answers.

  python applications/check_shipped.py
  python applications/check_shipped.py --models saved_models --environment /tmp/plain

Makes a virtual environment, installs this TensorFlow's version there and nothing else, and lets it answer the same
observations as `load_pretrained(NAME).predict` here. Answers may differ by 1e-6 of the largest value; no example's
objective may be higher after `refine`. A minute or two, mostly of installing.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence

from experiments.startup import add_flag, keras_sip

import numpy as np
import tensorflow as tf

from keras_sip.serving.pretrained import SAVED_MODEL, list_pretrained
from keras_sip.simulators.base import join_observation

EXAMPLES = 4
TOLERANCE = 1e-6
PROGRAM = pathlib.Path(__file__).with_name("experiments.plain_tensorflow.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Check all models; returns the exit code, 1 where one deviates."""
    options = parse_options(argv)
    models = list_pretrained(options.models)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        words = []
        for name, path in models.items():
            write_case(name, options.models, folder / f"{name}.npz")
            words += [str(path / SAVED_MODEL), str(folder / f"{name}.npz")]
        python = plain_environment(options.environment or folder / "environment")
        answered = subprocess.run([python, PROGRAM, *words], capture_output=True, text=True, cwd=folder)
    if answered.returncode:
        print(answered.stderr, file=sys.stderr)
        return 1
    print(f"{'TensorFlow ' + tf.__version__ + ' alone':24}{'difference':>12}{'refine not worse':>18}")
    wrong = False
    for name, line in zip(models, answered.stdout.splitlines(), strict=True):
        difference, share = map(float, line.split())
        kept = difference <= TOLERANCE and share == 1.0
        wrong |= not kept
        print(f"{name:24}{difference:12.1e}{share:18.1%}  {'kept' if kept else 'EXCEEDED'}")
    return int(wrong)


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", type=pathlib.Path, metavar="FOLDER", help="default: those that ship")
    add("--environment", type=pathlib.Path, metavar="FOLDER", help="where to make the environment, and leave it")
    add_flag(parser)
    options = parser.parse_args(argv)
    if not list_pretrained(options.models):
        parser.error(f"Expected a folder of trained models. Received {options.models}. Make one with ship.py.")
    return options


def write_case(name, models, path):
    """Observations of the model's simulator, under the names of its signature, and the answers of `predict`."""
    model = keras_sip.load_pretrained(name, models)
    sample = model.simulator.sample(EXAMPLES, (0, 0))
    context = sample.get("context")
    expected = model.predict(join_observation(sample["y"], context), verbose=0)
    inputs = {"y": sample["y"], **{f"context_{key}": value for key, value in (context or {}).items()}}
    np.savez(path, expected=expected, **inputs)


def plain_environment(folder):
    """The Python of a virtual environment with TensorFlow and what it needs."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        f"tensorflow=={tf.__version__}",
    ]
    subprocess.run(command, check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
