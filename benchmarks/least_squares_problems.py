"""Least-squares problems with known answers: NIST's regression sets, and those of Moré, Garbow and Hillstrom.

Each is written once, for NumPy and for TensorFlow, batched or not: `process(x, m)` maps `[..., n]` to `[..., m]`, where
`m` is `numpy` or `TENSORFLOW`. SciPy gets `residual` and its exact `jacobian`, a solver of keras_sip gets `simulator`.

Sources: NIST Statistical Reference Datasets, nonlinear regression (public domain; https://www.itl.nist.gov/div898/strd),
14 of the 27 sets; J. J. Moré, B. S. Garbow and K. E. Hillstrom, Testing Unconstrained Optimization Software, ACM TOMS
7 (1981), Section 3, with the numbers of problems and the minima given there: 1 to 20, and six of those of any size
with 8 or 10 unknowns.
"""

import itertools
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

import keras_sip

NIST_DATA = pathlib.Path(__file__).parents[1] / "tests" / "fixtures" / "nist.json"
# Imaginary part of the argument of a complex step: its square vanishes beside 1.
COMPLEX_STEP = 1e-30
# The paper prints its minima with six digits. Where the minimum is 0, what is left is far below all other minima.
RELATIVE, ABSOLUTE = 1e-4, 1e-12


class LeastSquaresProblem(NamedTuple):
    """Find x with the least |process(x) - target|^2.

    `starts` are `{label: x0 [n]}`. `minima` are the sums of squares at the known local minima. `certified` are
    parameters known to 11 digits, or None. `symmetries` are (order, signs) of the parameters that the process does not
    see, as of equal terms of a sum.
    """

    name: str
    process: Callable
    target: np.ndarray
    starts: dict
    minima: tuple
    certified: np.ndarray | None = None
    symmetries: tuple = ()

    @property
    def shape(self):
        """(unknowns, observations)."""
        return len(next(iter(self.starts.values()))), len(self.target)

    def residual(self, x):
        """r `[..., m]` of x `[..., n]`, NumPy arrays."""
        return self.process(x, np) - self.target

    def jacobian(self, x):
        """J `[m, n]` at x `[n]`, exact to rounding: the imaginary part of P(x + i h e_j) is h dP/dx_j.

        Source: Squire and Trapp, Using Complex Variables to Estimate Derivatives of Real Functions, SIAM Rev. 40, 1998.
        """
        size = COMPLEX_STEP * np.maximum(np.abs(x), 1e-8)
        return (self.process(x + 1j * np.diag(size), np).imag / size[:, None]).T

    def simulator(self, dtype="float64"):
        unknowns, observations = self.shape
        return keras_sip.from_function(
            lambda x: self.process(x, TENSORFLOW), unknowns, y_shape=observations, dtype=dtype
        )

    def sum_of_squares(self, x):
        """In float64, `[...]` of x `[..., n]`; infinite where it is not finite."""
        with np.errstate(all="ignore"):
            value = np.sum(np.square(self.residual(np.asarray(x, np.float64))), axis=-1)
        return np.where(np.isfinite(value), value, np.inf)

    def digits(self, x):
        """Digits to which x `[..., n]` agrees with the certified parameters: -log10 of the largest relative error."""
        with np.errstate(all="ignore"):
            error = np.max(np.abs(np.asarray(x, np.float64) / self.certified - 1), axis=-1)
        return -np.log10(np.clip(np.where(np.isfinite(error), error, 1.0), 1e-11, 1.0))

    def is_solved(self, x, digits=6):
        """Whether x `[..., n]` has `digits` of the certified parameters or, without those, a known minimum.

        Certified digits are rounded, not cut: 6 of them are a relative error of at most 10^-6. A sum of squares at
        rounding (Lanczos1: 1.4e-25) certifies no parameters of its own; they are still what is asked for.
        """
        if self.certified is not None:
            return self.digits(x) >= digits
        value = self.sum_of_squares(x)[..., None]
        minima = np.array(self.minima)
        return np.any(np.abs(value - minima) <= RELATIVE * minima + ABSOLUTE, axis=-1)

    def is_solved_in_some_order(self, x, digits=6):
        """`is_solved` for x or what the process cannot tell from it: equal terms of a sum have no order."""
        x = np.asarray(x)
        equal = [x, *(x[..., order] * signs for order, signs in self.symmetries)]
        return np.any([self.is_solved(each, digits) for each in equal], axis=0)

    def has_way_down(self, x, dtype):
        """Whether the Gauss-Newton step of scaled columns lowers |r| at x `[n]` by more than `dtype` hides.

        The part of r in the span of J must be above 10 times the square root of a rounding of r, which is what a
        decrease of its square by 100 roundings takes, and above 10 roundings of what r is the difference of.
        """
        rounding = np.finfo(dtype).eps
        x = np.asarray(x, np.float64)
        with np.errstate(all="ignore"):
            r, jacobian = self.residual(x), self.jacobian(x)
            lengths = np.linalg.norm(jacobian, axis=0)
        if not (np.all(np.isfinite(r)) and np.all(np.isfinite(jacobian))):
            return False
        scaled = jacobian / np.where(lengths > 0, lengths, 1.0)
        left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
        seen = left[:, singular > 10 * rounding * len(x)]
        size = np.linalg.norm(self.target) + np.linalg.norm(r)
        return bool(np.linalg.norm(seen.T @ r) > 10 * max(rounding**0.5 * np.linalg.norm(r), rounding * size))

    def perturbed_starts(self, count, spread=0.3, seed=0):
        """`[count, n]`: the starts in turn, each component times 1 + spread u, u uniform in [-1, 1]."""
        starts = np.array(list(self.starts.values()))
        u = np.random.default_rng(seed).uniform(-1, 1, (count, starts.shape[1]))
        return starts[np.arange(count) % len(starts)] * (1 + spread * u)


