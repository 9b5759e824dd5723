"""A compiled solver and a whole training step of an application, as files that run wherever XLA runs.

  python benchmarks/export_step.py poisson
  python benchmarks/export_step.py poisson --methods sip gauss_newton --batch 32 --output runs/export

All options of the application are taken; its `--methods`, `--batch`, `--resolution` and first `--seeds` are used. For
each method there is a folder METHOD_step and, for those with a solver, METHOD_solver:

- step: from the step's number, the batch of data as `keras_sip.dataset` draws it; then network, simulation, solver and
  optimizer. The state (weights, batch norm's statistics, the optimizer's slots, metrics) goes in and comes out.
- solver: the update from the untrained network's answer on one batch, in physical units.

Each folder holds program.hlo, a serialized HLO module; args.npz, its inputs in order; expected.npz, its outputs in
order after a few calls, each fed with those of the one before; program.json, names and more. For each program a line is
printed with the arguments of a runner of serialized HLO programs, whose options are

  --repeat N            number of calls
  --out FILE            write the outputs of the last call, in order, as an npz file
  --feed OUT:IN,...     output OUT of a call is input IN of the next
  --log K --every N     print output K every N calls

`python benchmarks/compare_outputs.py FOLDER` then compares out.npz with expected.npz.
"""

import importlib
import pathlib
import sys
from typing import NamedTuple

import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "applications"))

from _command_line import Parser
from _hlo import Program
from experiments.options import parse_options
from keras_sip.simulators.base import join_observation, split_observation


class StepResult(NamedTuple):
    """The next step's number, and what this step measured."""

    step: tf.Tensor
    loss: tf.Tensor
    x_error: tf.Tensor


class Solution(NamedTuple):
    """What the solver found, per example."""

    update: tf.Tensor
    status: tf.Tensor
    num_steps: tf.Tensor


def main(argv=None):
    parser = Parser(__doc__, allow_abbrev=False)
    parser.add_argument("application", help="name of its script in applications/, such as poisson")
    parser.add_count("--calls", 3, "calls that expected.npz is taken after")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/export"), metavar="FOLDER")
    own, others = parser.parse_known_args(argv)
    try:
        experiment = importlib.import_module(own.application).EXPERIMENT
    except (ValueError, ModuleNotFoundError, AttributeError) as error:
        parser.error(str(error))
    options = parse_options(experiment, others)
    for method in options.methods:
        for kind, program in programs(experiment, method, options).items():
            folder = own.output / f"{method}_{kind}"
            program.save(folder, own.calls)
            print(f"\n{folder}: {len(program.inputs)} inputs, {len(program.output_names)} outputs")
            print(f"  {runner_arguments(program, folder, own.calls)}")


def programs(experiment, method, options):
    """{"solver" or "step": Program} of a method, from the initial weights."""
    simulator = experiment.simulator(options)
    seed = options.seeds[0]
    model = experiment.build_model(method, simulator, options, seed)
    step = training_step(model, options.batch, seed)
    return {"step": step} if model.solver is None else {"solver": solver(model, options.batch, seed), "step": step}


def training_step(model, batch_size, seed):
    """The whole training step; the model's state is that of the first call."""
    # Left to the first step, the slots would be made while it is compiled.
    model.optimizer.build(model.trainable_variables)

    def train(step):
        model.reset_metrics()
        measured = model.train_step(batch_of_step(model.simulator, batch_size, seed, step))
        return StepResult(step + 1, measured["loss"], measured["x_error"])

    return Program(train, {"step": tf.constant(0, tf.int64)})


def solver(model, batch_size, seed):
    """The solver, from the network's answer on the first batch."""
    observation, _ = batch_of_step(model.simulator, batch_size, seed, tf.constant(0, tf.int64))
    y_target, context = split_observation(observation)
    context = context or {}

    def solve(x0, y_target, *entries):
        known = dict(zip(context, entries, strict=True)) or None
        result = model.solver.solve(model.simulator, x0, y_target, known)
        return Solution(result.update, result.status, result.num_steps)

    return Program(solve, {"x0": model(observation), "y_target": y_target, **context})


def batch_of_step(simulator, batch_size, seed, step):
    """(observation, x) of a training step, as `keras_sip.dataset` draws it."""
    sample = simulator.sample(batch_size, tf.stack([tf.constant(seed, tf.int64), step]))
    return join_observation(sample["y"], sample.get("context")), sample["x"]


def runner_arguments(program, folder, calls):
    """The command line of a runner of HLO programs, without its name."""
    words = [folder / "program.hlo", folder / "args.npz", "--repeat", calls, "--out", folder / "out.npz"]
    if program.feed:
        words += ["--feed", ",".join(f"{source}:{target}" for source, target in program.feed)]
    if "x_error" in program.output_names:
        words += ["--log", program.output_names.index("x_error"), "--every", 1]
    return " ".join(map(str, words))


if __name__ == "__main__":
    sys.exit(main())
