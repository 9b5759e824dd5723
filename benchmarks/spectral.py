"""Time and memory of spectral inverses against the two bare real FFTs that they need, compiled, by grid size.

  python benchmarks/spectral.py
  python benchmarks/spectral.py --cells 64 128 256 --examples 32 --repeats 20 --output runs/spectral.json

On a periodic heat problem in float64, from an x0 with known P(x0), as in training. A call works on the given number of
examples of 64 x 64 cells, or as many fewer of larger grids as hold the same number of cells. "graph" is TensorFlow's
kernels, "XLA" the same compiled; the limit of 2 is for the faster of the two against the faster bare transforms.
"""

import functools
import json
import sys

import numpy as np
import tensorflow as tf

import keras_sip
from _command_line import Parser
from _memory import peak_memory
from _timing import interleaved, machine, milliseconds, ratio, summary, table

LIMIT = 2.0
SOLVERS = {"damped": keras_sip.DampedSpectralInverse, "wiener": keras_sip.WienerInverse}
PIECES = ("FFTs", "forward", *SOLVERS)


def main(argv=None):
    options = parse_options(argv)
    print(machine())
    results = {"machine": machine(), "repeats": options.repeats, "cells": {}}
    for cells in options.cells:
        examples = max(1, options.examples * 64**2 // cells**2)
        print(f"\n{cells} x {cells} cells, {examples} examples, float64\n")
        seconds = interleaved(calls(cells, examples), options.repeats)
        memory = {} if options.skip_memory else {name: peak_memory(prepare, name, cells, examples) for name in PIECES}
        print(times_table(seconds, memory))
        results["cells"][str(cells)] = {
            "examples": examples,
            "seconds": {" ".join(key): summary(turns) for key, turns in seconds.items()},
            "ratios": {name: best_ratio(seconds, name)._asdict() for name in SOLVERS},
            "memory": memory,
        }
        if options.output is not None:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(results, indent=1))


def parse_options(argv):
    parser = Parser(__doc__)
    parser.add_count("--cells", [64, 128, 256, 512, 1024], "cells along each axis", metavar="N")
    parser.add_count("--examples", 128, "examples of 64 x 64 cells in a call")
    parser.add_count("--repeats", 10, "turns of each measurement")
    parser.add_argument("--skip-memory", action="store_true", help="measure times only")
    parser.add_output()
    return parser.parse_args(argv)


def pieces(cells, examples):
    """{name: (function, arguments)} to be compiled."""
    simulator = keras_sip.Heat((cells, cells))
    generator = tf.random.Generator.from_seed(0)
    x0, x_true = (generator.normal((examples, cells, cells, 1), dtype="float64") for _ in range(2))
    y0, y_target = simulator.forward(x0), simulator.forward(x_true)

    def transforms(field):
        # The spatial axes are the last already: nothing but the two FFTs.
        return tf.signal.irfft2d(tf.signal.rfft2d(field), fft_length=[cells, cells])

    def inverse(solver):
        return lambda x0, y_target, y0: solver.solve(simulator, x0, y_target, y0=y0).update

    return {
        "FFTs": (transforms, (x0[..., 0],)),
        "forward": (simulator.forward, (x0,)),
        **{name: (inverse(solver()), (x0, y_target, y0)) for name, solver in SOLVERS.items()},
    }


def calls(cells, examples):
    """{(name, "graph" or "XLA"): function without arguments}."""
    return {
        (name, kind): functools.partial(tf.function(function, autograph=False, jit_compile=kind == "XLA"), *arguments)
        for name, (function, arguments) in pieces(cells, examples).items()
        for kind in ("graph", "XLA")
    }


def prepare(name, cells, examples):
    """A compiled piece; a function of its own process, for `peak_memory`."""
    return calls(cells, examples)[name, "graph"]


def best_ratio(seconds, name):
    """The `Ratio` of the faster way of a piece to the faster way of the bare transforms."""
    fastest = {
        piece: min((seconds[piece, kind] for kind in ("graph", "XLA")), key=np.median) for piece in (name, "FFTs")
    }
    return ratio(fastest[name], fastest["FFTs"])


def times_table(seconds, memory):
    rows = []
    for name in PIECES:
        ways = [milliseconds(seconds[name, kind]) for kind in ("graph", "XLA")]
        size = [f"{memory[name] / 2**20:.0f}"] if memory else []
        if name == "FFTs":
            rows.append([name, *ways, "", "", *size])
            continue
        best = best_ratio(seconds, name)
        kept = "" if name not in SOLVERS else "kept" if best.value <= LIMIT else "EXCEEDED"
        rows.append([name, *ways, str(best), kept, *size])
    header = ["ms a call", "graph", "XLA", "best / FFTs", f"limit {LIMIT:g}"] + ["MiB"] * bool(memory)
    return table(header, rows, label_width=12)


if __name__ == "__main__":
    sys.exit(main())