class ProblemBatch(keras_sip.Simulator):
    """Problems of several shapes in one batch, so that a solver is compiled once for all.

    x and y are padded with zeros to the largest; `context["problem"]` `[B]` is the index of each example's.
    """

    def __init__(self, problems, dtype="float64"):
        self.problems = list(problems)
        self.dtype = dtype
        self.x_shape = (max(problem.shape[0] for problem in self.problems),)
        self.y_shape = (max(problem.shape[1] for problem in self.problems),)

    def forward(self, x, context=None):
        y = tf.zeros([tf.shape(x)[0], *self.y_shape], x.dtype)
        for index, problem in enumerate(self.problems):
            chosen = (context["problem"] == index)[:, None]
            # The points of another problem could overflow here.
            safe = tf.constant(next(iter(problem.starts.values())), x.dtype)
            value = problem.process(tf.where(chosen, x[:, : problem.shape[0]], safe), TENSORFLOW)
            y = tf.where(chosen, tf.pad(value, [[0, 0], [0, self.y_shape[0] - problem.shape[1]]]), y)
        return y

    def arguments(self, starts):
        """(x0, y_target, context) of `starts`, an array `[B_i, n_i]` for each problem."""
        x0 = [np.pad(points, [(0, 0), (0, self.x_shape[0] - points.shape[1])]) for points in starts]
        targets = [np.pad(problem.target, (0, self.y_shape[0] - problem.shape[1])) for problem in self.problems]
        counts = [len(points) for points in starts]
        context = {"problem": tf.constant(np.repeat(np.arange(len(counts)), counts))}
        y_target = tf.constant(np.repeat(targets, counts, axis=0), self.dtype)
        return tf.constant(np.concatenate(x0), self.dtype), y_target, context

    def split(self, values, starts):
        """`[B, ...]` of a result as an array for each problem, the padding of x cut off."""
        parts = np.split(np.asarray(values), np.cumsum([len(points) for points in starts])[:-1])
        if np.ndim(values) == 1:
            return parts
        return [part[:, : problem.shape[0]] for part, problem in zip(parts, self.problems, strict=True)]


