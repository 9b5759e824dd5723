"""A training step and an answer of the U-Net in bfloat16 over those in float32, physics in float32.

  python benchmarks/precision.py
  python benchmarks/precision.py --batch 32 --repeats 10 --output runs/precision.json

Poisson's equation, SIP with its inverse, through `train_step` and the network's own call, compiled by TensorFlow. By
turns in one process; which is the faster depends on the processor: it needs kernels of bfloat16 (AMX, or a GPU).
"""

import json
import sys

import keras
import tensorflow as tf

import keras_sip
from _command_line import Parser
from _timing import interleaved, machine, milliseconds, ratio, summary, table

PRECISIONS = ("float32", "mixed_bfloat16")


def main(argv=None):
    options = parse_options(argv)
    print(machine())
    variants = {}
    for precision in PRECISIONS:
        variants |= {(way, precision): run for way, run in functions(precision, options).items()}
    seconds = interleaved(variants, options.repeats)
    rows = []
    for way in ("train", "answer"):
        single, half = (seconds[way, precision] for precision in PRECISIONS)
        rows.append([way, milliseconds(single), milliseconds(half), str(ratio(half, single))])
    print()
    print(table(["ms", "float32", "bfloat16", "ratio, quartiles"], rows, label_width=14))
    if options.output is not None:
        results = {"machine": machine(), **{f"{way}_{name}": summary(s) for (way, name), s in seconds.items()}}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1))


def parse_options(argv):
    parser = Parser(__doc__)
    parser.add_count("--batch", 32, "examples in a batch")
    parser.add_count("--resolution", 64, "cells along each axis")
    parser.add_count("--repeats", 10, "turns of each measurement")
    parser.add_output()
    return parser.parse_args(argv)


def functions(precision, options):
    """{what: function without arguments} of one precision: a training step, and answers to the same batch."""
    simulator = keras_sip.Poisson((options.resolution, options.resolution))
    network = keras_sip.UNet(simulator.y_shape, 1, seed=0)
    model = keras_sip.SIPModel(network, simulator, keras_sip.AnalyticInverse(), precision=precision)
    model.compile(keras.optimizers.Adam(1e-3))
    batch = next(iter(keras_sip.dataset(simulator, options.batch, seed=0)))

    @tf.function(autograph=False)
    def train():
        return model.train_step(batch)

    @tf.function(autograph=False)
    def answer():
        return model(batch[0], training=False)

    return {"train": train, "answer": answer}


if __name__ == "__main__":
    sys.exit(main())
