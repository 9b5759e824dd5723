"""check_calibration: whether error bars hold the truth as often as they say, and whether there is one answer."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip._on_use import statistics
from keras_sip.data import evaluation_set
from keras_sip.diagnostics.coverage import Coverage, draw_coverage
from keras_sip.diagnostics.findings import Check, Findings, described, examine, failed, note, passed
from keras_sip.errors import check_positive_int, three_part
from keras_sip.simulators.base import split_observation
from keras_sip.solvers.base import InverseSolver
from keras_sip.solvers.problem import half_square

# A share off by more than this, and by more than so many standard errors, is off.
LARGEST_OFFSET = 0.05
STANDARD_ERRORS = 3.0
# Draws that the truth is ranked among: 20 bins of five ranks.
DRAWS = 99
BINS = 20
# Components whose ranks are looked at, evenly spread over x.
MOST_RANKED = 16
# A probability of ranks as uneven as these, below which they are not uniform.
LEAST_PROBABILITY = 1e-3
# For the number of minima: examples, starts from the prior, steps; what is another minimum, in deviations, and how much
# less probable it may be, in units of the negative logarithm.
MINIMA_EXAMPLES, MINIMA_STARTS, MINIMA_STEPS = 8, 8, 30
APART, LESS_PROBABLE = 3.0, 4.5
CHUNK = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationFindings(Findings):
    """What `check_calibration` returns.

    Attributes:
        coverage: {level: share of true components inside their central interval}.
        standard_error: {level: of that share}, from its spread between examples.
        spread: Root mean square of (x - mean) / stddev: 1 where error bars are right, more where they are too small.
        ranks: Rank of the truth among 99 draws, int `[examples, components]`, for up to 16 components.
        rank_probability: Of ranks as uneven as these, were the posterior exact.
        minima: Number of distinct answers found for each of a few examples, int `[8]`.
    """

    coverage: Any = None
    standard_error: Any = None
    spread: Any = None
    ranks: Any = None
    rank_probability: Any = None
    minima: Any = None

    def figure(self):
        """Observed over stated coverage, and the histogram of ranks, which is flat where all is right.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        from keras_sip import plotting

        with plotting.figure(width=6.0, height=2.8) as drawn:
            shares, histogram = drawn.subplots(1, 2)
            draw_coverage(shares, Coverage(self.coverage, self.standard_error, self.spread))
            counts = np.histogram(self.ranks, bins=BINS, range=(-0.5, DRAWS + 0.5))[0]
            histogram.stairs(counts, np.linspace(0, 1, BINS + 1), fill=True, color=plotting.LINE_COLOURS[1])
            histogram.axhline(self.ranks.size / BINS, color="0.4", linewidth=0.8)
            histogram.set(xlabel="rank of the truth among draws", ylabel="count")
        return drawn


def check_calibration(model, examples=256, *, simulator=None, seed=0, print_report=True):
    """Whether the posterior of a model or solver is right on examples whose truth is known.

    - coverage: how often central 50, 80 and 95 % intervals of single components hold the truth;
    - ranks: where the truth is among draws, uniformly if the posterior is right (simulation-based calibration);
    - one answer: whether searches from several samples of the prior end at answers that are far apart and nearly as
      probable; the posterior knows of one of them only.

    Args:
        model: A `SIPModel`; or a `MaximumAPosteriori`, with `simulator`, which then starts at the prior's mean.
        examples: How many to draw from the simulator, as noisy as its `sample` makes them; or (observation, x).
        simulator: For a solver.
        seed: An int, of the examples and draws.
        print_report: Print the report too.

    Returns:
        A `CalibrationFindings`, with `figure()`.

    Source: Talts, Betancourt, Simpson, Vehtari, Gelman, Validating Bayesian inference algorithms with simulation-based
    calibration (2018).
    """
    case = _Case(model, examples, simulator, seed)
    subject = described(case.solver) + f" on {described(case.simulator)}"
    return examine(CalibrationFindings, f"check_calibration: {subject}", CHECKS, case, print_report)