class TENSORFLOW:
    """TensorFlow under NumPy's names."""

    exp, log, sin, cos, sqrt, arctan = tf.exp, tf.math.log, tf.sin, tf.cos, tf.sqrt, tf.atan
    sum, prod, where, ones_like, concatenate = tf.reduce_sum, tf.reduce_prod, tf.where, tf.ones_like, tf.concat


def components(x):
    """Each component of x as `[..., 1]`, to be broadcast against data `[m]`."""
    return [x[..., j : j + 1] for j in range(x.shape[-1])]


# NIST


def misra1a(b, x, m):
    b1, b2 = components(b)
    return b1 * (1 - m.exp(-b2 * x))


def misra1b(b, x, m):
    b1, b2 = components(b)
    return b1 * (1 - (1 + b2 * x / 2) ** -2.0)


def chwirut2(b, x, m):
    b1, b2, b3 = components(b)
    return m.exp(-b1 * x) / (b2 + b3 * x)


def lanczos(b, x, m):
    b1, b2, b3, b4, b5, b6 = components(b)
    return b1 * m.exp(-b2 * x) + b3 * m.exp(-b4 * x) + b5 * m.exp(-b6 * x)


def gauss(b, x, m):
    b1, b2, b3, b4, b5, b6, b7, b8 = components(b)
    peaks = b3 * m.exp(-((x - b4) ** 2) / b5**2) + b6 * m.exp(-((x - b7) ** 2) / b8**2)
    return b1 * m.exp(-b2 * x) + peaks


def danwood(b, x, m):
    b1, b2 = components(b)
    return b1 * m.exp(b2 * np.log(x))


def nelson(b, x, m):
    """The logarithm of y, as NIST fits it."""
    b1, b2, b3 = components(b)
    return b1 - b2 * x[0] * m.exp(-b3 * x[1])


def mgh17(b, x, m):
    b1, b2, b3, b4, b5 = components(b)
    return b1 + b2 * m.exp(-x * b4) + b3 * m.exp(-x * b5)


def rat43(b, x, m):
    b1, b2, b3, b4 = components(b)
    return b1 / (1 + m.exp(b2 - b3 * x)) ** (1 / b4)


def bennett5(b, x, m):
    b1, b2, b3 = components(b)
    return b1 * (b2 + x) ** (-1 / b3)


def mgh09(b, x, m):
    b1, b2, b3, b4 = components(b)
    return b1 * (x**2 + x * b2) / (x**2 + x * b3 + b4)


def _orders(size, *terms):
    """The symmetries of parameters of which each row of `terms` are those of one of several equal terms."""
    orders = []
    for permuted in itertools.permutations(terms):
        order = np.arange(size)
        order[np.ravel(terms)] = np.ravel(permuted)
        orders.append((order, np.ones(size)))
    return tuple(orders)


def _signs(orders, *components):
    """The same, where the signs of some components do not matter either."""
    found = []
    for order, ones in orders:
        for signs in itertools.product((1.0, -1.0), repeat=len(components)):
            signed = ones.copy()
            signed[list(components)] = signs
            found.append((order, signed))
    return tuple(found)


SYMMETRIES = {
    lanczos: _orders(6, (0, 1), (2, 3), (4, 5)),
    gauss: _signs(_orders(8, (2, 3, 4), (5, 6, 7)), 4, 7),
    mgh17: _orders(5, (1, 3), (2, 4)),
}
NIST_MODELS = {
    "Misra1a": misra1a,
    "Misra1b": misra1b,
    "Chwirut2": chwirut2,
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Gauss1": gauss,
    "Gauss3": gauss,
    "DanWood": danwood,
    "Nelson": nelson,
    "MGH17": mgh17,
    "BoxBOD": misra1a,
    "Rat43": rat43,
    "Bennett5": bennett5,
    "MGH09": mgh09,
}


