"""Solvers against SciPy's on NIST's regression sets and the problems of Moré, Garbow and Hillstrom.

  python benchmarks/nist.py
  python benchmarks/nist.py --collections nist --solvers levenberg_marquardt --dtypes float64 --way xla

Two tables for each collection and precision. The first starts where the collections say: NIST's two starts, and 1, 10
and 100 times the start of Moré and others.

  solved      6 digits of NIST's certified parameters (4 in float32); for the other problems a known minimum of the
              sum of squares (see least_squares_problems.py)
  said        how many said CONVERGED (SciPy: a status above 0)
  refuted     of those, the ones with fewer than 4 digits, or no known minimum, at a point where a first-order test in
              float64 finds a way down that the precision at hand can see
  not said    solved without a word of it
  steps       median; SciPy's are evaluations of the residual

The second is NIST's alone: starts 30 % off, in one batch, against SciPy one after the other with complex-step
Jacobians, exact to rounding. Solved is in any order of equal terms, as peaks and exponentials are. Times are medians of
interleaved turns on one machine; compilation is not counted.

SciPy runs in float64 with x_scale="jac", MINPACK's own, and tolerances of 1e-15, as keras_sip does in float64.
"""

import functools
import json
import sys
import warnings
from typing import NamedTuple

import numpy as np
import scipy.optimize
import tensorflow as tf

import keras_sip
from _command_line import Parser
from _timing import interleaved, machine, ratio, summary, table
from least_squares_problems import more_problems, nist_problems

COLLECTIONS = {"nist": nist_problems, "more": more_problems}
SOLVERS = {
    "levenberg_marquardt": lambda **options: keras_sip.LevenbergMarquardt(**options),
    "gauss_newton": lambda **options: keras_sip.GaussNewton(**options),
    "gauss_newton_searched": lambda **options: keras_sip.LineSearch(keras_sip.GaussNewton(**options)),
    "newton": lambda **options: keras_sip.Newton(**options),
    "saddle_free_searched": lambda **options: keras_sip.LineSearch(keras_sip.SaddleFreeNewton(**options)),
    "lbfgs": lambda **options: keras_sip.LBFGS(**options),
    "bfgs": lambda **options: keras_sip.LBFGS(full_matrix=True, **options),
}
SCIPY = ("lm", "trf")
# Some roundings: SciPy takes no less than one.
TOLERANCES = {"float64": 1e-15, "float32": 1e-7}
DIGITS = {"float64": 6, "float32": 4}
# With this many digits a CONVERGED is no false claim.
HONEST_DIGITS = 4


class Outcome(NamedTuple):
    """What a solver made of a batch of starts of one problem, NumPy arrays `[B]`."""

    x: np.ndarray
    converged: np.ndarray
    steps: np.ndarray


class JudgedRun(NamedTuple):
    """A solver from one start."""

    label: str
    solved: bool
    converged: bool
    refuted: bool
    steps: int


def main(argv=None):
    options = parse_options(argv)
    print(machine())
    results = {"machine": machine(), "collections": {}}
    for collection in options.collections:
        problems = COLLECTIONS[collection]()
        chosen = {
            name: problem for name, problem in problems.items() if not options.problems or name in options.problems
        }
        for dtype in options.dtypes:
            fits = {name: Fit(problem, dtype, options) for name, problem in chosen.items()}
            entry = results["collections"].setdefault(collection, {}).setdefault(dtype, {})
            entry["starts"] = from_given_starts(fits, options)
            print(f"\n{collection}, {dtype}: from the given starts\n", starts_table(entry["starts"]), sep="\n")
            if collection == "nist" and options.batch > 1:
                entry["perturbed"] = from_perturbed_starts(fits, options)
                title = f"{collection}, {dtype}: {options.batch} starts 30 % off, {options.solvers[0]} ({options.way})"
                print(f"\n{title}\n", perturbed_table(entry["perturbed"], options), sep="\n")
            if options.output is not None:  # after each, so that an interrupted run leaves what it has
                options.output.parent.mkdir(parents=True, exist_ok=True)
                options.output.write_text(json.dumps(results, indent=1))


def parse_options(argv):
    parser = Parser(__doc__)
    add = functools.partial(parser.add_argument, nargs="+")
    add("--collections", choices=COLLECTIONS, default=list(COLLECTIONS), help="(default: both)")
    add("--problems", default=[], help="only these (default: all)")
    add("--solvers", choices=SOLVERS, default=list(SOLVERS), help="the first is timed (default: all)")
    add("--dtypes", choices=TOLERANCES, default=list(TOLERANCES), help="(default: both)")
    parser.add_argument("--way", choices=("graph", "xla"), default="graph", help="(default: %(default)s)")
    parser.add_count("--batch", 100, "perturbed starts; 1 leaves the second table out")
    parser.add_count("--max-steps", 500, "steps at most; SciPy: four times as many evaluations")
    parser.add_count("--repeats", 3, "turns of each measurement")
    parser.add_output()
    return parser.parse_args(argv)


