"""Train one model of an application for shipping, beside its baseline, and write the folder that carries it.

  python applications/ship.py poisson --steps 3000 --batch 32
  python applications/ship.py heat --steps 3000 --batch 32 --method sip --baseline adam -- --diffusion 8

Both methods start from the same weights, see the same batches and let their learning rate fall along a cosine to zero.
The run (runs/ship/NAME) goes on where it stopped when the same command is started again; to train in pieces, stop it
with Ctrl-C or `timeout -s INT 600 python applications/ship.py ...`. When both are trained, saved_models/NAME is
written: the exported SavedModel, model.keras, metrics.json, curves, a picture of answers, the card, and checksums.
Options after `--` are those of the application.
"""

import argparse
import contextlib
import dataclasses
import importlib
import pathlib
import sys
from collections.abc import Sequence

from experiments.startup import add_flag

import keras

from experiments.experiment import Experiment
from experiments.options import parse_options
from experiments.runner import FAILED, Run, ending_cleanly, train_all
from experiments.shipping import write_shipped_model
from keras_sip.errors import three_part


def main(argv: Sequence[str] | None = None) -> int:
    """Train and write; returns the exit code: 0 done, 1 failed, 2 refused, 130 or 143 interrupted."""
    own, of_application = _parser().parse_known_args(argv)
    with ending_cleanly("start the same command again") as ended:
        target = own.output / own.name
        if target.exists() and not own.replace:
            raise ValueError(
                three_part(
                    "a folder that does not exist yet", f"{target}", "Pass --replace to put the new model there."
                )
            )
        experiment = with_falling_rates(_experiment(own.name), own.steps)
        options = parse_options(experiment, _run_arguments(own, of_application))
        with contextlib.closing(Run.opened(experiment, options, free=("steps",), resume=True)) as run:
            train_all(run)
            if run.folder.failures:
                ended.code = FAILED
                return ended.code
            schedule = "learning rate falling along a cosine to zero"
            write_shipped_model(run, target, method=own.method, baseline=own.baseline, schedule=schedule)
        print(f"Written: {target}")
    return ended.code


def with_falling_rates(experiment: Experiment, steps: int) -> Experiment:
    """The experiment with optimizers whose learning rate falls to zero along a cosine, unless it has a schedule."""

    def falling(optimizer):
        def build(options):
            config = optimizer(options).get_config()
            if not isinstance(config["learning_rate"], float):
                return optimizer(options)
            schedule = keras.optimizers.schedules.CosineDecay(config["learning_rate"], steps)
            return type(optimizer(options)).from_config({**config, "learning_rate": schedule})

        return build

    variants = {
        name: dataclasses.replace(variant, optimizer=falling(variant.optimizer))
        for name, variant in experiment.variants.items()
    }
    return dataclasses.replace(experiment, variants=variants)


def _experiment(name):
    module = pathlib.Path(__file__).parent / f"{name}.py"
    known = sorted(path.stem for path in module.parent.glob("*.py") if "Experiment(" in path.read_text())
    if name not in known:
        raise ValueError(three_part(f"one of the applications {', '.join(known)}", repr(name), "Choose one of them."))
    return importlib.import_module(name).EXPERIMENT


def _run_arguments(own, of_application):
    run = ["--methods", own.method, own.baseline, "--steps", str(own.steps), "--seeds", str(own.seed)]
    run += ["--output", str(pathlib.Path("runs") / "ship" / own.name), "--resume"]
    if own.batch is not None:
        run += ["--batch", str(own.batch)]
    return run + [word for word in of_application if word != "--"]


def _parser():
    parser = argparse.ArgumentParser(
        prog="ship.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", help="the application, such as poisson")
    add("--method", default="sip", help="method of the model that ships (default: %(default)s)")
    add("--baseline", default="adam", help="method to compare with (default: %(default)s)")
    add("--steps", type=int, default=3000, help="training steps of each (default: %(default)s)")
    add("--batch", type=int, help="examples in a training batch (default: the application's)")
    add("--seed", type=int, default=0, help="of weights and data (default: %(default)s)")
    add("--output", type=pathlib.Path, default=pathlib.Path("saved_models"), help="(default: %(default)s)")
    add("--replace", action="store_true", help="put the model in place of one that is there")
    add_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