def nist_problems():
    """{name: LeastSquaresProblem} of the sets of `tests/fixtures/nist.json`, each with NIST's two starts."""
    return {name: _nist_problem(name, entry) for name, entry in json.loads(NIST_DATA.read_text()).items()}


def _nist_problem(name, entry):
    predictor, response = np.array(entry["x"]), np.array(entry["y"])
    model = NIST_MODELS[name]
    return LeastSquaresProblem(
        name=name,
        process=lambda b, m: model(b, predictor, m),
        target=np.log(response) if name == "Nelson" else response,
        starts={start: np.array(entry[start]) for start in ("start1", "start2")},
        minima=(entry["rss"],),
        certified=np.array(entry["certified"]),
        symmetries=SYMMETRIES.get(model, ()),
    )


# Moré, Garbow and Hillstrom, by the number of the paper


def rosenbrock(x, m):
    x1, x2 = components(x)
    return m.concatenate([10 * (x2 - x1**2), 1 - x1], -1)


def freudenstein_roth(x, m):
    x1, x2 = components(x)
    return m.concatenate([-13 + x1 + ((5 - x2) * x2 - 2) * x2, -29 + x1 + ((x2 + 1) * x2 - 14) * x2], -1)


def powell_badly_scaled(x, m):
    x1, x2 = components(x)
    return m.concatenate([1e4 * x1 * x2 - 1, m.exp(-x1) + m.exp(-x2) - 1.0001], -1)


def brown_badly_scaled(x, m):
    x1, x2 = components(x)
    return m.concatenate([x1 - 1e6, x2 - 2e-6, x1 * x2 - 2], -1)


def beale(x, m):
    x1, x2 = components(x)
    return m.concatenate([y - x1 * (1 - x2**i) for i, y in ((1, 1.5), (2, 2.25), (3, 2.625))], -1)


def jennrich_sampson(x, m):
    x1, x2 = components(x)
    i = np.arange(1.0, 11)
    return 2 + 2 * i - (m.exp(i * x1) + m.exp(i * x2))


def helical_valley(x, m):
    x1, x2, x3 = components(x)
    positive = x1 > 0
    turn = m.arctan(x2 / m.where(x1 == 0, m.ones_like(x1), x1)) / (2 * np.pi)
    turn = m.where(positive, turn, turn + 0.5)
    return m.concatenate([10 * (x3 - 10 * turn), 10 * (m.sqrt(x1**2 + x2**2) - 1), x3], -1)


BARD = np.array([0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39])


def bard(x, m):
    x1, x2, x3 = components(x)
    u = np.arange(1.0, 16)
    v = 16 - u
    return x1 + u / (v * x2 + np.minimum(u, v) * x3)


GAUSSIAN = np.array(
    [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989, 0.3521, 0.2420, 0.1295, 0.0540, 0.0175, 0.0044]
    + [0.0009]
)


def gaussian(x, m):
    x1, x2, x3 = components(x)
    t = (8 - np.arange(1.0, 16)) / 2
    return x1 * m.exp(-x2 * (t - x3) ** 2 / 2)


MEYER = np.array(
    [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872], float
)


def meyer(x, m):
    x1, x2, x3 = components(x)
    return x1 * m.exp(x2 / (45 + 5 * np.arange(1.0, 17) + x3))


def gulf_research(x, m):
    """The paper's formula has a misprint, a factor m i: minima and start fit the one below only."""
    x1, x2, x3 = components(x)
    t = np.arange(1, 100) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    distance = m.sqrt((y - x2) ** 2)
    return m.exp(-(distance**x3) / x1) - t


