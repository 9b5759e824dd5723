"""Time of a step of the fluid simulation and of its gradient, and of whole training steps against the network's own.

  python benchmarks/fluid.py
  python benchmarks/fluid.py --resolution 64 --batch 64 --repeats 20 --output runs/fluid.json

"advection": of the velocity and the marker; "projection": with its two real FFTs; "rest": the whole step without these.
The gradient is that of the step's sum of squares with respect to the velocity. Each part is a function compiled by
itself, as a TensorFlow graph and under XLA. Growth: time per N log N cells, relative to the coarsest grid.

A training step is `fit` with batches made on the way; `network` is the same network's forward and backward pass alone.
Memory is what a few training steps add to a process after imports and the building of the model; for the updates alone,
by number of time steps, what a few calls of TensorFlow's kernels add: under XLA, compiling adds to it.
"""

import functools
import json
import math
import sys

import tensorflow as tf

import keras_sip
from _command_line import Parser
from _memory import peak_memory
from _timing import interleaved, machine, milliseconds, ratio, summary, table
from keras_sip.ops import advection, staggered

METHODS = {"sip": ("sip", keras_sip.ReverseSimulation()), "adjoint": ("adjoint", None)}
LIMIT = 3.0
# Of a simulation, the paper's.
DURATION = 2.0
# In one call of fit, whose own start takes longer than a step on a small grid, and whose data run three batches ahead.
FIT_STEPS = 30
# Of the U-Net.
LEVELS = 5
KINDS = ("graph", "XLA")


def main(argv=None):
    options = parse_options(argv)
    print(machine())
    results = {"machine": machine(), "steps": {}, "training": {}}
    for batch in options.batch:
        measured = {size: measure_parts(size, batch, options.repeats) for size in options.resolution}
        print(f"\nbatch {batch}\n", parts_table(measured), growth_table(measured), sep="\n")
        results["steps"][batch] = {
            size: {" ".join(part): summary(seconds) for part, seconds in parts.items()}
            for size, parts in measured.items()
        }
    for batch in options.training_batch:
        case = options.training_resolution, batch, options.time_steps
        seconds = measure_training(*case, options.repeats)
        memory = {} if options.skip_memory else {name: peak_memory(prepare_step, name, *case) for name in METHODS}
        print(
            f"\ntraining at {options.training_resolution}, batch {batch}\n", training_table(seconds, memory), sep="\n"
        )
        results["training"][batch] = {"seconds": {n: summary(s) for n, s in seconds.items()}, "memory": memory}
        if not options.skip_memory:
            updates = measure_updates(options.training_resolution, batch, options.memory_steps)
            print("", updates_table(updates), sep="\n")
            results["training"][batch]["updates"] = updates
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1))


def parse_options(argv):
    parser = Parser(__doc__)
    parser.add_count("--resolution", [64, 128, 256], "grids", metavar="CELLS")
    parser.add_count("--batch", [1, 16], "of a simulation step", metavar="SIZE")
    parser.add_count("--training-resolution", 64, "grid of training steps", metavar="CELLS")
    parser.add_count("--training-batch", [64], "batches of training steps", metavar="SIZE")
    parser.add_count("--time-steps", 8, "of a simulation in training", metavar="N")
    parser.add_count("--memory-steps", [4, 8, 16, 32], "in updates alone", metavar="N")
    parser.add_count("--repeats", 10, "turns of each measurement")
    parser.add_argument("--skip-memory", action="store_true", help="measure times only")
    parser.add_output()
    return parser.parse_args(argv)


# A simulation step ----------------------------------------------------------------------------------------------------


def measure_parts(size, batch, repeats):
    """{(part, "forward" or "gradient", "graph" or "XLA"): seconds}."""
    simulator = keras_sip.NavierStokes((size, size))
    velocity = tf.random.stateless_normal((batch, size, size, 2), (0, 1), stddev=5.0)
    marker = tf.random.stateless_uniform((batch, size, size, 1), (0, 2))
    scale = simulator.dt / simulator.spacing

    def advect(velocity):
        displacement = velocity * scale
        return advection.advect_staggered(velocity, displacement), advection.advect_centred(marker, displacement)

    def project(velocity):
        return (staggered.make_divergence_free(velocity, simulator.spacing),)

    def step(velocity):
        velocity = simulator.step(velocity)
        return velocity, advection.advect_centred(marker, velocity * scale)

    functions = {}
    for part, function in {"step": step, "advection": advect, "projection": project}.items():
        for mode, work in {"forward": function, "gradient": _gradient_of(function)}.items():
            for kind in KINDS:
                compiled = tf.function(work, jit_compile=kind == "XLA", autograph=False)
                functions[part, mode, kind] = functools.partial(compiled, velocity)
    return interleaved(functions, repeats)


def _gradient_of(function):
    def gradient(velocity):
        with tf.GradientTape() as tape:
            tape.watch(velocity)
            total = tf.add_n([tf.reduce_sum(tf.square(output)) for output in function(velocity)])
        return tape.gradient(total, velocity)

    return gradient


# A training step ------------------------------------------------------------------------------------------------------