class _Case:
    """What is examined: error bars of examples with their truth, float64 NumPy."""

    def __init__(self, model, examples, simulator, seed):
        # Imported here: models are built on what is diagnosed.
        from keras_sip.solvers.maximum_a_posteriori import posterior_solver

        check_positive_int("seed", seed, minimum=0)
        if isinstance(model, InverseSolver):
            if simulator is None:
                raise ValueError(
                    three_part(
                        "`simulator` beside a solver",
                        f"{described(model)} alone",
                        "Call check_calibration(solver, simulator=simulator), or pass a model.",
                    )
                )
            self.simulator, self.solver, self._model = simulator, posterior_solver(model), None
        else:
            self.simulator, self.solver, self._model = model.simulator, posterior_solver(model.solver), model
        self.solver.check(self.simulator)
        if isinstance(examples, int):
            check_positive_int("examples", examples, minimum=8)
            examples = evaluation_set(self.simulator, examples, seed)
        self.observation, x = examples
        self.seed = seed
        self.shape = tuple(self.simulator.x_shape)
        parts = [self._posterior(index) for index in range(0, len(x), CHUNK)]
        self.x = _rows(x)
        self.mean, self.stddev, self.draws = (np.concatenate(values, axis=-2) for values in zip(*parts, strict=True))

    def part(self, start, count):
        return tf.nest.map_structure(lambda t: t[start : start + count], self.observation)

    def start(self, observation, count):
        """Where the search for the most probable x starts."""
        if self._model is not None:
            return self._model(observation)
        mean = self.solver.prior_of_posterior(self.simulator).mean
        return np.broadcast_to(mean, (count, *self.shape)).astype(self.simulator.dtype)

    def _posterior(self, index):
        observation = self.part(index, CHUNK)
        if self._model is not None:
            posterior = self._model.posterior(observation)
        else:
            y, context = split_observation(observation)
            posterior = self.solver.posterior(self.simulator, self.start(observation, len(y)), y, context)
        mean, stddev, draws = posterior.mean(), posterior.stddev(), posterior.sample(DRAWS, seed=self.seed + 1 + index)
        stddev = stddev + tf.zeros_like(mean)
        return _rows(mean), _rows(stddev), np.stack([_rows(draw) for draw in draws])


def _coverage(case):
    found = Coverage.of(case.x, case.mean, case.stddev)
    off = []
    for level, share in found.shares.items():
        if abs(share - level) > max(LARGEST_OFFSET, STANDARD_ERRORS * found.standard_errors[level]):
            off.append(share - level)
    text = ", ".join(f"{100 * level:.0f} % intervals hold {100 * share:.1f} %" for level, share in found.shares.items())
    text += f"; errors are {found.spread:.2f} times the error bars"
    values = {"coverage": found.shares, "standard_error": found.standard_errors, "spread": found.spread}
    if not off:
        return passed(text, **values)
    if min(off) < 0:
        return failed(text, _TOO_SMALL, **values)
    return note(text, _TOO_LARGE, **values)


_TOO_SMALL = (
    "Error bars are too small. Give the noise of y in context['noise_level'] (without it they are those of a fit to "
    "the last residual); measure the prior on more examples, of what is met in use; look at 'one answer'."
)
_TOO_LARGE = (
    "Error bars are too large. Is the noise level that of `sample`? More components: "
    "GaussianPrior.measured(simulator, components=...)."
)


def _ranks(case):
    size = case.x.shape[1]
    chosen = np.unique(np.linspace(0, size - 1, min(size, MOST_RANKED)).astype(int))
    ranks = np.sum(case.draws[:, :, chosen] < case.x[:, chosen], axis=0)
    # Components of one example are not independent: each is tested by itself, the least probable counts.
    counts = [np.histogram(column, bins=_bins(len(ranks)), range=(-0.5, DRAWS + 0.5))[0] for column in ranks.T]
    probabilities = [statistics.chisquare(column).pvalue for column in counts]
    probability = float(min(1.0, min(probabilities) * len(chosen)))
    text = f"of {len(chosen)} components among {DRAWS} draws: uniform with probability {probability:.2g}"
    values = {"ranks": ranks, "rank_probability": probability}
    if probability >= LEAST_PROBABILITY:
        return passed(text, **values)
    return note(
        text,
        "A histogram that is high at both ends: error bars too small; in the middle: too large; to one side: biased. "
        "See report.figure().",
        **values,
    )