class Fit:
    """The solvers on one problem in one precision, each compiled once."""

    def __init__(self, problem, dtype, options):
        self.problem = problem
        self.dtype = dtype
        self.options = options
        self.simulator = problem.simulator(dtype)
        self._compiled = {}

    def run(self, name, starts):
        """The `Outcome` of a solver, or of "scipy lm" and "scipy trf", from `starts` `[B, n]`."""
        if name.startswith("scipy "):
            outcomes = [self._scipy(name.removeprefix("scipy "), x0) for x0 in starts]
            return Outcome(*map(np.array, zip(*outcomes, strict=True)))
        result = self._compiled_solve(name)(*self._tensors(starts))
        return Outcome(result.x.numpy(), result.status.numpy() == keras_sip.Status.CONVERGED, result.num_steps.numpy())

    def solved(self, outcome, *, in_some_order=False):
        test = self.problem.is_solved_in_some_order if in_some_order else self.problem.is_solved
        return test(outcome.x, DIGITS[self.dtype])

    def refuted(self, outcome):
        """Whether CONVERGED was said at a point from which a first-order step leads visibly down."""
        right = self.problem.is_solved_in_some_order(outcome.x, HONEST_DIGITS)
        downhill = np.array([self.problem.has_way_down(x, self.dtype) for x in outcome.x])
        return outcome.converged & ~right & downhill

    def _tensors(self, starts):
        target = np.broadcast_to(self.problem.target, (len(starts), len(self.problem.target)))
        return tf.constant(starts, self.dtype), tf.constant(target, self.dtype)

    def _compiled_solve(self, name):
        if name not in self._compiled:
            tolerance = TOLERANCES[self.dtype]
            options = {"max_steps": self.options.max_steps, "ftol": tolerance, "xtol": tolerance, "gtol": tolerance}
            solver = SOLVERS[name](**options)
            unknowns, observations = self.problem.shape
            self._compiled[name] = tf.function(
                lambda x0, y_target: solver.solve(self.simulator, x0, y_target),
                input_signature=[tf.TensorSpec((None, size), self.dtype) for size in (unknowns, observations)],
                jit_compile=self.options.way == "xla",
                autograph=False,
            )
        return self._compiled[name]

    def _scipy(self, method, x0):
        """(x, whether it says converged, evaluations); (x0, False, 0) where the start overflows: SciPy refuses it."""
        tolerance = TOLERANCES["float64"]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                fit = scipy.optimize.least_squares(
                    self.problem.residual,
                    x0,
                    jac=self.problem.jacobian,
                    method=method,
                    x_scale="jac",
                    ftol=tolerance,
                    xtol=tolerance,
                    gtol=tolerance,
                    max_nfev=4 * self.options.max_steps,
                )
            except (ValueError, np.linalg.LinAlgError):
                return x0, False, 0
        return fit.x, fit.status > 0, fit.nfev


def from_given_starts(fits, options):
    """{solver: {"runs", "solved", "said", "refuted", "not_said", "steps", "unsolved": [problem and start], ...}}."""
    entries = {}
    for name in [*options.solvers, *(f"scipy {method}" for method in SCIPY)]:
        runs = [run for fit in fits.values() for run in _judged_runs(fit, name)]
        entries[name] = {
            "runs": len(runs),
            "solved": sum(run.solved for run in runs),
            "said": sum(run.converged for run in runs),
            "refuted": sum(run.refuted for run in runs),
            "not_said": sum(run.solved and not run.converged for run in runs),
            "steps": float(np.median([run.steps for run in runs])),
            "unsolved": [run.label for run in runs if not run.solved],
            "false_claims": [run.label for run in runs if run.refuted],
        }
    return entries


def _judged_runs(fit, name):
    outcome = fit.run(name, np.array(list(fit.problem.starts.values())))
    flags = (fit.solved(outcome), outcome.converged, fit.refuted(outcome), outcome.steps)
    labels = [f"{fit.problem.name} {start}" for start in fit.problem.starts]
    return [JudgedRun(*row) for row in zip(labels, *(column.tolist() for column in flags), strict=True)]


def from_perturbed_starts(fits, options):
    """{problem: {solver: {"solved", "said", "refuted", "steps", times of a fit}, "ratio"}}; the first solver alone."""
    measured = {}
    names = [options.solvers[0], *(f"scipy {method}" for method in SCIPY)]
    for problem, fit in fits.items():
        starts = fit.problem.perturbed_starts(options.batch)
        variants = {name: functools.partial(fit.run, name, starts) for name in names}
        seconds = interleaved(variants, options.repeats)
        measured[problem] = {"ratio": ratio(seconds["scipy lm"], seconds[names[0]])._asdict()}
        for name in names:
            outcome = fit.run(name, starts)
            measured[problem][name] = summary(seconds[name] / options.batch) | {
                "solved": int(np.sum(fit.solved(outcome, in_some_order=True))),
                "as_certified": int(np.sum(fit.solved(outcome))),
                "said": int(np.sum(outcome.converged)),
                "refuted": int(np.sum(fit.refuted(outcome))),
                "steps": float(np.median(outcome.steps)),
            }
    return measured


def starts_table(entries):
    header = ["solver", "solved", "said", "refuted", "not said", "steps"]
    rows = [
        [name, f"{e['solved']} of {e['runs']}", *(f"{e[key]:g}" for key in ("said", "refuted", "not_said", "steps"))]
        for name, e in entries.items()
    ]
    return table(header, rows, label_width=26)


def perturbed_table(measured, options):
    ours = options.solvers[0]
    header = ["set", "solved", "lm", "trf", "refuted/said", "steps", "us a fit", "lm", "trf", "lm/ours"]
    rows = []
    for problem, entry in measured.items():
        by_name = [entry[name] for name in (ours, "scipy lm", "scipy trf")]
        rows.append(
            [
                problem,
                *(str(e["solved"]) for e in by_name),
                f"{by_name[0]['refuted']}/{by_name[0]['said']}",
                f"{by_name[0]['steps']:g}",
                *(f"{1e6 * e['median']:.0f}" for e in by_name),
                f"{entry['ratio']['value']:.1f}",
            ]
        )
    return table(header, rows, label_width=10)


if __name__ == "__main__":
    sys.exit(main())
