"""One solver for every simulator: training with a measured prior against what knows the problem.

  python benchmarks/generic_solver.py --problems poisson heat --steps 200 --seeds 0 1 2 --output generic.json
  python benchmarks/generic_solver.py --problems darcy --noise 0.05 --methods adjoint supervised generic

Networks, data, optimizer and steps are the same for all methods of a problem. For each run: the mean error in x on a
test set (the simulator's `distance`; `share` is the part of the domain solver's gain over back-propagation that the
generic solver has), the same after `refine`, and the median time of a training step over that of supervised training,
measured in turns at the end. `generic` uses `forward` and `sample` of the simulator and nothing else.
"""

import json
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import keras_sip
from _command_line import Parser
from keras_sip.ops import random_fields

PROBLEMS = {
    "poisson": lambda size: keras_sip.Poisson((size, size)),
    "heat": lambda size: keras_sip.Heat((size, size)),
    "fluid": lambda size: keras_sip.NavierStokes((size, size)),
    "sine": lambda size: keras_sip.RotatedSine(),
    "darcy": lambda size: keras_sip.DarcyFlow((size, size)),
}
DOMAIN = {
    "poisson": lambda: keras_sip.AnalyticInverse(),
    "heat": lambda: keras_sip.DampedSpectralInverse(),
    "fluid": lambda: keras_sip.ReverseSimulation(),
    "sine": lambda: keras_sip.SaddleFreeNewton(max_loss_change=0.2),
}
METHODS = ("adjoint", "supervised", "domain", "generic", "gauss_newton")


def main(arguments):
    parser = Parser(__doc__)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=["poisson"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS[:4]))
    parser.add_count("--size", 32, "cells along an axis")
    parser.add_count("--steps", 200, "training steps")
    parser.add_count("--batch", 16, "examples in a step")
    parser.add_count("--levels", 4, "levels of the U-Net")
    parser.add_count("--filters", 16, "its filters")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--noise", type=float, default=0.0, help="of y, over its standard deviation; its level is known"
    )
    parser.add_argument("--solver", default="{}", help="options of the generic solver, JSON (default: %(default)s)")
    parser.add_argument("--components", type=int, help="of the prior (default: by explained variance)")
    parser.add_count("--refine", 5, "steps of refinement")
    parser.add_count("--examples", 64, "in the test set")
    parser.add_output()
    options = parser.parse_args(arguments)
    rows = []
    for problem in options.problems:
        for seed in options.seeds:
            for method in options.methods:
                if method == "domain" and problem not in DOMAIN:
                    continue
                row = run(problem, method, seed, options)
                rows.append(row)
                print(json.dumps(row), flush=True)
                if options.output:
                    options.output.write_text(json.dumps({"command": arguments, "rows": rows}, indent=1))
    for line in shares(rows):
        print(line)


def run(problem, method, seed, options):
    simulator = PROBLEMS[problem](options.size)
    if options.noise:
        simulator = Noisy(simulator, options.noise)
    keras.utils.set_random_seed(seed)
    solver = solver_of(problem, method, simulator, options)
    name = "sip" if method in ("domain", "generic", "gauss_newton") else method
    model = keras_sip.SIPModel(network(problem, simulator, seed, options), simulator, solver, name)
    model.compile(keras.optimizers.Adam(1e-3))
    data = keras_sip.dataset(simulator, options.batch, seed=seed)
    times = StepTimes()
    history = model.fit(
        data, steps_per_epoch=options.steps, epochs=1, verbose=0, callbacks=[times, keras.callbacks.TerminateOnNaN()]
    )
    observation, x = keras_sip.evaluation_set(simulator, options.examples, seed=17)
    row = {"problem": problem, "method": method, "seed": seed, "step_s": round(times.median(), 4)}
    row["failed"] = round(float(history.history.get("failed", [0.0])[-1]), 4)
    row["x_error"] = error(simulator, model(observation), x)
    if solver is not None:
        started = time.perf_counter()
        result = model.refine(observation, options.refine)
        row["refine_s"] = round(time.perf_counter() - started, 2)
        row["refined"] = error(simulator, result.x, x)
        row["start_refined"] = from_the_mean(simulator, solver, observation, x, options)
    return row


def solver_of(problem, method, simulator, options):
    if method == "domain":
        return DOMAIN[problem]()
    if method == "gauss_newton":
        return keras_sip.GaussNewton(cg_steps=5)
    if method != "generic":
        return None
    extra = json.loads(options.solver)
    if options.components is not None:
        extra["prior"] = keras_sip.GaussianPrior.measured(simulator, components=options.components)
    return keras_sip.MaximumAPosteriori(**extra)


def network(problem, simulator, seed, options):
    if problem == "sine":
        return keras_sip.MLP(2, 2, hidden=(32, 64, 32), seed=seed)
    observation, _ = keras_sip.evaluation_set(simulator, 2, seed=1)
    channels = simulator.network_input(observation).shape[-1]
    periodic = problem in ("heat", "fluid")
    return keras_sip.UNet(
        (*simulator.x_shape[:2], channels),
        simulator.x_shape[-1],
        levels=options.levels,
        filters=options.filters,
        padding="periodic" if periodic else "zero",
        seed=seed,
    )


def error(simulator, x, x_true):
    return float(np.mean(simulator.distance(x, x_true)))


def from_the_mean(simulator, solver, observation, x, options):
    """The solver alone, from the mean of x, as many steps as in refining twice."""
    y, context = keras_sip.split_observation(observation)
    sample = simulator.sample(256, (1, 1))["x"]
    start = np.broadcast_to(np.mean(sample, axis=0), x.shape)
    result = solver.refine(simulator, start, y, context, steps=2 * options.refine)
    return error(simulator, result.x, x)


class Noisy(keras_sip.SimulatorWrapper):
    """White noise of a known level on y."""

    def __init__(self, simulator, noise):
        super().__init__(simulator)
        self.noise = noise
        y = np.asarray(simulator.sample(256, (5, 5))["y"])
        self.level = float(noise * np.std(y))

    def sample(self, batch_size, seed):
        first, second = tf.unstack(random_fields.split_seed(seed, 2))
        sample = self.physical.sample(batch_size, first)
        noise = random_fields.normal([batch_size, *self.y_shape], second, dtype=self.dtype)
        level = np.full(batch_size, self.level, self.dtype)
        context = {**(sample.get("context") or {}), "noise_level": level}
        return {**sample, "y": sample["y"] + self.level * noise, "context": context}


class StepTimes(keras.callbacks.Callback):
    """Of training steps; the first ten, which trace and warm up, are left out."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_begin(self, batch, logs=None):
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter() - self.started)

    def median(self):
        return float(np.median(self.times[10:] or self.times))


def shares(rows):
    """(adjoint - generic) / (adjoint - domain) of errors in x, per problem and seed."""
    for problem in dict.fromkeys(row["problem"] for row in rows):
        for seed in dict.fromkeys(row["seed"] for row in rows):
            found = {row["method"]: row for row in rows if row["problem"] == problem and row["seed"] == seed}
            if {"adjoint", "domain", "generic"} <= set(found):
                gain = found["adjoint"]["x_error"] - found["domain"]["x_error"]
                share = (found["adjoint"]["x_error"] - found["generic"]["x_error"]) / gain
                yield f"{problem}, seed {seed}: {100 * share:.0f} % of the domain solver's gain"


if __name__ == "__main__":
    main(sys.argv[1:])