def _bins(examples):
    """So many that five ranks are expected in each."""
    return max(2, min(BINS, examples // 5))


def _one_answer(case):
    count = min(MINIMA_EXAMPLES, len(case.x))
    observation = case.part(0, count)
    minima = distinct_minima(case.solver, case.simulator, observation, case.seed)
    several = int(np.sum(minima > 1))
    text = f"{several} of {count} examples have more than one, from {MINIMA_STARTS} samples of the prior"
    if not several:
        return passed(text, minima=minima)
    return note(
        text + f"; up to {int(np.max(minima))}",
        "The posterior is that of the answer which the network leads to. Where the others matter, start at several: "
        "solver.posterior(simulator, x, y, context) with samples of the prior as x.",
        minima=minima,
    )


def distinct_minima(solver, simulator, observation, seed=0):
    """Number of distinct minima of each example `[B]`, NumPy: searches from samples of the prior.

    Two are distinct where a component differs by more than three standard deviations of the best; a minimum counts
    where it is less probable than the best by a factor of at most e^4.5.

    Args:
        solver: A `MaximumAPosteriori`.
        simulator: The process P.
        observation: y, or {"y", "context"}, `[B, ...]`.
        seed: An int.
    """
    y, context = split_observation(observation)
    count = len(y)
    prior = solver.prior_of(simulator)
    starts = prior.sample(count * MINIMA_STARTS, seed, dtype=simulator.dtype)
    y, context = tf.nest.map_structure(lambda t: tf.repeat(t, MINIMA_STARTS, axis=0), (y, context or {}))
    context = context or None
    result = solver.with_options(max_steps=MINIMA_STEPS, on_failure="zero").solve(simulator, starts, y, context)
    x = _rows(result.x).reshape(count, MINIMA_STARTS, -1)
    value = np.reshape(_negative_logarithm(solver, simulator, prior, result.x, y, context), (count, MINIMA_STARTS))
    value = np.where(np.isfinite(value), value, np.inf)
    best = np.arange(count) * MINIMA_STARTS + np.argmin(value, axis=1)
    at_best = tf.nest.map_structure(lambda t: tf.gather(t, best), (result.x, y, context or {}))
    deviation = solver.posterior(simulator, at_best[0], at_best[1], at_best[2] or None, steps=1).stddev()
    numbers = []
    for found, cost, unit in zip(x, value, _rows(deviation + tf.zeros_like(at_best[0])), strict=True):
        kept = []
        for index in np.argsort(cost):
            apart = [np.max(np.abs(found[index] - other) / unit) > APART for other in kept]
            if cost[index] <= np.min(cost) + LESS_PROBABLE and all(apart):
                kept.append(found[index])
        numbers.append(len(kept))
    return np.array(numbers)


def _negative_logarithm(solver, simulator, prior, x, y_target, context):
    from keras_sip.solvers.problem import InverseProblem
    from keras_sip.solvers.whitened_problem import noise_deviation, squared_norm

    problem = InverseProblem(simulator, simulator.as_y(y_target), simulator.as_context(context))
    residual = problem.residual(x)
    misfit = half_square(tf.cast(residual / noise_deviation(problem, residual, solver.noise), tf.float64))
    return np.asarray(misfit + 0.5 * squared_norm(prior.whiten(x)))


def _rows(tensor):
    """Float64 NumPy `[B, n]`."""
    values = np.asarray(tensor, np.float64)
    return values.reshape(len(values), -1)


CHECKS = [
    Check("coverage", _coverage, "Check that the posterior is finite: solver.posterior(...).stddev()."),
    Check("ranks", _ranks, "Check that samples of the posterior are finite."),
    Check("one answer", _one_answer, "Check that the solver runs from samples of the prior."),
]
