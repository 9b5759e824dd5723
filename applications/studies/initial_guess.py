"""Where iterative solvers start, and what a network gives them to start from.

Solvers are run on the evaluation set from the neighbourhood of the truth, from x of other examples, from the mean, and
from the answers of trained networks. Writes initial_guess.txt and initial_guess.png beside what the runner writes: the
error in x over iterations, and the share of the examples that are found. A solver never makes an objective worse: where
it starts far off it may end where it began.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

import keras_sip
from experiments import figures
from experiments.experiment import Experiment
from experiments.run import Run
from experiments.runner import main
from keras_sip import plotting
from keras_sip.comparison.tables import line
from keras_sip.errors import check_positive_int
from keras_sip.simulators.base import split_observation

NEAR, OTHER, MEAN = "truth + 10 %", "another x", "mean"
# Of the error of another example's x: what is nearer to the truth has found it.
FOUND = 0.05
SEED = (0, 17)
STEPS = (0, 1, 2, 5, 10, 20, 50, 100)


def study(solvers: Mapping[str, keras_sip.InverseSolver]) -> Callable:
    """`(experiment, argv) -> exit code` of the study with `{label: solver}`; networks are trained by the runner."""

    def run(experiment: Experiment, argv: Sequence[str] | None) -> int:
        extended = dataclasses.replace(
            experiment,
            name=f"{experiment.name}_initial_guess",
            description=__doc__,
            add_options=lambda parser: _add_options(experiment, parser),
            free_options=(*experiment.free_options, "iterations", "guesses"),
            further_results=functools.partial(_write_all, experiment.further_results, solvers),
        )
        return main(extended, argv, program=f"{experiment.name}.py --study initial_guess")

    return run


def _add_options(experiment, parser):
    if experiment.add_options is not None:
        experiment.add_options(parser)
    add = parser.add_argument
    add("--iterations", type=int, default=50, help="of the solvers at most (default: %(default)s)")
    add("--guesses", type=int, default=64, help="examples to solve, of the evaluation set (default: %(default)s)")


def _write_all(of_experiment, solvers, run, models):
    if of_experiment is not None:
        of_experiment(run, models)
    _write(run, models, solvers)


def _write(run: Run, models, solvers) -> None:
    iterations = check_positive_int("--iterations", run.options.iterations)
    steps = [step for step in STEPS if step < iterations] + [iterations]
    observation, x_true = run.shown_examples(check_positive_int("--guesses", run.options.guesses))
    starts = initial_guesses(run.simulator, x_true)
    starts |= {run.labels[method]: model(observation, training=False) for method, model in models.items()}
    scale = float(np.mean(run.simulator.distance(starts[OTHER], x_true)))
    errors = {}
    for name, solver in solvers.items():
        path = errors_along(run.simulator, solver, observation, x_true)
        errors |= {(name, start): np.stack([path(x, step) for step in steps]) for start, x in starts.items()}
    text = f"{run.heading}\n{table(errors, steps, scale)}"
    run.folder.write_text("initial_guess.txt", text)
    print(f"\n{text}")
    if figures.available():
        figures.save(figure(errors, steps, run.heading), run.folder.path / "initial_guess.png")


def initial_guesses(simulator: keras_sip.Simulator, x_true: tf.Tensor) -> dict[str, tf.Tensor]:
    """{name: x0}: near the truth (a tenth of the way to other examples), x of other examples, and their mean."""
    other = simulator.sample(len(x_true), SEED)["x"]
    mean = tf.reduce_mean(simulator.sample(256, (0, 18))["x"], axis=0, keepdims=True)
    return {NEAR: x_true + 0.1 * (other - mean), OTHER: other, MEAN: mean + tf.zeros_like(x_true)}


def errors_along(simulator, solver, observation, x_true) -> Callable:
    """`(x0, steps) -> errors in x [N]` of a solver; one program for all starts and numbers of steps."""
    y_target, context = split_observation(observation)

    @tf.function(reduce_retracing=True, autograph=False)
    def after(x, steps):
        return simulator.distance(solver.refine(simulator, x, y_target, context, steps=steps).x, x_true)

    def errors(x, steps):
        # Told to take no step, a solver may still move x into its prior.
        return (after(simulator.as_x(x), tf.constant(steps)) if steps else simulator.distance(x, x_true)).numpy()

    return errors


def table(errors: Mapping[tuple[str, str], np.ndarray], steps: Sequence[int], scale: float) -> str:
    """Mean errors over iterations, and the share found, of {(solver, start): errors `[steps, N]`}."""
    shown = [step for step in (0, 1, 5, 20) if step < steps[-1]] + [steps[-1]]
    lines = [
        "mean error in x after iterations of a solver, by where it starts; found: share of the examples nearer to",
        f"the truth than {FOUND:g} of the distance of two examples, {scale:.4g}",
    ]
    for solver in dict.fromkeys(name for name, _ in errors):
        lines += ["", line(solver, [*map(str, shown), "found"])]
        for (name, start), values in errors.items():
            if name == solver:
                cells = [f"{np.mean(values[steps.index(step)]):.4g}" for step in shown]
                lines.append(line(f"  {start}", [*cells, f"{np.mean(values[-1] < FOUND * scale):.0%}"]))
    return "\n".join(lines) + "\n"


def figure(errors: Mapping[tuple[str, str], np.ndarray], steps: Sequence[int], title: str):
    """A panel for each solver: mean error in x over iterations (0 at the left edge), a line for each start."""
    solvers = list(dict.fromkeys(name for name, _ in errors))
    starts = list(dict.fromkeys(start for _, start in errors))
    colours = dict(zip(starts, figures.COLOURS, strict=False))
    with plotting.figure(width=1.0 + 2.8 * len(solvers), height=3.4) as drawn:
        drawn.suptitle(title, x=0.02, ha="left", fontsize=10)
        for axes, solver in zip(drawn.subplots(1, len(solvers), squeeze=False, sharey=True)[0], solvers, strict=True):
            for start in starts:
                values = errors[solver, start].mean(axis=1)
                dashed = start in (NEAR, OTHER, MEAN)
                axes.plot(
                    steps, values, color=colours[start], linestyle="--" if dashed else "-", label=start, linewidth=1.4
                )
            axes.set(title=solver, xlabel="iterations", yscale="log")
            axes.set_xscale("symlog", linthresh=1.0)
            axes.grid(which="major", color="0.9", linewidth=0.6)
        drawn.axes[0].set_ylabel("error in x")
        handles, names = drawn.axes[0].get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6))
    return drawn