def build_model(name, size, time_steps):
    simulator = keras_sip.NavierStokes((size, size), num_steps=time_steps, dt=DURATION / time_steps)
    network = keras_sip.UNet((size, size, 2), 2, levels=LEVELS, padding="periodic", seed=0)
    method, solver = METHODS[name]
    # Scales given, so that building draws no samples.
    model = keras_sip.SIPModel(network, simulator, solver, method, x_scale=10.0, input_scale=0.3)
    model.compile("adam")
    return model


def prepare_step(name, size, batch, time_steps):
    """A few training steps as `fit` takes them; a function of its own process, for `peak_memory`."""
    model = build_model(name, size, time_steps)
    batches = keras_sip.dataset(model.simulator, batch, seed=0)
    return functools.partial(model.fit, batches, steps_per_epoch=FIT_STEPS, verbose=0)


def measure_training(size, batch, time_steps, repeats):
    """{"network" or method: seconds of a training step}, and the parts of a SIP step: data, physics, solver."""
    model = build_model("sip", size, time_steps)
    simulator, network = model.simulator, model.network
    observation, x = next(iter(keras_sip.dataset(simulator, batch, seed=0)))
    inputs = simulator.network_input(observation)
    y_target, context = observation["y"], observation["context"]

    def forward_backward():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.square(network(inputs, training=True)))
        return tape.gradient(total, network.trainable_variables)

    def compiled(function, *arguments, jit_compile=True):
        return functools.partial(tf.function(function, jit_compile=jit_compile, autograph=False), *arguments)

    variants = {
        "network": compiled(forward_backward, jit_compile=False),
        "data": compiled(lambda step: simulator.sample(batch, tf.stack([step, step])), tf.constant(1)),
        "physics": compiled(simulator.forward, x, context),
        "physics + solver": compiled(model.physics.solve, x / model.x_scale, y_target, context),
        **{name: prepare_step(name, size, batch, time_steps) for name in METHODS},
    }
    seconds = interleaved(variants, repeats)
    return {name: turns / FIT_STEPS if name in METHODS else turns for name, turns in seconds.items()}


# Memory of an update alone --------------------------------------------------------------------------------------------


def prepare_update(name, size, batch, time_steps):
    """A call that makes U of a batch, without a network; a function of its own process, for `peak_memory`."""
    simulator = keras_sip.NavierStokes((size, size), num_steps=time_steps, dt=DURATION / time_steps)
    x = tf.random.stateless_normal((batch, *simulator.x_shape), (0, 1), stddev=5.0)
    marker = tf.random.stateless_uniform((batch, *simulator.y_shape), (0, 2))
    solver = METHODS[name][1]

    def update(x):
        if solver is not None:
            return solver.solve(simulator, x, marker, {"marker": marker}).update
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = simulator.forward(x, {"marker": marker})
        return tape.gradient(y, x, output_gradients=simulator.objective_gradient(y, marker, None))

    return functools.partial(tf.function(update, autograph=False), x)


def measure_updates(size, batch, time_steps):
    """{method: {number of time steps: bytes}}."""
    return {
        name: {steps: peak_memory(prepare_update, name, size, batch, steps) for steps in time_steps} for name in METHODS
    }


# Showing --------------------------------------------------------------------------------------------------------------


def parts_table(measured):
    rows = []
    for size, seconds in measured.items():
        for mode in ("forward", "gradient"):
            for part in ("step", "advection", "projection"):
                graph, xla = (seconds[part, mode, kind] for kind in KINDS)
                label = f"{size} {mode} {part}"
                rows.append([label, milliseconds(graph), milliseconds(xla), str(ratio(xla, graph))])
            rest = [
                (seconds["step", mode, k] - seconds["advection", mode, k] - seconds["projection", mode, k]).clip(0)
                for k in KINDS
            ]
            rows.append([f"{size} {mode} rest", *map(milliseconds, rest)])
    return table(["ms", *KINDS, "XLA / graph"], rows, label_width=32)


def growth_table(measured):
    """Time of a step over N log N, N the cells, in units of the coarsest grid: at most about 1."""
    sizes = list(measured)
    rows = []
    for mode in ("forward", "gradient"):
        for kind in KINDS:
            costs = [
                float(milliseconds(measured[size]["step", mode, kind])) / (size**2 * math.log(size**2))
                for size in sizes
            ]
            rows.append([f"{mode}, {kind}", *(f"{cost / costs[0]:.2f}" for cost in costs)])
    return table(["time / (N log N)", *map(str, sizes)], rows)


def training_table(seconds, memory):
    rows = []
    for name, turns in seconds.items():
        over = ratio(turns, seconds["network"])
        note = ("kept" if over.value <= LIMIT else "EXCEEDED") if name == "sip" else ""
        size = f"{memory[name] / 2**20:.0f}" if name in memory else ""
        rows.append([name, milliseconds(turns), str(over), note, size])
    return table(["training step", "ms", "/ network", f"limit {LIMIT:g}", "peak MiB"], rows, label_width=16)


def updates_table(memory):
    rows = [[name, *(f"{size / 2**20:.0f}" for size in by_steps.values())] for name, by_steps in memory.items()]
    steps = next(iter(memory.values()))
    return table(["an update, peak MiB", *(f"{count} time steps" for count in steps)], rows)


if __name__ == "__main__":
    sys.exit(main())
