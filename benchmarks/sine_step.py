"""A SIP step with saddle-free Newton on the rotated sine against an Adam step of the same network.

  python benchmarks/sine_step.py
  python benchmarks/sine_step.py --batch 100 --steps 1000 --repeats 15 --output runs/sine_step.json

- loop: `--steps` steps of `SIPModel.train_step`, its metrics included, in one compiled loop on a fixed batch (limit of
  sip over adam: 1.25);
- fit: `SIPModel.fit` on batches drawn on the way, many steps in one execution (limit over loop: 1.5).

Methods: `adam`, back-propagation; `sip`, saddle-free Newton with the paper's limit; both with Adam for the network of
4,354 weights.
"""

import functools
import json
import sys
import time

import keras
import tensorflow as tf

import keras_sip
from _command_line import Parser
from _timing import interleaved, machine, milliseconds, ratio, summary, table

RATIO_LIMIT, FIT_LIMIT = 1.25, 1.5
SIMULATOR = keras_sip.RotatedSine(xi=32.0, phi=45.0)
METHODS = {
    "adam": ("adjoint", None),
    "sip": ("sip", keras_sip.SaddleFreeNewton(max_loss_change=0.2)),
}


def main(argv=None):
    options = parse_options(argv)
    print(machine())
    variants = {
        (way, method): make(method, options)
        for way, make in (("loop", compiled_loop), ("fit", fit))
        for method in METHODS
    }
    clock = time.process_time if options.processor_time else time.perf_counter
    turns = interleaved(variants, options.repeats, clock=clock)
    seconds = {key: turn / options.steps for key, turn in turns.items()}
    rows = [[method, *(milliseconds(seconds[way, method]) for way in ("loop", "fit"))] for method in METHODS]
    ratios = {way: ratio(seconds[way, "sip"], seconds[way, "adam"]) for way in ("loop", "fit")}
    rows.append(["sip / adam, quartiles", *map(str, ratios.values())])
    over_loop = ratio(seconds["fit", "sip"], seconds["loop", "sip"])
    rows.append(["sip, fit / loop", "", str(over_loop)])
    kept = {"loop": ratios["loop"].value <= RATIO_LIMIT, "fit": over_loop.value <= FIT_LIMIT}
    rows.append(
        [
            "limit",
            f"sip / adam {RATIO_LIMIT} {'kept' if kept['loop'] else 'EXCEEDED'}",
            f"fit / loop {FIT_LIMIT} {'kept' if kept['fit'] else 'EXCEEDED'}",
        ]
    )
    print()
    print(table(["ms a step", "loop", "fit"], rows, label_width=24))
    if options.output is not None:
        results = {"machine": machine(), **{f"{way}_{method}": summary(s) for (way, method), s in seconds.items()}}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1))


def parse_options(argv):
    parser = Parser(__doc__)
    parser.add_count("--batch", 100, "examples in a batch")
    parser.add_count("--steps", 1000, "steps of a turn")
    parser.add_count("--steps-per-execution", 250, "of fit")
    parser.add_count("--repeats", 15, "turns of each measurement")
    parser.add_argument(
        "--processor-time", action="store_true", help="what all threads compute, on a machine that others use too"
    )
    parser.add_output()
    return parser.parse_args(argv)


def model(method, **options):
    training, solver = METHODS[method]
    result = keras_sip.SIPModel(keras_sip.MLP(2, 2, seed=0), SIMULATOR, solver, training, x_scale=1.0, input_scale=1.0)
    result.compile(keras.optimizers.Adam(1e-3), **options)
    return result


def compiled_loop(method, options):
    """A function that takes `options.steps` training steps in one compiled loop."""
    trained = model(method, jit_compile=True)
    batch = next(iter(keras_sip.dataset(SIMULATOR, options.batch, seed=0)))

    @tf.function(jit_compile=True, autograph=False)
    def loop():
        def step(done):
            trained.train_step(batch)
            return (done + 1,)

        return tf.while_loop(lambda done: done < options.steps, step, (0,), maximum_iterations=options.steps)

    return loop


def fit(method, options):
    """A function that fits `options.steps` steps on batches drawn on the way."""
    trained = model(method, steps_per_execution=options.steps_per_execution)
    batches = keras_sip.dataset(SIMULATOR, options.batch, seed=0)
    return functools.partial(trained.fit, batches, steps_per_epoch=options.steps, verbose=0)


if __name__ == "__main__":
    sys.exit(main())