def box(x, m):
    x1, x2, x3 = components(x)
    t = 0.1 * np.arange(1.0, 11)
    return m.exp(-t * x1) - m.exp(-t * x2) - x3 * (np.exp(-t) - np.exp(-10 * t))


def powell_singular(x, m):
    x1, x2, x3, x4 = components(x)
    return m.concatenate([x1 + 10 * x2, np.sqrt(5) * (x3 - x4), (x2 - 2 * x3) ** 2, np.sqrt(10) * (x1 - x4) ** 2], -1)


def wood(x, m):
    x1, x2, x3, x4 = components(x)
    first = [10 * (x2 - x1**2), 1 - x1, np.sqrt(90) * (x4 - x3**2), 1 - x3]
    return m.concatenate([*first, np.sqrt(10) * (x2 + x4 - 2), (x2 - x4) / np.sqrt(10)], -1)


KOWALIK_OSBORNE = np.array([0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246])


def kowalik_osborne(x, m):
    u = np.array([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])
    return mgh09(x, u, m)


def brown_dennis(x, m):
    x1, x2, x3, x4 = components(x)
    t = np.arange(1.0, 21) / 5
    return (x1 + t * x2 - np.exp(t)) ** 2 + (x3 + x4 * np.sin(t) - np.cos(t)) ** 2


OSBORNE_1 = np.array(
    [0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751, 0.718, 0.685, 0.658, 0.628, 0.603]
    + [0.580, 0.558, 0.538, 0.522, 0.506, 0.490, 0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411]
    + [0.406]
)


def osborne_1(x, m):
    return mgh17(x, 10 * np.arange(33.0), m)


def biggs_exp6(x, m):
    x1, x2, x3, x4, x5, x6 = components(x)
    t = 0.1 * np.arange(1.0, 14)
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return x3 * m.exp(-t * x1) - x4 * m.exp(-t * x2) + x6 * m.exp(-t * x5) - y


OSBORNE_2 = np.array(
    [1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608, 0.655, 0.616, 0.606]
    + [0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661, 0.612, 0.558, 0.533, 0.495, 0.500, 0.423]
    + [0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428, 0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668]
    + [0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098]
    + [0.054]
)


def osborne_2(x, m):
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11 = components(x)
    t = np.arange(65) / 10
    peaks = [(x2, x6, x9), (x3, x7, x10), (x4, x8, x11)]
    return x1 * m.exp(-t * x5) + sum(height * m.exp(-width * (t - at) ** 2) for height, width, at in peaks)


def watson(x, m):
    xs = components(x)
    t = np.arange(1, 30) / 29
    slope = sum(j * t ** (j - 1) * xj for j, xj in enumerate(xs) if j)
    value = sum(t**j * xj for j, xj in enumerate(xs))
    return m.concatenate([slope - value**2 - 1, xs[0], xs[1] - xs[0] ** 2 - 1], -1)


def variably_dimensioned(x, m):
    weighted = m.sum(np.arange(1.0, x.shape[-1] + 1) * (x - 1), -1, keepdims=True)
    return m.concatenate([x - 1, weighted, weighted**2], -1)


def trigonometric(x, m):
    n = x.shape[-1]
    return n - m.sum(m.cos(x), -1, keepdims=True) + np.arange(1.0, n + 1) * (1 - m.cos(x)) - m.sin(x)


def brown_almost_linear(x, m):
    n = x.shape[-1]
    linear = x + m.sum(x, -1, keepdims=True) - (n + 1)
    return m.concatenate([linear[..., :-1], m.prod(x, -1, keepdims=True) - 1], -1)


def broyden_tridiagonal(x, m):
    zero = 0 * x[..., :1]
    before, after = m.concatenate([zero, x[..., :-1]], -1), m.concatenate([x[..., 1:], zero], -1)
    return (3 - 2 * x) * x - before - 2 * after + 1


