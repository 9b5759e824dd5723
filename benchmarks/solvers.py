"""Time per example of each inverse solver, run to convergence, by size of x and batch, against scipy.optimize.

  python benchmarks/solvers.py
  python benchmarks/solvers.py --sizes 2 64 --batches 1 100 --solvers newton lbfgs --ways graph xla

The problem is the same for all: n unknowns, each seen through its neighbours,

  y_i = s_i (x_i + 1/4 sin(x_{i-1} + x_{i+1})), s_i from 1 to 1/10,

from a start 0.5 (rms) off. Solvers stop where the residual has fallen to `--tolerance` of that at the start; SciPy gets
the exact Jacobian or gradient, and solves a few examples one after the other. "solved" is the share of the batch
that got there. A solver that refuses the size (dense Hessians) or a way that was not asked for leaves no row. Times are
medians of interleaved turns; compilation is not counted.
"""

import functools
import json
import sys

import numpy as np
import scipy.optimize
import scipy.sparse
import tensorflow as tf

import keras_sip
from _command_line import Parser
from _timing import interleaved, machine, summary, table

SOLVERS = {
    "newton": keras_sip.Newton,
    "saddle_free_newton": keras_sip.SaddleFreeNewton,
    "gauss_newton": keras_sip.GaussNewton,
    "gauss_newton_cg": functools.partial(keras_sip.GaussNewton, linear_solver="conjugate_gradient", cg_steps=100),
    "levenberg_marquardt": keras_sip.LevenbergMarquardt,
    "lbfgs": keras_sip.LBFGS,
    "bfgs": functools.partial(keras_sip.LBFGS, full_matrix=True),
}
WAYS = ("eager", "graph", "xla")
SCIPY = ("least_squares", "minimize")
# Components of x up to which SciPy is handed a dense Jacobian.
LARGEST_DENSE = 256


class Chain(keras_sip.Simulator):
    """The problem of this benchmark."""

    dtype = "float64"

    def __init__(self, size):
        self.x_shape = self.y_shape = (size,)
        self.scales = np.geomspace(1.0, 0.1, size)

    def forward(self, x, context=None):
        ends = tf.pad(x, [[0, 0], [1, 1]])
        return tf.constant(self.scales) * (x + 0.25 * tf.sin(ends[:, :-2] + ends[:, 2:]))

    def sample_problem(self, batch):
        """(x0, y_target) `[batch, n]`."""
        generator = np.random.default_rng(0)
        x_true, offset = generator.standard_normal((2, batch, *self.x_shape))
        return tf.constant(x_true + 0.5 * offset), self.forward(tf.constant(x_true))


def main(argv=None):
    options = parse_options(argv)
    print(machine())
    print(f"microseconds an example to a residual of {options.tolerance:g} of that at the start; float64")
    results = {"machine": machine(), "tolerance": options.tolerance, "sizes": {}}
    for size in options.sizes:
        measured = measure(Chain(size), options)
        results["sizes"][str(size)] = {
            name: {str(batch): entry for batch, entry in by_batch.items()} for name, by_batch in measured.items()
        }
        print(f"\n{size} unknowns\n", times_table(measured, options.batches), sep="\n")
        if options.output is not None:  # after every size, so that an interrupted run leaves what it has
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(results, indent=1))


def parse_options(argv):
    parser = Parser(__doc__)
    parser.add_count("--sizes", [2, 16, 256, 4096], "components of x", metavar="N")
    parser.add_count("--batches", [1, 100, 10_000], "batch sizes", metavar="B")
    add = functools.partial(parser.add_argument, nargs="+")
    add("--solvers", choices=SOLVERS, default=list(SOLVERS), help="solvers to measure (default: all)")
    add("--ways", choices=WAYS, default=list(WAYS), help="how they run (default: all)")
    parser.add_count("--scipy-examples", 4, "examples SciPy solves")
    parser.add_count("--max-steps", 100, "steps at most")
    parser.add_count("--repeats", 5, "turns of each measurement")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="of the residual (default: %(default)s)")
    parser.add_count("--largest", 2_000_000, "numbers in x at most: size x batch")
    parser.add_output()
    return parser.parse_args(argv)


