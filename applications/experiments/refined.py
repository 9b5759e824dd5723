"""What a solver makes of trained networks' answers: errors before and after, and whether error bars hold the truth."""

import argparse
import json
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

import keras_sip
from experiments import figures
from experiments.run import Run
from keras_sip import plotting
from keras_sip.comparison.statistics import OverSeeds
from keras_sip.comparison.tables import line
from keras_sip.errors import check_positive_int
from keras_sip.simulators.base import split_observation

COVERAGE = 0.9
# Standard deviations to each side of a Gaussian's central interval of this probability.
DEVIATIONS = 1.6448536269514722
BATCH = 64
EXAMPLES_DRAWN = 3
COLUMNS = ("network", "refined", "worse", "stddev", "within 90 %")
MEAN = "prior's mean"
# {label: a row for each seed}.
MEASURED = "refined.json"


def add_refine_option(parser: argparse.ArgumentParser, steps: int = 5) -> None:
    """`--refine`: an option that a resumed run may change, named in the experiment's `free_options`."""
    parser.add_argument(
        "--refine",
        type=int,
        default=steps,
        metavar="STEPS",
        help="of the generic solver after the networks, for refined.txt; 0 leaves them out (default: %(default)s)",
    )


def refining(solver: keras_sip.MaximumAPosteriori) -> Callable:
    """`further_results` of an experiment: refined.txt, and answers_METHOD.png with a column or band of error bars.

    Args:
        solver: Refines the answers of every method alike, and gives the error bars; the first row is what it finds
            without a network.
    """

    def write(run: Run, models: Mapping[str, keras.Model]) -> None:
        if not run.options.refine:
            return
        steps = check_positive_int("--refine", run.options.refine)
        refine = Refinement(run.simulator, solver, steps)
        observation, x_true = run.evaluation
        mean = np.broadcast_to(solver.prior_of(run.simulator).mean, x_true.shape)
        rows = {MEAN: [refine.measured(observation, mean, x_true)[0]]}
        shown = {}
        for method, label in run.labels.items():
            measured = [
                refine.measured(observation, run.trained_model(method, seed)(observation, training=False), x_true)
                for seed in run.folder.metrics.seeds(method)
                if run.folder.checkpoint_step(method, seed)
            ]
            rows[label] = [row for row, _ in measured]
            if measured:
                shown[method] = measured[0][1]
        text = f"{run.heading}\n{refined_table(rows, steps)}"
        run.folder.write_text("refined.txt", text)
        run.folder.write_text(MEASURED, json.dumps(rows, indent=1) + "\n")
        print(f"\n{text}")
        if figures.available():
            y_shown, x_shown = run.shown_examples(EXAMPLES_DRAWN)
            y_target, _ = split_observation(y_shown)
            for method, (x, y, stddev) in shown.items():
                drawn = plotting.answers(y_target, x, y, x_shown, stddev=stddev)
                figures.save(drawn, run.folder.path / f"answers_{method}.png")

    return write


class Refinement:
    """Some steps of a solver from given answers, and the error bars there.

    Args:
        simulator: The process.
        solver: A solver with `refine` and `posterior`.
        steps: At most.
    """

    def __init__(self, simulator: keras_sip.Simulator, solver: keras_sip.MaximumAPosteriori, steps: int):
        self.simulator, self.solver, self.steps = simulator, solver, steps
        # As a graph: thousands of small operations, slow one by one.
        self._compiled = tf.function(self._refined, reduce_retracing=True, autograph=False)

    def __call__(self, observation, x):
        """(y of x, x refined, y refined, standard deviations of the refined x), NumPy."""
        together = tf.data.Dataset.from_tensor_slices((observation, x)).batch(BATCH)
        parts = [self._compiled(*batch) for batch in together]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def measured(self, observation, x, x_true) -> tuple[dict[str, float], tuple]:
        """A row of `refined_table`; x, y and standard deviations of the first refined answers, to be drawn."""
        x = self.simulator.as_x(x)
        y, x_refined, y_refined, stddev = self(observation, x)
        y_target, context = split_observation(observation)
        before, after = (self.simulator.objective(each, y_target, context).numpy() for each in (y, y_refined))
        error, error_refined = (np.mean(self.simulator.distance(each, x_true)) for each in (x, x_refined))
        within = np.abs(np.asarray(x_true) - x_refined) <= DEVIATIONS * stddev
        # Rounding alone raises no objective that is seen.
        worse = np.mean(after > 1.001 * before)
        values = (error, error_refined, worse, np.mean(stddev), np.mean(within))
        row = dict(zip(COLUMNS, map(float, values), strict=True))
        return row, tuple(each[:EXAMPLES_DRAWN] for each in (x_refined, y_refined, stddev))

    def _refined(self, observation, x):
        y_target, context = split_observation(observation)
        result = self.solver.refine(self.simulator, x, y_target, context, steps=self.steps)
        posterior = self.solver.posterior(self.simulator, result.x, y_target, context, steps=0)
        stddev = posterior.stddev() + tf.zeros_like(result.x)
        return self.simulator.forward(x, context), result.x, result.y, stddev


def refined_table(rows: Mapping[str, list[dict[str, float]]], steps: int) -> str:
    """Errors in x of each method's networks and after refining them, over seeds, and what error bars are worth."""
    lines = [
        f"error in x of the network, and after {steps} steps of the generic solver; share of examples whose",
        f"objective rose; mean standard deviation, and share of true components within {COVERAGE:.0%} intervals",
        "",
        line("", COLUMNS, width=12),
    ]
    for label, measured in rows.items():
        if not measured:
            continue
        numbers = {name: OverSeeds.of([row[name] for row in measured]) for name in COLUMNS}
        lines.append(line(label, [f"{number.mean:.4g}" for number in numbers.values()], width=12))
        if len(measured) > 1:
            spread = [f"{(number.high - number.low) / 2:.2g}" for number in numbers.values()]
            lines.append(line("  +-", spread, width=12))
    return "\n".join(lines) + "\n"
