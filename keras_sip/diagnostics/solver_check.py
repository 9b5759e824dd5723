"""check_solver: whether a solver serves a simulator, and which scale laws it follows there."""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.examples import InverseProblems, Start
from keras_sip.diagnostics.findings import Findings, described, examine
from keras_sip.diagnostics.solver_measures import SOLVER_CHECKS
from keras_sip.errors import check_number, check_positive_int
from keras_sip.ops import batched
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.solvers.base import InverseSolver


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolverFindings(Findings):
    """What `check_solver` returns; None where it could not be measured.

    Attributes:
        failed_share: Share of examples whose status is a failure.
        statuses: Number of examples by `Status`.
        descent_share: Share of examples with L(x0 + U) < L(x0).
        objective_before, objective_after: L at x0 and x0 + U, NumPy `[B]`.
        tau: Estimate of Eq. 11's constant: the smallest (L(x0) - L(x0 + U)) / (L(x0) - L(x*)) of the examples.
        K: Estimate of Eq. 12's: the largest |U| / (L(x0) - L(x*)). It has the units of x / L, and grows as starts come
            closer to solutions: |U| falls like the distance there, L like its square.
        common_factor_error, component_units_error, rotation_error, general_map_error, y_unit_error: |A U' - U| / |U| of
            the examples in other units, NumPy `[B]`: inf where only the changed problem failed, NaN where U is none.
    """

    failed_share: Any = None
    statuses: Any = None
    descent_share: Any = None
    objective_before: Any = None
    objective_after: Any = None
    tau: Any = None
    K: Any = None
    common_factor_error: Any = None
    component_units_error: Any = None
    rotation_error: Any = None
    general_map_error: Any = None
    y_unit_error: Any = None


def check_solver(
    solver: InverseSolver,
    simulator: Any,
    *,
    x: Any = None,
    context: dict[str, Any] | None = None,
    x0: Any = None,
    num_examples: int = 32,
    start_distance: float = 0.5,
    law_tolerance: float = 0.02,
    seed: int = 0,
    print_report: bool = True,
) -> SolverFindings:
    """Measure how a solver does on a simulator: failures, descent, the constants of the paper's theory, scale laws.

    On noise-free problems y* = P(x*): the share that fails; the share whose objective falls; tau of Eq. 11,

        L(x) - L(x + U(x)) >= tau (L(x) - L(x*)),

    and K of Eq. 12, |U(x)| <= K (L(x) - L(x*)), which Theorem 3 needs, both as the samples show them; and the two scale
    laws. x = A x' gives U' = A^-1 U, for a common factor, for units of single components (diagonal A), for rotations
    and for a general A, each of condition 10 at most, in units of `x_scale`; y -> c y leaves U as it is, for y near
    1e-12 and 1e12.

    A solver fails that does not descend in most examples, fails in more than a tenth, or does not follow a common
    factor of x or a unit of y. That it does not follow rotations, say, is a note: its docstring claims what it claims.

    Args:
        solver: An `InverseSolver`.
        simulator: A `Simulator`; `check_simulator` comes first.
        x, context: True causes `[B, *x_shape]` and what is known of them; None draws samples.
        x0: Starts `[B, *x_shape]`; None starts between solutions.
        num_examples: How many to draw, at least 2.
        start_distance: The share of the way from the solution to the next example's at which to start.
        law_tolerance: A law is followed where |A U' - U| <= law_tolerance |U| in 9 examples of 10.
        seed: Of the samples.
        print_report: Print the report too.

    Returns:
        `SolverFindings`.

    Source: the paper, Section 3.3, Eqs. 11 and 12, Theorem 3.
    """
    check_positive_int("num_examples", num_examples, minimum=2)
    check_positive_int("seed", seed, minimum=0)
    check_number("start_distance", start_distance, exclusive=True)
    check_number("law_tolerance", law_tolerance, exclusive=True)
    start = Start(x, context, x0, num_examples, start_distance, seed)
    case = SolverCase(solver, simulator, start, law_tolerance)
    title = f"check_solver: {described(solver)} on {described(simulator)}"
    return examine(SolverFindings, title, SOLVER_CHECKS, case, print_report)


class Change(NamedTuple):
    """Other units: z = A z' with A = Q_left diag(d) Q_right, and y' = c y.

    Attributes:
        left, right: Two unit vectors each, `[2, *x_shape]`; Q reflects at the planes normal to them, at none for zeros.
        diagonal: d `[*x_shape]`.
        y_unit: c, a power of two, so that the change itself rounds nothing.
    """

    left: tf.Tensor
    diagonal: tf.Tensor
    right: tf.Tensor
    y_unit: tf.Tensor

    def forward(self, z):
        return _reflect(_reflect(z, self.right) * self.diagonal, self.left)

    def backward(self, z):
        return _reflect(_reflect(z, self.left[::-1]) / self.diagonal, self.right[::-1])


