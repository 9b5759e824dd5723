"""What `diagnose` measures: Jacobians, gradients and updates at the examples, each computed when first asked for."""

import functools

import numpy as np
import tensorflow as tf

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.examples import InverseProblems
from keras_sip.ops import derivatives
from keras_sip.ops.bidiagonalization import golub_kahan
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.solvers.automatic import best_candidate
from keras_sip.solvers.levenberg_marquardt import LevenbergMarquardt
from keras_sip.solvers.problem import InverseProblem

# Up to this size a Jacobian is formed and its singular values are exact.
LARGEST_DENSE = 256
# Two products each; the largest singular values are exact after a few, the smallest ones bounded.
LANCZOS_STEPS = 64
# From the default up: each is the first of several tries, so that coarse steps do.
DAMPINGS = (1e-3, 1e-1, 10.0)
SMALL_REMAINDER = 0.1
EQUALLY_GOOD = 1.1


class DiagnosisCase(InverseProblems):
    """Everything in z = x / x_scale, the units in which the network works."""

    def __init__(self, simulator, start, num_jacobians):
        super().__init__(simulator, start)
        self.num_jacobians = num_jacobians
        self.compiled_by = functools.cache(self._compiled)
        self.solved_by = functools.cache(self._solve)

    @functools.cached_property
    def physics(self):
        return Nondimensional(self.simulator)

    @functools.cached_property
    def z_true(self):
        return self.physics.from_physical(self.x_true)

    @functools.cached_property
    def z0(self):
        return self.physics.from_physical(self.x0)

    @functools.cached_property
    def way(self):
        """z* - z0, float64 `[B, n]`."""
        return examples.rows(self.z_true) - examples.rows(self.z0)

    @functools.cached_property
    def gradient(self):
        """dL/dz at z0, float64 `[B, n]`."""
        problem = InverseProblem(self.physics, self.y_target, self.context).scaled_at(self.z0)
        scaled = problem.gradient(self.z0)[1]
        return examples.rows(scaled) * np.square(np.float64(problem.scale))[:, None]

    @functools.cached_property
    def is_exact(self):
        """Whether all singular values are known, and not those of a Krylov space only."""
        smaller = min(np.prod(self.simulator.x_shape), np.prod(self.simulator.y_shape))
        return self._spectrum is not None or smaller <= LARGEST_DENSE

    @functools.cached_property
    def _spectrum(self):
        """|J| mode by mode, where P is diagonal in a spectral basis; mirrored modes count once."""
        if not self.physics.has(Ability.DIAGONAL_FORM) or self.simulator.has(Ability.RESIDUAL):
            return None
        return np.sort(np.abs(self.physics.diagonal_form.transfer).ravel())[::-1]

    @functools.cached_property
    def singular_values(self):
        """Those of the residual's Jacobian dr/dz, falling, float64; an array for each of the first examples."""
        if self._spectrum is not None:
            return [self._spectrum]
        z, y_target = self.z_true[: self.num_jacobians], tf.roll(self.y_target, 1, axis=0)[: self.num_jacobians]
        context = tf.nest.map_structure(
            lambda entry: entry if entry is None else entry[: self.num_jacobians], self.context
        )

        def residual(z):
            y = self.physics.forward(z, context)
            return self.physics.residual(y, y_target, context) if self.physics.is_least_squares else y

        if self.is_exact:
            jacobian = np.asarray(derivatives.jacobian(residual, z), np.float64)
            return list(np.linalg.svd(jacobian, compute_uv=False))
        _, jvp, vjp = derivatives.linearize(residual, z)
        start = tf.constant(np.random.default_rng(13).standard_normal(z.shape), z.dtype)
        alphas, betas, counts = (part.numpy() for part in golub_kahan(jvp, vjp, start, LANCZOS_STEPS))
        return [
            np.linalg.svd(np.diag(alpha[:count]) + np.diag(beta[: count - 1], 1), compute_uv=False)
            for alpha, beta, count in zip(alphas, betas, np.maximum(counts, 1), strict=True)
        ]

    @property
    def condition(self):
        """Median over the examples of the largest over the smallest singular value."""
        with np.errstate(divide="ignore"):
            return float(np.median([values[0] / values[-1] for values in self.singular_values]))

    @property
    def gradient_decades(self):
        return decades(np.linalg.norm(self.gradient, axis=1))

    @property
    def distance_decades(self):
        return decades(np.linalg.norm(self.way, axis=1))

    @functools.cached_property
    def candidate(self):
        """What `auto_solver` chooses, with its reason."""
        return best_candidate(self.simulator)

    @functools.cached_property
    def remainders(self):
        """Mean share of the residual that one step leaves, by damping, up to one that serves; None without damping."""
        if not isinstance(self.candidate.solver, LevenbergMarquardt):
            return None
        remainders = {}
        for damping in DAMPINGS:
            result = self.solved_by(self.candidate.solver.with_options(damping=damping, max_steps=1))
            remainders[damping] = self.remainder(result)
            if remainders[damping] < SMALL_REMAINDER:
                break
        return remainders

    @functools.cached_property
    def solver(self):
        """The candidate, with the smallest damping that leaves about as little as the best."""
        if self.remainders is None:
            return self.candidate.solver
        enough = EQUALLY_GOOD * min(self.remainders.values())
        damping = min(damping for damping, remainder in self.remainders.items() if remainder <= enough)
        return self.candidate.solver.with_options(damping=damping)

    def objectives(self, z):
        return examples.objectives(self.physics, z, self.y_target, self.context)

    def remainder(self, result):
        """Mean over the examples of sqrt(L(x0 + U) / L(x0)), at most 1 each."""
        before, after = self.objectives(self.z0), self.objectives(result.x)
        return float(np.mean(np.sqrt(np.minimum(np.abs(after[before > 0] / before[before > 0]), 1.0))))

    @functools.cached_property
    def result(self):
        return self.solved_by(self.solver)

    @functools.cached_property
    def adjoint(self):
        """`z -> (P(z), J^T w)` compiled, w the residual of a start."""
        w = self.y_target - self.physics.forward(self.z0, self.context)
        return tf.function(lambda z: derivatives.vjp(self._simulated, z, w), autograph=False)

    def _simulated(self, z):
        return self.physics.forward(z, self.context)

    def _compiled(self, solver):
        return tf.function(functools.partial(solver.solve, self.physics), autograph=False)

    def _solve(self, solver):
        return self.compiled_by(solver)(self.z0, self.y_target, self.context)


def decades(sizes):
    """log10 of the 95 % quantile over the 5 % quantile of positive numbers; infinite where more than 5 % are 0."""
    low, high = np.quantile(sizes, (0.05, 0.95))
    return float(np.log10(high / low)) if low > 0 else float("inf")


def cosines(a, b):
    """Cosine of the angle between the vectors of each example `[B]`, 0 where one of them vanishes."""
    # Divided by their largest entry first: squares of gradients near 1e-200 vanish.
    a, b = (part / np.maximum(np.max(np.abs(part), axis=1, keepdims=True), np.finfo(float).tiny) for part in (a, b))
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / np.where(size > 0, size, 1.0)
