"""Time and peak memory of a training step by optimizer: back-propagation through Poisson's equation.

  python benchmarks/optimizers.py
  python benchmarks/optimizers.py --batch 32 --repeats 20 --output runs/optimizers.json

A step is SIPModel's, method "adjoint", through `fit` on one stored batch. AdaHessian needs a Hessian-vector product
beside the gradient (`ada_hessian_2` in every other step) and may take four times as long as Adam; Hessian-free takes a
product with the Gauss-Newton matrix for each of its conjugate-gradient steps. Memory is what a few steps add to a
process after imports and the building of the model.
"""

import functools
import json
import sys

import keras

import keras_sip
from _command_line import Parser
from _memory import peak_memory
from _timing import interleaved, machine, milliseconds, ratio, summary, table

OPTIMIZERS = {
    "adam": lambda options: keras.optimizers.Adam(1e-3),
    "sgd": lambda options: keras.optimizers.SGD(3e-12, momentum=0.9),
    "muon": lambda options: keras_sip.Muon(3e-3),
    "ada_hessian": lambda options: keras_sip.AdaHessian(1e-6),
    "ada_hessian_2": lambda options: keras_sip.AdaHessian(1e-6, hessian_every=2),
    "hessian_free": lambda options: keras_sip.HessianFree(cg_steps=options.cg_steps, cg_tolerance=0.0),
}
REFERENCE = "adam"
LIMITS = {"ada_hessian": 4.0, "ada_hessian_2": 4.0}
# In one turn: a whole period of those that do not do the same in each step.
STEPS = 2


def main(argv=None):
    options = parse_options(argv)
    print(machine())
    results = {"machine": machine(), "repeats": options.repeats, "batches": {}}
    for batch in options.batch:
        print(f"\nPoisson {options.resolution} x {options.resolution}, batch {batch}\n")
        steps = {name: prepare_step(name, batch, options) for name in options.optimizers}
        seconds = {name: turns / STEPS for name, turns in interleaved(steps, options.repeats).items()}
        memory = {} if options.skip_memory else measure_memory(batch, options)
        print(steps_table(seconds, memory))
        results["batches"][str(batch)] = {
            "steps": {name: summary(turns) for name, turns in seconds.items()},
            "ratios": {name: ratio(turns, seconds[REFERENCE])._asdict() for name, turns in seconds.items()},
            "memory": memory,
        }
        if options.output is not None:  # after every batch size, so that an interrupted run leaves what it has
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(results, indent=1))


def parse_options(argv):
    parser = Parser(__doc__)
    parser.add_argument(
        "--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS), help="those to measure (default: all)"
    )
    parser.add_count("--batch", [32, 128], "batch sizes", metavar="SIZE")
    parser.add_count("--resolution", 64, "cells along each axis")
    parser.add_count("--levels", 4, "resolutions of the U-Net")
    parser.add_count("--repeats", 10, "turns of each measurement")
    parser.add_count("--cg-steps", 20, "conjugate-gradient steps of hessian_free")
    parser.add_argument("--skip-memory", action="store_true", help="measure times only")
    parser.add_output()
    options = parser.parse_args(argv)
    # What the others are compared with is always measured, and first.
    options.optimizers = list(dict.fromkeys([REFERENCE, *options.optimizers]))
    return options


def prepare_step(name, batch, options):
    """A function without arguments that takes `STEPS` steps; also called in a process of its own, for `peak_memory`."""
    simulator = keras_sip.Poisson((options.resolution, options.resolution))
    network = keras_sip.UNet(simulator.y_shape, 1, levels=options.levels, seed=0)
    model = keras_sip.SIPModel(network, simulator, None, "adjoint", batch_reduction="sum", input_scale=1.0)
    model.compile(OPTIMIZERS[name](options))
    stored = keras_sip.dataset(simulator, batch, seed=0).take(1).cache().repeat()
    return functools.partial(model.fit, stored, steps_per_epoch=STEPS, verbose=0)


def measure_memory(batch, options):
    return {name: peak_memory(prepare_step, name, batch, options) for name in options.optimizers}


def steps_table(seconds, memory):
    """Milliseconds a step, the ratio to Adam with quartiles, whether it keeps its limit, and MiB."""
    rows = []
    for name, turns in seconds.items():
        against = ratio(turns, seconds[REFERENCE])
        limit = LIMITS.get(name)
        kept = "" if limit is None else f"{limit:g} {'kept' if against.value <= limit else 'EXCEEDED'}"
        rows.append([name, milliseconds(turns), str(against), kept, f"{memory[name] / 2**20:.0f}" if memory else ""])
    return table(["step", "ms", f"/ {REFERENCE}, quartiles", "limit", "MiB"], rows, label_width=14)


if __name__ == "__main__":
    sys.exit(main())