def measure(simulator, options):
    """{"solver way" or "scipy name": {batch: {"median", "quartiles", "seconds", "solved"}}}, seconds an example."""
    measured = {}
    for batch in options.batches:
        if batch * simulator.x_shape[0] > options.largest:
            continue
        x0, y_target = simulator.sample_problem(batch)
        variants = {
            f"{name} {way}": variant
            for name in options.solvers
            for way in options.ways
            if (variant := solver_call(name, way, simulator, x0, y_target, options)) is not None
        }
        examples = min(batch, options.scipy_examples)
        for name in SCIPY:
            variants[f"scipy {name}"] = functools.partial(
                solve_by_scipy, name, simulator, x0.numpy()[:examples], y_target.numpy()[:examples], options.tolerance
            )
        start = np.linalg.norm(simulator.forward(x0) - y_target, axis=1)
        for name, seconds in interleaved(variants, options.repeats).items():
            x = variants[name]()
            left = np.linalg.norm(simulator.forward(tf.constant(x)) - y_target[: len(x)], axis=1)
            # SciPy's own rules of stopping are close to ours, not the same.
            solved = np.mean(left <= 10 * options.tolerance * start[: len(x)])
            measured.setdefault(name, {})[batch] = summary(seconds / len(x)) | {"solved": float(solved)}
    return measured


def solver_call(name, way, simulator, x0, y_target, options):
    """A function without arguments that solves the batch; None where the solver refuses the simulator."""
    solver = SOLVERS[name](max_steps=options.max_steps, residual_tolerance=options.tolerance)
    try:
        solver.check(simulator)
    except TypeError:
        return None

    def solve(x0, y_target):
        return solver.solve(simulator, x0, y_target).x

    if way != "eager":
        solve = tf.function(solve, jit_compile=way == "xla", autograph=False)
    return lambda: solve(x0, y_target).numpy()


def solve_by_scipy(name, simulator, x0, y_target, tolerance):
    """x `[examples, n]`, one after the other, with plain NumPy residuals and derivatives."""
    return np.stack([_solve_one(name, simulator.scales, *pair, tolerance) for pair in zip(x0, y_target, strict=True)])


def _solve_one(name, scales, x0, y_target, tolerance):
    def arguments(x):
        ends = np.pad(x, 1)
        return ends[:-2] + ends[2:]

    def residual(x):
        return scales * (x + 0.25 * np.sin(arguments(x))) - y_target

    def slopes(x):
        return 0.25 * scales * np.cos(arguments(x))

    def jacobian(x):
        beside = slopes(x)
        bands = scipy.sparse.diags_array([beside[1:], scales, beside[:-1]], offsets=[-1, 0, 1], format="csr")
        # A dense one of thousands of rows would take SciPy minutes.
        return bands if len(x) > LARGEST_DENSE else bands.toarray()

    def objective(x):
        r = residual(x)
        weighted = np.pad(slopes(x) * r, 1)
        return 0.5 * r @ r, scales * r + weighted[:-2] + weighted[2:]

    start, gradient = objective(x0)
    if name == "least_squares":
        gtol = tolerance * np.max(np.abs(gradient))
        return scipy.optimize.least_squares(residual, x0, jac=jacobian, gtol=gtol, ftol=None, xtol=1e-12).x
    options = {"gtol": 0.1 * tolerance * np.max(np.abs(gradient)), "ftol": 0.0, "maxiter": 10_000, "maxfun": 20_000}
    return scipy.optimize.minimize(objective, x0, jac=True, method="L-BFGS-B", options=options).x


def times_table(measured, batches):
    header = ["solver", *(f"batch {batch}" for batch in batches), "solved"]
    rows = []
    for name, by_batch in measured.items():
        cells = [microseconds(by_batch[batch]["median"]) if batch in by_batch else "" for batch in batches]
        rows.append([name, *cells, f"{min(entry['solved'] for entry in by_batch.values()):.0%}"])
    return table(header, rows, label_width=28)


def microseconds(seconds):
    value = 1e6 * seconds
    return f"{value:#.3g}".rstrip(".") if value < 1e3 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
