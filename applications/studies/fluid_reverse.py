"""Study of the reverse simulation on problems whose parameters are known, without a network.

Three tables: what a call takes off the error of the swirl's strength with different gains, down to the solver's own
bias; how near a run forward and back comes to the velocity it started with, by number of time steps; and what solvers
behind the reverse simulation add. Errors of the uniform part (a length), the swirl (its strength, -2 to 2) and the
small scales (mean length of the rest) are given apart, since the uniform part is the data's own formula.
"""

import argparse
import functools
import pathlib
from collections.abc import Sequence

from experiments.startup import add_flag

import numpy as np
import tensorflow as tf

import keras_sip
from experiments.experiment import Experiment
from experiments.runner import writing_to
from keras_sip.errors import check_number, check_positive_int
from keras_sip.files import write_atomically
from keras_sip.ops import staggered

DOMAIN, DURATION = 128.0, 2.0
PAPERS_GAIN = 1e-3
# Factors on the paper's gain, among which the best is chosen.
GAIN_FACTORS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
# A strength that is off by no more is not off.
ROUNDING = 1e-3
# Solvers that go on where two calls of the reverse simulation have come to.
BEHIND = {
    "  then GN, 4 CG": keras_sip.GaussNewton(cg_steps=4),
    "  then GN, 10 CG": keras_sip.GaussNewton(cg_steps=10),
    "  then LM, 8 CG": keras_sip.LevenbergMarquardt(cg_steps=8),
}
PARTS = ("uniform", "swirl", "small")


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Measure, print and write reverse.txt; returns the exit code."""
    options = parse_options(argv)
    with writing_to(options.output) as ended:
        simulator = simulator_with(options.resolution, options.steps)
        sections = [
            f"Reverse simulation, {options.resolution} x {options.resolution} cells, {options.examples} examples",
            *(strength_table(simulator, options.examples, seed, options.spread) for seed in options.seeds),
            retraced_table(simulator, options),
            chain_table(simulator, options.chain_examples, options.seeds[0]),
        ]
        text = "\n\n".join(sections) + "\n"
        write_atomically(options.output / "reverse.txt", text.encode())
        print(text)
    return ended.code


def simulator_with(resolution, steps):
    """The paper's domain and time on another grid."""
    return keras_sip.NavierStokes((resolution,) * 2, spacing=DOMAIN / resolution, dt=DURATION / steps, num_steps=steps)


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="navier_stokes.py --study reverse", description=__doc__)
    add = parser.add_argument
    add("--examples", type=int, default=256, help="of the first two tables (default: %(default)s)")
    add("--chain-examples", type=int, default=32, help="of the last table (default: %(default)s)")
    add("--resolution", type=int, default=64, help="cells along each axis of a domain of 128 (default: %(default)s)")
    add("--steps", type=int, default=8, help="time steps of a run in the first and last table (default: %(default)s)")
    add("--spread", type=float, default=0.3, help="deviation of the strength to correct (default: %(default)s)")
    add("--time-steps", type=int, nargs="+", default=[4, 8, 16, 32], help="forward and back (default: 4 8 16 32)")
    add("--seeds", type=int, nargs="+", default=[1, 2], help="of the examples (default: 1 2)")
    add("--output", type=pathlib.Path, default=pathlib.Path("runs/fluid_reverse"), metavar="FOLDER")
    add_flag(parser)
    options = parser.parse_args(argv)
    try:
        for name in ("examples", "chain_examples", "resolution", "steps"):
            check_positive_int(f"--{name.replace('_', '-')}", getattr(options, name))
        check_number("--spread", options.spread, exclusive=True)
        for steps in options.time_steps:
            check_positive_int("--time-steps", steps)
        for seed in options.seeds:
            check_positive_int("--seeds", seed, minimum=0)
    except ValueError as error:
        parser.error(str(error))
    return options


# One compiled program for each solver, whatever it is called on.
@functools.cache
def compiled(solver, simulator):
    def solve(x, y_target, context):
        return solver.solve(simulator, x, y_target, context).x

    return tf.function(solve, autograph=False, jit_compile=True)


@functools.cache
def examples(simulator, count, seed):
    """(y, context, x) of examples with known parameters."""
    sample = tf.function(lambda seed: simulator.sample(count, seed), autograph=False, jit_compile=True)
    made = sample(tf.constant([0, seed], tf.int64))
    return made["y"], made["context"], made["x"]


def parts_of_error(simulator, x, x_true):
    """Mean errors of the uniform, the swirl and the small-scale part."""
    uniform, strength, rest = simulator.swirl.split(x - x_true)
    return [float(tf.reduce_mean(size)) for size in (length(uniform), tf.abs(strength), length(rest))]


def length(vectors):
    return tf.norm(vectors, axis=-1)


