"""Study of inverse solvers on single problems, without a network: error in x and y over iterations, from zero.

Gradient descent and L-BFGS see the physics through its gradient; the inverses invert it mode by mode, once or again and
again from where they have come. With --noise the observations are measured, and the inverses told how badly.
"""

import argparse
import csv
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.startup import add_flag

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import keras_sip
from experiments import figures
from experiments.experiment import Experiment
from experiments.runner import writing_to
from keras_sip.errors import check_number, check_positive_int
from keras_sip.files import write_atomically, writing
from keras_sip.ops import batched

# L-BFGS stops nowhere by itself: its tolerances are absolute, and objectives become as small as their rounding.
LBFGS_TOLERANCE = 1e-30


class Problem(NamedTuple):
    """Observations to be explained, and what explains them."""

    simulator: keras_sip.Simulator
    y_target: tf.Tensor
    context: dict | None
    x_true: tf.Tensor


class Run(NamedTuple):
    """One solver: `start(problem) -> advance`, where `advance(x, steps)` takes some more iterations from x."""

    label: str
    iterations: int
    start: Callable


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Solve, then write solvers.csv, table.txt and the figures; returns the exit code."""
    options = parse_options(argv)
    problem = make_problem(options)
    with writing_to(options.output) as ended:
        results, solutions = {}, {}
        for name, run in runs(options).items():
            results[name], solutions[run.label] = trajectory(problem, run)
            last = results[name][-1]
            print(
                f"{run.label}: error in x {np.mean(last['x_error']):.4g} at iteration {last['iteration']}", flush=True
            )
        write_csv(results, options.output / "solvers.csv")
        text = table(results, options)
        write_atomically(options.output / "table.txt", text.encode())
        print(f"\n{text}")
        if figures.available():
            figures.save(figure(results, options), options.output / "solvers.png")
            picture = figures.reconstructions(problem.y_target, problem.x_true, solutions)
            figures.save(picture, options.output / "solutions.png")
    return ended.code


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="heat.py --study solvers", description=__doc__)
    add = parser.add_argument
    add("--problems", type=int, default=3, help="problems, each solved by itself (default: %(default)s)")
    add("--resolution", type=int, default=64, help="cells along each axis (default: %(default)s)")
    add("--steps", type=int, default=1000, help="steps of gradient descent and L-BFGS (default: %(default)s)")
    add("--inverses", type=int, default=100, help="times that an inverse is repeated (default: %(default)s)")
    add("--noise", type=float, default=0.0, help="standard deviation of measurement noise (default: none)")
    add("--seed", type=int, default=0)
    add("--output", type=pathlib.Path, default=pathlib.Path("runs/heat_solvers"), metavar="FOLDER")
    add_flag(parser)
    options = parser.parse_args(argv)
    try:
        for name in ("problems", "resolution", "steps", "inverses"):
            check_positive_int(f"--{name}", getattr(options, name))
        check_number("--noise", options.noise)
    except ValueError as error:
        parser.error(str(error))
    return options


def make_problem(options):
    simulator = keras_sip.Heat((options.resolution,) * 2)
    y_target, x_true = keras_sip.evaluation_set(simulator, options.problems, options.seed)
    if options.noise == 0:
        return Problem(simulator, y_target, None, x_true)
    y_target += options.noise * np.random.default_rng(options.seed).standard_normal(y_target.shape)
    level = tf.fill([options.problems], tf.constant(options.noise, y_target.dtype))
    return Problem(simulator, y_target, {"noise_level": level}, x_true)


def runs(options):
    """The solvers by name. S of the Wiener inverse is the mean spectrum of other examples."""
    simulator = keras_sip.Heat((options.resolution,) * 2)
    examples = simulator.sample(256, (options.seed, 1))["x"]
    damped, wiener = keras_sip.DampedSpectralInverse(), keras_sip.WienerInverse.measured(simulator, examples)
    return {
        "gradient_descent": Run("gradient descent", options.steps, repeated(keras_sip.GradientDescent(step_size=1.0))),
        "lbfgs": Run("L-BFGS", options.steps, lbfgs),
        "gauss_newton": Run("Gauss-Newton, 20 CG", options.inverses, repeated(keras_sip.GaussNewton(cg_tolerance=0.0))),
        "damped": Run("damped inverse", options.inverses, repeated(damped)),
        "wiener": Run("Wiener inverse", options.inverses, repeated(wiener)),
    }


def repeated(solver):
    """A solver that is called anew from each x."""

    def start(problem):
        @tf.function(autograph=False)
        def step(x):
            return solver.solve(problem.simulator, x, problem.y_target, problem.context).x

        def advance(x, steps):
            for _ in range(steps):
                x = step(x)
            return x

        return advance

    return start


def lbfgs(problem):
    """TensorFlow Probability's L-BFGS on each problem's objective; its memory outlasts the pauses."""
    memory = None

    def value_and_gradient(flat):
        x = tf.reshape(flat, [-1, *problem.simulator.x_shape])
        value, gradient = tfp.math.value_and_gradient(
            lambda x: problem.simulator.objective(problem.simulator.forward(x), problem.y_target), x
        )
        return value, tf.reshape(gradient, flat.shape)

    @tf.function(autograph=False, reduce_retracing=True)
    def minimize(flat, steps, memory):
        return tfp.optimizer.lbfgs_minimize(
            value_and_gradient,
            initial_position=None if memory is not None else flat,
            previous_optimizer_results=memory,
            max_iterations=steps if memory is None else memory.num_iterations + steps,
            tolerance=LBFGS_TOLERANCE,
        )

    def advance(x, steps):
        nonlocal memory
        memory = minimize(tf.reshape(x, [len(x), -1]), tf.constant(steps), memory)
        return tf.reshape(memory.position, x.shape)

    return advance


def trajectory(problem, run):
    """(rows of iteration and errors `[problems]`, the last x), measured some twelve times a decade."""
    schedule = sorted({int(step) for step in np.geomspace(1, run.iterations, 1 + int(12 * np.log10(run.iterations)))})
    advance = run.start(problem)
    x = tf.zeros_like(problem.x_true)
    rows = [measure(problem, x, 0)]
    for iteration in schedule:
        x = advance(x, iteration - rows[-1]["iteration"])
        rows.append(measure(problem, x, iteration))
    return rows, x.numpy()


def measure(problem, x, iteration):
    y = problem.simulator.forward(x)
    return {
        "iteration": iteration,
        "x_error": problem.simulator.distance(x, problem.x_true).numpy(),
        "y_error": (batched.norm(y - problem.y_target) / batched.norm(problem.y_target)).numpy(),
    }


def table(results, options):
    """Mean over problems of the error in x and of the relative error in y."""
    labels = runs(options)
    lines = [
        f"Heat, {options.resolution} x {options.resolution} cells, {options.problems} problems from zero, "
        f"noise {options.noise:g}",
        "",
        f"{'':22}{'iterations':>12}{'error in x':>14}{'best':>12}{'|y - y*|/|y*|':>16}",
    ]
    for name, rows in results.items():
        errors = [np.mean(row["x_error"]) for row in rows]
        lines.append(
            f"{labels[name].label:22}{rows[-1]['iteration']:12d}{errors[-1]:14.4g}{min(errors):12.4g}"
            f"{np.mean(rows[-1]['y_error']):16.2e}"
        )
    return "\n".join(lines) + "\n"


def write_csv(results, path):
    with writing(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["solver", "problem", "iteration", "x_error", "y_error"])
        for name, rows in results.items():
            for row in rows:
                for problem, errors in enumerate(zip(row["x_error"], row["y_error"], strict=True)):
                    writer.writerow([name, problem, row["iteration"], *(f"{error:.9g}" for error in errors)])


def figure(results, options):
    """Errors in x and in y over iterations, in bands over the problems."""
    panels = {
        title: {
            name: ([row["iteration"] for row in rows[1:]], [row[column] for row in rows[1:]])
            for name, rows in results.items()
        }
        for title, column in (("error in x (mean per cell)", "x_error"), ("error in y (relative)", "y_error"))
    }
    return figures.panels_of_curves(
        panels,
        {name: run.label for name, run in runs(options).items()},
        figures.colours(results),
        title=f"Heat: inverse solvers on {options.problems} single problems, noise {options.noise:g}",
        x_label="iteration",
        y_label="",
        share_y=False,
    )
