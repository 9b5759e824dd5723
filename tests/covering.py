"""Which solver is tested on which problem: every solver meets every feature, every problem several kinds of solver.

The full product repeats the same code on other numbers, and each pair takes a second or more to trace.
"""

import math

import keras_sip
from keras_sip.solvers.linear_model import LARGEST_DENSE

# By what a solver asks of the simulator; those composed of others ask what their parts ask.
KINDS = {
    "direct": (
        keras_sip.AnalyticInverse,
        keras_sip.DampedSpectralInverse,
        keras_sip.WienerInverse,
        keras_sip.ReverseSimulation,
    ),
    "gradients": (keras_sip.GradientDescent, keras_sip.NormalizedGradient, keras_sip.SignStep, keras_sip.LBFGS),
    "products with J": (keras_sip.GaussNewton, keras_sip.LevenbergMarquardt, keras_sip.MaximumAPosteriori),
    "second derivatives": (keras_sip.Newton, keras_sip.SaddleFreeNewton),
    "composed": (keras_sip.LimitedStep, keras_sip.LineSearch, keras_sip.Fallback, keras_sip.Chain),
}
KINDS_PER_PROBLEM = 3


def kind(solver):
    return next(name for name, solvers in KINDS.items() if isinstance(solver, solvers))


def features(problem):
    """What of a problem another branch of a solver may depend on, or another demand on its precision."""
    simulator = problem.simulator
    x_size, y_size = (math.prod(shape) for shape in problem.shapes())
    field = len(simulator.x_shape) > 1
    present = {
        "float64": simulator.dtype == "float64",
        "field in float32": field and simulator.dtype == "float32",
        "vectors in each cell": field and simulator.x_shape[-1] > 1,
        "few numbers": min(x_size, y_size) <= LARGEST_DENSE,
        "too many numbers for a dense Jacobian": min(x_size, y_size) > LARGEST_DENSE,
        "more observations than unknowns": y_size > x_size,
        "nonlinear": not problem.linear,
        "context": problem.context is not None,
        "objective of its own": simulator.has("objective"),
        "residual of its own": simulator.has("residual"),
        "numbers whose squares underflow": problem.underflows,
    }
    return frozenset(name for name, holds in present.items() if holds)


def needed(solver, problems):
    """The features that the solver has to meet, of those of the problems it serves."""
    everything = frozenset().union(*map(features, problems))
    # Others see the residual in its half square alone, as they see any objective.
    return everything if kind(solver) == "products with J" else everything - {"residual of its own"}


def fewest(solver, problems, *, first_of_its_class):
    """Problems that have all features, small ones first: the greedy set cover.

    Direct solvers meet them all: each problem has an inverse or a form of its own, and takes no time. A second solver
    of a class, whose other options the tests of that class compare, meets the problem of most features.
    """
    if kind(solver) == "direct":
        return list(problems)
    if not first_of_its_class:
        return [max(problems, key=lambda problem: len(needed(solver, problems) & features(problem)))]
    missing, chosen = needed(solver, problems), []
    by_size = sorted(problems, key=lambda problem: math.prod(problem.simulator.x_shape))
    while missing:
        chosen.append(max(by_size, key=lambda problem: len(missing & features(problem))))
        missing -= features(chosen[-1])
    return chosen


def cover(served):
    """The pairs (solver, problem) of `served`, in its order, that are tested.

    The first solver of each class meets all features of the problems that it serves. Each problem meets solvers of
    three kinds, of all that serve it where these are fewer: the first of a kind, kinds in the order above.
    """
    solvers, problems = (list(dict.fromkeys(column)) for column in zip(*served, strict=True))
    classes = [type(solver) for solver in solvers]
    pairs = {
        (solver, problem)
        for place, solver in enumerate(solvers)
        for problem in fewest(
            solver,
            [p for s, p in served if s is solver],
            first_of_its_class=type(solver) not in classes[:place],
        )
    }
    for problem in problems:
        of_kind = {}
        for solver in (s for s, p in served if p is problem and kind(s) != "composed"):
            of_kind.setdefault(kind(solver), solver)
        already = {kind(s) for s, p in pairs if p is problem} & of_kind.keys()
        new = [name for name in KINDS if name in of_kind and name not in already]
        pairs.update((of_kind[name], problem) for name in new[: max(KINDS_PER_PROBLEM - len(already), 0)])
    return [pair for pair in served if pair in pairs]