def broyden_banded(x, m):
    xs = components(x)
    bands = [[j for j in range(max(0, i - 5), min(len(xs), i + 2)) if j != i] for i in range(len(xs))]
    return m.concatenate(
        [xi * (2 + 5 * xi**2) + 1 - sum(xs[j] * (1 + xs[j]) for j in band) for xi, band in zip(xs, bands, strict=True)],
        -1,
    )


def chebyquad(x, m):
    """Means of the shifted Chebyshev polynomials over the components of x, less their integrals."""
    n = x.shape[-1]
    previous, current = m.ones_like(x), 2 * x - 1
    entries = []
    for i in range(1, n + 1):
        integral = -1 / (i**2 - 1) if i % 2 == 0 else 0.0
        entries.append(m.sum(current, -1, keepdims=True) / n - integral)
        previous, current = current, 2 * (2 * x - 1) * current - previous
    return m.concatenate(entries, -1)


class _Row(NamedTuple):
    process: Callable
    start: tuple
    minima: tuple
    target: np.ndarray | None = None


_ROWS = {
    1: _Row(rosenbrock, (-1.2, 1), (0,)),
    2: _Row(freudenstein_roth, (0.5, -2), (0, 48.98425)),
    3: _Row(powell_badly_scaled, (0, 1), (0,)),
    4: _Row(brown_badly_scaled, (1, 1), (0,)),
    5: _Row(beale, (1, 1), (0,)),
    6: _Row(jennrich_sampson, (0.3, 0.4), (124.36218,)),
    7: _Row(helical_valley, (-1, 0, 0), (0,)),
    8: _Row(bard, (1, 1, 1), (8.21487e-3, 17.42869), BARD),
    9: _Row(gaussian, (0.4, 1, 0), (1.12793e-8,), GAUSSIAN),
    10: _Row(meyer, (0.02, 4000, 250), (87.9458,), MEYER),
    11: _Row(gulf_research, (5, 2.5, 0.15), (0,)),
    12: _Row(box, (0, 10, 20), (0,)),
    13: _Row(powell_singular, (3, -1, 0, 1), (0,)),
    14: _Row(wood, (-3, -1, -3, -1), (0,)),
    15: _Row(kowalik_osborne, (0.25, 0.39, 0.415, 0.39), (3.07505e-4, 1.02734e-3), KOWALIK_OSBORNE),
    16: _Row(brown_dennis, (25, 5, -5, -1), (85822.2,)),
    17: _Row(osborne_1, (0.5, 1.5, -1, 0.01, 0.02), (5.46489e-5,), OSBORNE_1),
    18: _Row(biggs_exp6, (1, 2, 1, 1, 1, 1), (0, 5.65565e-3)),
    19: _Row(osborne_2, (1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5), (4.01377e-2,), OSBORNE_2),
    20: _Row(watson, (0,) * 6, (2.28767e-3,)),
    25: _Row(variably_dimensioned, tuple(1 - np.arange(1, 11) / 10), (0,)),
    26: _Row(trigonometric, (0.1,) * 10, (0, 2.79506e-5)),
    27: _Row(brown_almost_linear, (0.5,) * 10, (0, 1)),
    30: _Row(broyden_tridiagonal, (-1,) * 10, (0,)),
    31: _Row(broyden_banded, (-1,) * 10, (0,)),
    35: _Row(chebyquad, tuple(np.arange(1, 9) / 9), (3.51687e-3,)),
}


def more_problems():
    """{name: LeastSquaresProblem}, each from 1, 10 and 100 times the paper's start."""
    return {row.process.__name__: _more_problem(row) for row in _ROWS.values()}


def _more_problem(row):
    start = np.array(row.start, float)
    process = row.process
    observations = process(start, np).shape[-1]
    return LeastSquaresProblem(
        name=process.__name__,
        process=process,
        target=np.zeros(observations) if row.target is None else row.target,
        starts={f"x{factor}": factor * start for factor in (1, 10, 100)},
        minima=row.minima,
    )
