"""Inference: examples per second of `predict`, the exported SavedModel and ONNX Runtime, by batch size.

  python benchmarks/inference.py
  python benchmarks/inference.py --batch 1 64 --repeats 50 --output runs/inference.json

One U-Net on Poisson's equation, answered by turns: `predict` of Keras; `predict_on_batch`; the signature `infer` of
`model.export`, as a graph and with `jit_compile=True`; the LiteRT export, on all cores; the ONNX export in ONNX
Runtime, at its default number of threads (needs the extra `onnx`). Where a SavedModel's time goes, two more tell: the
network alone, in a graph, as it is trained and as it is exported, with batch norm in the weights. The first calls,
which compile, are not counted. Weights are those of the initialiser: they do not change the time.
"""

import functools
import importlib.util
import json
import os
import pathlib
import sys
import tempfile

import tensorflow as tf

from _command_line import Parser
from _problem import Problem
from _timing import interleaved, machine, ratio, summary, table
from keras_sip.serving.inference_network import inference_network

SAVED_MODEL, ONNX = "SavedModel", "ONNX Runtime"
# The exported SavedModel's throughput over ONNX Runtime's, at batch 64.
LIMIT = 0.8
LITERT, TRAINED, FOLDED = "LiteRT", "network, as trained", "network, as exported"
# A single call's time over ONNX Runtime's.
SINGLE = 1.3


def main(argv=None):
    options = parse_options(argv)
    problem = Problem(resolution=options.resolution, batch=max(options.batch), levels=options.levels)
    print(f"{machine()}\nPoisson {problem.resolution} x {problem.resolution}, examples per second\n")
    results = {"machine": machine(), "batches": {}}
    with tempfile.TemporaryDirectory() as folder:
        ways = exported_ways(problem, pathlib.Path(folder))
        seconds = {batch: measure(problem, ways, batch, options.repeats) for batch in options.batch}
    print(rates_table(seconds))
    if ONNX in ways:
        print("", ratios_table(seconds), "", times_table(seconds), sep="\n")
    results["batches"] = {batch: {way: summary(s) for way, s in by.items()} for batch, by in seconds.items()}
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1))


def exported_ways(problem, folder):
    """{name: function of y `[B, ...]` as a NumPy array} that returns x."""
    model = problem.model("sip")
    model.export(folder / "graph")
    model.export(folder / "xla", jit_compile=True)
    graph, xla = (tf.saved_model.load(str(folder / name)).signatures["infer"] for name in ("graph", "xla"))
    ways = {
        "predict": lambda y: model.predict(y, batch_size=len(y), verbose=0),
        "predict_on_batch": model.predict_on_batch,
        SAVED_MODEL: lambda y: graph(y=tf.constant(y))["x"].numpy(),
        f"{SAVED_MODEL}, XLA": lambda y: xla(y=tf.constant(y))["x"].numpy(),
        TRAINED: network_alone(model.network),
        FOLDED: network_alone(inference_network(model.network)),
        LITERT: in_litert(model, folder / "model.tflite"),
    }
    if importlib.util.find_spec("onnxruntime") is None:
        print(f'Without {ONNX}: pip install ".[onnx]"\n')
        return ways
    runtime = importlib.import_module("onnxruntime")
    model.export(folder / "model.onnx", format="onnx")
    session = runtime.InferenceSession(folder / "model.onnx")
    return {**ways, ONNX: lambda y: session.run(["x"], {"y": y})[0]}


def network_alone(network):
    """The network as a graph, without input scale, checks and flags."""
    spec = tf.TensorSpec((None, *network.input_shape[1:]), network.inputs[0].dtype)
    function = tf.function(lambda y: network(y, training=False)).get_concrete_function(spec)
    return lambda y: function(tf.constant(y)).numpy()


def in_litert(model, path):
    model.export(path, format="litert")
    interpreter = tf.lite.Interpreter(str(path), num_threads=os.cpu_count())
    infer = interpreter.get_signature_runner("infer")
    return lambda y: infer(y=y)["x"]


def measure(problem, ways, batch, repeats):
    """{way: seconds of a call on a batch}."""
    y = problem.simulator().sample(batch, (0, 0))["y"].numpy()
    return interleaved({name: functools.partial(way, y) for name, way in ways.items()}, repeats)


def rates_table(seconds):
    ways = next(iter(seconds.values()))
    rows = [[way, *(f"{batch / summary(by[way])['median']:.0f}" for batch, by in seconds.items())] for way in ways]
    return table(["batch", *map(str, seconds)], rows, label_width=24)


def ratios_table(seconds):
    """Throughput of the SavedModel over ONNX Runtime's: its time is the denominator."""
    ratios = {batch: ratio(by[ONNX], by[SAVED_MODEL]) for batch, by in seconds.items()}
    rows = [["SavedModel / ONNX", *(f"{r.value:.2f}" for r in ratios.values())]]
    rows.append(["  quartiles", *(f"{r.low:.2f}-{r.high:.2f}" for r in ratios.values())])
    kept = ["kept" if r.value >= LIMIT else "MISSED" if batch == 64 else "below" for batch, r in ratios.items()]
    rows.append([f"  at least {LIMIT:.2f} at 64", *kept])
    return table(["throughput", *map(str, seconds)], rows, label_width=24)


def times_table(seconds):
    """Times of a call over ONNX Runtime's."""
    rows = []
    for way in (SAVED_MODEL, TRAINED, FOLDED, LITERT):
        ratios = {batch: ratio(by[way], by[ONNX]) for batch, by in seconds.items()}
        rows.append([way, *map(str, ratios.values())])
        if way in (SAVED_MODEL, LITERT):
            kept = [("kept" if r.value <= SINGLE else "above") if batch == 1 else "" for batch, r in ratios.items()]
            rows.append([f"  at most {SINGLE:.1f} at 1", *kept])
    return table([f"time / {ONNX}", *map(str, seconds)], rows, label_width=24)


def parse_options(argv):
    parser = Parser(__doc__)
    parser.add_count("--batch", [1, 8, 64, 256], "batch sizes", metavar="SIZE")
    parser.add_count("--resolution", 64, "cells along each axis")
    parser.add_count("--levels", 4, "resolutions of the U-Net")
    parser.add_count("--repeats", 20, "turns of each measurement")
    parser.add_output()
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