class InOtherUnits(Nondimensional):
    """The simulator posed in z', x = x_scale * A z', and observed as c y."""

    # A z' has other modes.
    diagonal_form = None

    def __init__(self, simulator, change):
        super().__init__(simulator)
        self.change = change

    def to_physical(self, z):
        return super().to_physical(self.change.forward(z))

    def from_physical(self, x):
        return self.change.backward(super().from_physical(x))

    def forward(self, x, context=None):
        return self.change.y_unit * super().forward(x, context)

    def residual(self, y, y_target, context=None):
        unit = self.change.y_unit
        return unit * super().residual(y / unit, y_target / unit, context)

    def objective(self, y, y_target, context=None):
        unit = self.change.y_unit
        return tf.square(unit) * super().objective(y / unit, y_target / unit, context)

    def inverse(self, y_target, x_near, context=None):
        return super().inverse(y_target / self.change.y_unit, x_near, context)


class SolverCase(InverseProblems):
    """A solver on inverse problems; solved when first asked for."""

    def __init__(self, solver, simulator, start, law_tolerance):
        super().__init__(simulator, start)
        self.solver, self.law_tolerance = solver, law_tolerance

    def objectives_at(self, x):
        """L `[B]` in float64."""
        return examples.objectives(self.simulator, x, self.y_target, self.context)

    @functools.cached_property
    def result(self):
        return self.solve(self.x0, self.y_target, self.context)

    @functools.cached_property
    def solve(self):
        """`(x0, y_target, context) -> SolverResult`, compiled."""
        return tf.function(functools.partial(self.solver.solve, self.simulator), autograph=False)

    @functools.cached_property
    def objectives(self):
        """(L(x0), L(x0 + U)), float64 `[B]` each."""
        return self.objectives_at(self.x0), self.objectives_at(self.result.x)

    @functools.cached_property
    def _changed_solve(self):
        @functools.partial(tf.function, autograph=False)
        def solve(change, x0, y_target, context):
            simulator = InOtherUnits(self.simulator, change)
            z0 = simulator.from_physical(x0)
            result = self.solver.solve(simulator, z0, change.y_unit * y_target, context)
            return change.forward(result.update), result.failed

        return solve

    @functools.cached_property
    def _unchanged(self):
        return self._changed_update(self.change())

    def _changed_update(self, change):
        """(A U', failed) in the changed problem: where the law holds, A U' does not depend on the change."""
        update, failed = self._changed_solve(change, self.x0, self.y_target, self.context)
        return examples.rows(update), failed.numpy()

    def law_errors(self, change):
        """|A U' - U| / |U| `[B]`: inf where only the changed problem failed, NaN where U is none."""
        (expected, failed_before), (received, failed_now) = self._unchanged, self._changed_update(change)
        length = np.linalg.norm(expected, axis=1)
        moved = ~failed_before & (length > 0)
        error = np.linalg.norm(received - expected, axis=1) / np.where(moved, length, 1.0)
        return np.where(moved, np.where(failed_now, np.inf, error), np.nan)

    def change(self, *, left=False, diagonal=None, right=False, y_unit=1.0):
        """A `Change` by the random reflections that are asked for."""
        generator = np.random.default_rng(11)
        shape = self.simulator.x_shape
        vectors = generator.standard_normal((2, 2, *shape))
        as_x = functools.partial(tf.constant, dtype=self.simulator.dtype)
        left, right = (as_x(unit_vectors(pair) * used) for pair, used in zip(vectors, (left, right), strict=True))
        return Change(left, as_x(np.ones(shape) if diagonal is None else diagonal), right, as_x(y_unit))

    def decade(self):
        """A diagonal of condition number 10: the components' units spread over one decade, `[*x_shape]`."""
        shape = self.simulator.x_shape
        exponents = np.random.default_rng(12).permutation(np.linspace(-0.5, 0.5, int(np.prod(shape))))
        return 10.0 ** exponents.reshape(shape)


def unit_vectors(vectors):
    norms = np.sqrt(np.sum(np.square(vectors), axis=tuple(range(1, vectors.ndim)), keepdims=True))
    return vectors / norms


def _reflect(z, vectors):
    """Householder reflections, one after the other: z - 2 v <v, z>."""
    for vector in tf.unstack(vectors):
        z -= 2 * batched.expand(batched.dot(z, tf.zeros_like(z) + vector), z) * vector
    return z