def strength_table(simulator, count, seed, spread):
    """What calls with different gains leave of an error of the strength, and of no knowledge of it at all."""
    y, context, x_true = examples(simulator, count, seed)
    strength = simulator.swirl.strength(x_true)
    noise = tf.constant(np.random.default_rng(seed).normal(size=(count, 1)), strength.dtype)
    off = simulator.swirl.velocity(strength + spread * noise, context)
    unknown, exact = (simulator.swirl.velocity(known * strength, context) for known in (0.0, 1.0))

    def after(x, gain=None):
        return compiled(keras_sip.ReverseSimulation(gain=gain), simulator)(x, y, context)

    papers = after(off, gain=PAPERS_GAIN)
    gain, with_best = best_gain(simulator, off, papers, strength)
    own, of_unknown = after(off), after(unknown)
    twice = after(own)
    starts = {
        f"strength off by {spread:g}": {
            "": off,
            f"gain {PAPERS_GAIN:g} (paper)": papers,
            f"gain {gain:g} (best)": simulator.swirl.velocity(with_best, context),
            "own gain": own,
            "own gain, 2 calls": twice,
            "own gain, 3 calls": after(twice),
        },
        "strength 0": {"": unknown, "own gain": of_unknown, "own gain, 2 calls": after(of_unknown)},
        "truth (bias)": {"": exact, "own gain": after(exact)},
    }
    lines = [_header(f"seed {seed}", [*PARTS, "removed"])]
    for start, results in starts.items():
        before = parts_of_error(simulator, results[""], x_true)[1]
        for call, x in results.items():
            errors = parts_of_error(simulator, x, x_true)
            removed = f"{1 - errors[1] / before:.0%}" if call and before > ROUNDING else ""
            lines.append(_row(f"  {call}" if call else start, errors) + f"{removed:>12}")
    return "\n".join(lines)


def best_gain(simulator, x, after_papers, strength):
    """(of the gains that of least error, the strengths after a call with it): a call is linear in the gain."""
    before = simulator.swirl.strength(x)
    change = simulator.swirl.strength(after_papers) - before
    after = {PAPERS_GAIN * factor: before + factor * change for factor in GAIN_FACTORS}
    return min(after.items(), key=lambda item: float(tf.reduce_mean(tf.abs(item[1] - strength))))


def retraced_table(simulator, options):
    """Relative error of the velocity after a run forward and back, in the same time with more and more steps."""
    _, context, x_true = examples(simulator, options.examples, options.seeds[0])
    lines = [
        "Forward, then back: relative error of the velocity",
        _header("time steps", ["L2", "L1", "largest CFL"]),
    ]
    for steps in options.time_steps:
        finer = simulator_with(options.resolution, steps)
        start, back = tf.function(functools.partial(_retraced, finer), autograph=False)(x_true, context["marker"])
        difference = length(staggered.to_centres(back - start))
        size = length(staggered.to_centres(start))
        squares = tf.sqrt(tf.reduce_mean(difference**2) / tf.reduce_mean(size**2))
        absolute = tf.reduce_mean(difference) / tf.reduce_mean(size)
        cfl = float(tf.reduce_max(tf.abs(start))) * finer.dt / finer.spacing
        lines.append(f"{steps:<20}{float(squares):>12.2%}{float(absolute):>12.2%}{cfl:>12.2f}")
    return "\n".join(lines)


def _retraced(simulator, x, marker):
    """(the first velocity, that at the end of a run back), on the faces."""
    start = simulator.initial_velocity(x)
    last, marker = simulator.run(start, marker)
    back, _ = simulator.run(-last, marker)
    return start, -back


def chain_table(simulator, count, seed):
    """What solvers behind the reverse simulation make of x, all from x = 0."""
    y, context, x_true = examples(simulator, count, seed)
    reverse = compiled(keras_sip.ReverseSimulation(), simulator)
    first = reverse(reverse(tf.zeros_like(x_true), y, context), y, context)
    results = {name: compiled(solver, simulator)(first, y, context) for name, solver in BEHIND.items()}
    lines = [
        f"From x = 0, {count} examples: a solver behind the reverse simulation",
        _header("", ["objective", "x error", *PARTS[1:], "x nearer"]),
    ]
    forward = tf.function(simulator.forward, autograph=False, jit_compile=True)
    error_before = simulator.distance(first, x_true)
    for name, x in {"reverse, 2 calls": first, **results}.items():
        objective = simulator.objective(forward(x, context), y, context)
        error = simulator.distance(x, x_true)
        numbers = [float(tf.reduce_mean(objective)), float(tf.reduce_mean(error))]
        numbers += parts_of_error(simulator, x, x_true)[1:]
        nearer = f"{float(tf.reduce_mean(tf.cast(error < error_before, error.dtype))):.0%}"
        lines.append(_row(name, numbers) + (f"{nearer:>12}" if name in results else ""))
    return "\n".join(lines)


def _header(title, columns):
    return f"{title:20}" + "".join(f"{column:>12}" for column in columns)


def _row(label, numbers):
    return f"{label:20}" + "".join(f"{number:12.4f}" for number in numbers)
