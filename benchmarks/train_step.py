"""Time and peak memory of one training step on Poisson's equation, by method and batch size.

  python benchmarks/train_step.py
  python benchmarks/train_step.py --batch 128 --repeats 20 --output runs/train_step.json

Methods: `keras`, regression on (y, x) with Keras' own fit and MSE, is the floor; SIPModel `supervised`; `adjoint`,
back-propagation through the solve; `sip` with the known inverse; `gauss_newton`, SIP with the inverse hidden.

A step is measured through `fit`, with batches made on the way ("made") and with batches at hand ("stored"), and bare:
the compiled `train_step` on one batch, as a TensorFlow graph and as a whole under XLA. Its parts are functions compiled
by themselves; where XLA makes physics and solver faster on a CPU, the simulator should say `prefers_xla`, which is what
`jit_compile="auto"` follows. Memory is what a few steps add to a process after imports and the building of the model.
"""

import dataclasses
import functools
import json
import sys

import tensorflow as tf

from _command_line import Parser
from _memory import peak_memory
from _problem import METHODS, SYSTEMS, Problem, parts
from _timing import interleaved, machine, milliseconds, ratio, summary, table

# How a step is taken, and the head of its column.
WAYS = {"fit_made": "fit, made", "fit_stored": "fit, stored", "graph": "bare, graph", "xla": "bare, XLA"}


def main(argv=None, *, system="poisson", description=__doc__):
    options = parse_options(argv, description)
    compared = SYSTEMS[system].compared
    print(machine())
    results = {"machine": machine(), "repeats": options.repeats, "fit_steps": options.fit_steps, "batches": {}}
    for batch in options.batch:
        problem = Problem(system, options.resolution, batch, options.levels, options.cg_steps)
        print(f"\n{SYSTEMS[system].title} {problem.resolution} x {problem.resolution}, batch {batch}\n")
        measured = {"problem": dataclasses.asdict(problem)}
        results["batches"][str(batch)] = measured

        steps = measure_steps(problem, options.methods, options.repeats, options.fit_steps)
        ratios = compare_steps(steps, compared)
        measured["steps"] = {way: {method: summary(s) for method, s in by.items()} for way, by in steps.items()}
        measured["ratios"] = {way: {pair: r._asdict() for pair, r in by.items()} for way, by in ratios.items()}
        print(steps_table(steps), ratios_table(ratios, compared), sep="\n\n", end="\n\n")

        compiled = measure_parts(problem, options.repeats)
        measured["parts"] = {part: {kind: summary(s) for kind, s in by.items()} for part, by in compiled.items()}
        print(parts_table(compiled), end="\n\n")

        if not options.skip_memory:
            measured["memory"] = {method: peak_memory(prepare_step, method, problem) for method in options.methods}
            print(memory_table(measured["memory"]))
        if options.output is not None:  # after every batch size, so that an interrupted run leaves what it has
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(results, indent=1))


def parse_options(argv, description):
    parser = Parser(description)
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="methods to measure (default: all)"
    )
    parser.add_count("--batch", [32, 128], "batch sizes", metavar="SIZE")
    parser.add_count("--resolution", 64, "cells along each axis")
    parser.add_count("--levels", 4, "resolutions of the U-Net")
    parser.add_count("--repeats", 10, "turns of each measurement")
    parser.add_count("--fit-steps", 3, "steps of each fit")
    parser.add_count("--cg-steps", 60, "conjugate-gradient steps of gauss_newton")
    parser.add_argument("--skip-memory", action="store_true", help="measure times only")
    parser.add_output()
    return parser.parse_args(argv)


# Measuring ------------------------------------------------------------------------------------------------------------


def measure_steps(problem, methods, repeats, fit_steps):
    """{way: {method: seconds of a step}}, the methods of one way by turns."""
    made = problem.data()
    stored = tf.data.Dataset.from_tensor_slices(next(iter(made.batch(fit_steps)))).repeat().prefetch(2)
    models = {method: problem.model(method) for method in methods}
    ways = {
        "fit_made": {method: fit(model, made, fit_steps) for method, model in models.items()},
        "fit_stored": {method: fit(model, stored, fit_steps) for method, model in models.items()},
        "graph": {method: bare_step(method, problem, jit_compile=False) for method in methods},
        "xla": {method: bare_step(method, problem, jit_compile=True) for method in methods},
    }
    seconds = {way: interleaved(variants, repeats) for way, variants in ways.items()}
    for way in ("fit_made", "fit_stored"):
        seconds[way] = {method: turns / fit_steps for method, turns in seconds[way].items()}
    return seconds


def fit(model, batches, steps):
    # Keras warns that it cannot shuffle a dataset.
    return functools.partial(model.fit, batches, steps_per_epoch=steps, shuffle=False, verbose=0)


def bare_step(method, problem, *, jit_compile):
    """The compiled training step on one batch, without fit and its data."""
    model = problem.model(method, jit_compile=jit_compile)
    step = tf.function(model.train_step, jit_compile=jit_compile, autograph=False)
    return functools.partial(step, problem.fixed_batch())


def prepare_step(method, problem):
    """The step as `fit` compiles it; a function of its own process, for `peak_memory`."""
    return fit(problem.model(method), problem.data(), steps=1)


def measure_parts(problem, repeats):
    """{part: {"graph" or "xla": seconds}}."""
    functions = {
        (name, kind): functools.partial(
            tf.function(part.function, jit_compile=kind == "xla", autograph=False), *part.arguments
        )
        for name, part in parts(problem).items()
        for kind in ("graph", "xla")
    }
    seconds = interleaved(functions, repeats)
    return {name: {kind: seconds[name, kind] for kind in ("graph", "xla")} for name, _ in functions}


def compare_steps(steps, compared):
    """{way: {"sip/keras": Ratio, ...}} of the pairs whose two methods were measured."""
    return {
        way: {f"{a}/{b}": ratio(seconds[a], seconds[b]) for a, b, _ in compared if {a, b} <= seconds.keys()}
        for way, seconds in steps.items()
    }


# Showing --------------------------------------------------------------------------------------------------------------


def steps_table(steps):
    methods = steps["graph"]
    rows = [[method, *(milliseconds(seconds[method]) for seconds in steps.values())] for method in methods]
    return table(["ms a step", *WAYS.values()], rows, label_width=16)


def ratios_table(ratios, compared):
    """Each ratio with its quartiles, and whether it keeps its limit."""
    rows = []
    for above, below, limit in compared:
        of_pair = [by_pair.get(f"{above}/{below}") for by_pair in ratios.values()]
        if None in of_pair:
            continue
        rows += [[f"{above} /"], [f"  {below}", *map(str, of_pair)]]
        if limit is not None:
            rows.append([f"  limit {limit:.2f}", *("kept" if r.value <= limit else "EXCEEDED" for r in of_pair)])
    return table(["ratio, quartiles", *WAYS.values()], rows, label_width=16)


def parts_table(compiled):
    rows = []
    for name, seconds in compiled.items():
        gain = ratio(seconds["xla"], seconds["graph"])
        rows.append([name, *map(milliseconds, seconds.values()), str(gain), "XLA" if gain.value < 1 else "graph"])
    return table(["ms a part", "graph", "XLA", "XLA/graph", "faster"], rows)


def memory_table(memory):
    first, size_of_first = next(iter(memory.items()))
    rows = [[method, f"{size / 2**20:.0f}", f"{size / size_of_first:.2f}"] for method, size in memory.items()]
    return table(["peak memory", "MiB", f"/ {first}"], rows)


if __name__ == "__main__":
    sys.exit(main())
