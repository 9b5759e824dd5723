"""What `SIPTensorBoard` costs: training time with it over training time without, on Poisson's equation.

  python benchmarks/tensorboard_cost.py
  python benchmarks/tensorboard_cost.py --steps 1000 --batch 32 --repeats 5 --output runs/tensorboard_cost.json
  python benchmarks/tensorboard_cost.py --clock processor    # on a machine that also does other things

Each turn is one fit of so many steps, with and without the callback by turns, at the callback's defaults with an
evaluation set of 256 examples. Its first and last evaluation are part of every fit, those between keep to `max_share`;
so the fewer steps, the larger the share. Compiling is left out: a short fit of each goes before and is not counted.

Two fits of a minute differ by more than the limit allows, whatever the callback does. So the limit is judged within one
fit: its time over its time less what it spent in the callback's functions, where the callback does all its work.
"""

import functools
import json
import sys
import tempfile
import time

import numpy as np

import keras_sip
from _command_line import Parser
from _problem import Problem
from _timing import interleaved, machine, ratio, summary, table

LIMIT = 1.03
EVALUATION_EXAMPLES = 256
WARM_UP_STEPS = 2
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def main(argv=None):
    options = parse_options(argv)
    problem = Problem(resolution=options.resolution, batch=options.batch, levels=options.levels)
    print(f"{machine()}\nPoisson {problem.resolution} x {problem.resolution}, batch {problem.batch}\n")
    with tempfile.TemporaryDirectory() as folder:
        seconds, inside = measure(problem, options.steps, options.repeats, folder, CLOCKS[options.clock])
    cost = ratio(seconds["with"], seconds["with"] - inside)
    print(cost_table(seconds, cost, options.steps))
    print(f"\n{options.clock} time")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        numbers = {name: summary(values) for name, values in seconds.items()}
        options.output.write_text(
            json.dumps(
                {
                    "machine": machine(),
                    "clock": options.clock,
                    "fit": numbers,
                    "inside": summary(inside),
                    "ratio": cost._asdict(),
                },
                indent=1,
            )
        )


class TimedTensorBoard(keras_sip.callbacks.SIPTensorBoard):
    """`SIPTensorBoard` that knows what each fit has spent in it: `seconds`, one number a fit."""

    def __init__(self, *arguments, clock, **options):
        super().__init__(*arguments, **options)
        self._clock, self.seconds = clock, []

    def on_train_begin(self, logs=None):
        self.seconds.append(0.0)
        self._timed(super().on_train_begin, logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._timed(super().on_epoch_begin, epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        self._timed(super().on_train_batch_begin, batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self._timed(super().on_train_batch_end, batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._timed(super().on_epoch_end, epoch, logs)

    def on_train_end(self, logs=None):
        self._timed(super().on_train_end, logs)

    def _timed(self, function, *arguments):
        began = self._clock()
        function(*arguments)
        self.seconds[-1] += self._clock() - began


def measure(problem, steps, repeats, folder, clock=time.perf_counter):
    """({"with", "without": seconds of a fit by `clock`}, those spent in the callback); each has its own model."""
    evaluation = keras_sip.evaluation_set(problem.simulator(), EVALUATION_EXAMPLES, seed=1)
    timed = TimedTensorBoard(folder, evaluation, clock=clock)
    callbacks = {"without": [], "with": [timed]}
    fits = {
        name: functools.partial(problem.model("sip").fit, problem.data(), verbose=0, callbacks=used)
        for name, used in callbacks.items()
    }
    for fit in fits.values():
        fit(steps_per_epoch=WARM_UP_STEPS)
    fits = {name: functools.partial(fit, steps_per_epoch=steps) for name, fit in fits.items()}
    seconds = interleaved(fits, repeats, warm_up=False, clock=clock)
    return seconds, np.array(timed.seconds[-repeats:])


def cost_table(seconds, cost, steps):
    rows = [[name, f"{1e3 * summary(values)['median'] / steps:.2f}"] for name, values in seconds.items()]
    rows.append(["with / without", str(ratio(seconds["with"], seconds["without"]))])
    rows.append(["with / with, less its functions", f"{cost.value:.3f} {cost.low:.3f}-{cost.high:.3f}"])
    rows.append([f"limit {LIMIT:.2f}", "kept" if cost.value <= LIMIT else "EXCEEDED"])
    return table([f"ms a step, {steps} steps", "SIPTensorBoard"], rows, label_width=32)


def parse_options(argv):
    parser = Parser(__doc__)
    parser.add_count("--steps", 600, "training steps of a fit")
    parser.add_count("--batch", 128, "examples in a batch")
    parser.add_count("--resolution", 64, "cells along each axis")
    parser.add_count("--levels", 4, "resolutions of the U-Net")
    parser.add_count("--repeats", 3, "fits of each")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="processor: the seconds of all threads (default: %(default)s)"
    )
    parser.add_output()
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
