"""The inverse problem in white coordinates of a Gaussian prior: steps exact in its components, by CG outside."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.ops import batched, spectral_bases
from keras_sip.ops.conjugate_gradient import conjugate_gradient
from keras_sip.priors import Whitened
from keras_sip.solvers.problem import half_square

# What a simulation and a difference leave in each datum, in roundings of its size.
ROUNDINGS = 4
# Newton steps for the damping that gives a step of the trust region's radius.
SECULAR_STEPS = 4
CG_TOLERANCE = 1e-3
# Random fields that tell how a simulator's own residual passes noise in y on.
NOISE_PROBES = 8


class WhiteStep(NamedTuple):
    """A step in white coordinates and what it promises, per example.

    Attributes:
        step: `Whitened`.
        slope: Of phi along it `[B]`, below 0; float64.
        curvature: Second derivative of the model of phi along it `[B]`; float64.
    """

    step: Whitened
    slope: tf.Tensor
    curvature: tf.Tensor

    def decrease(self, share):
        """What the model promises for a share of the step, `[B]`."""
        return -share * (self.slope + 0.5 * share * self.curvature)


class WhitenedProblem:
    """phi(z) = 1/2 |r(m + C^(1/2) z) / sigma|^2 + 1/2 |z - z_anchor|^2.

    Args:
        problem: An `InverseProblem`; its unit of r is that of sigma.
        prior: A `GaussianPrior`.
        deviation: sigma, the noise in each entry of r, broadcast against it.
        anchor: `Whitened`; without a field where the rest takes no part.
    """

    def __init__(self, problem, prior, deviation, anchor):
        self.problem, self.prior, self.anchor = problem, prior, anchor
        self.per_deviation = 1.0 / deviation

    def weighted(self, x):
        """r / sigma `[B, ...]` at x."""
        residual = self.problem.residual(x)
        return residual * self.per_deviation

    def value(self, z):
        """phi `[B]`, float64."""
        weighted = self.weighted(self.prior.unwhiten(z))
        return half_square(tf.cast(weighted, tf.float64)) + 0.5 * squared_norm(difference(z, self.anchor))


class WhitenedModel:
    """phi to second order (Gauss-Newton) around z: r / sigma + G a + K w, with G and K its products with C^(1/2).

    G `[B, k, M]`, one row for each component, is formed by forward-mode products of all directions at once; systems in
    the components are solved exactly, in float64.

    Source: Bui-Thanh, Ghattas, Martin, Stadler, SISC 35 (2013), Section 5; Nocedal and Wright, Numerical Optimization,
    2nd ed., Algorithm 4.3 for the damping.
    """

    def __init__(self, problem, z, residual, jacobian):
        self.whitened, self.z = problem, z
        self._unweighted, self._residual = residual, residual * problem.per_deviation
        weights = tf.reshape(problem.per_deviation + tf.zeros_like(residual), [-1, 1, jacobian.shape[2]])
        self.jacobian = tf.cast(jacobian, tf.float64) * tf.cast(weights, tf.float64)
        self.residual = _flat(self._residual)
        self.pull = tf.nest.map_structure(lambda t: tf.cast(t, tf.float64), difference(z, problem.anchor))
        self._square = tf.matmul(self.jacobian, self.jacobian, transpose_b=True)

    @property
    def misfit(self):
        """1/2 |r / m|^2 at z `[B]`, in the units of the `InverseProblem`."""
        return half_square(self._unweighted)

    @property
    def value(self):
        """phi at z `[B]`, float64."""
        return half_square(self.residual) + 0.5 * squared_norm(self.pull)

    def gradient(self):
        """Of phi with respect to the components `[B, k]`, float64."""
        return tf.linalg.matvec(self.jacobian, self.residual) + self.pull.components

    def optimality(self):
        """The largest cosine between (r / sigma, z - z_anchor) and a column of its Jacobian, `[B]`."""
        norms = tf.sqrt(tf.linalg.diag_part(self._square) + 1.0)
        size = tf.sqrt(2 * self.value)
        return batched.max_abs(self.gradient() / norms) / tf.where(size > 0, size, tf.ones_like(size))

    def cholesky(self, damping=None):
        """Of I + G G^T, or with the damping `[B]` on the diagonal as well: `[B, k, k]`; identity where not finite."""
        identity = tf.eye(self._square.shape[1], dtype=tf.float64)
        matrix = self._square + (1.0 if damping is None else 1.0 + damping[:, None, None]) * identity
        # The CPU's kernel raises, for the whole batch, where one example is not finite.
        finite = batched.all_finite(matrix)
        return tf.linalg.cholesky(batched.where_example(finite, matrix, tf.zeros_like(matrix) + identity))

    def components_step(self, radius):
        """The minimum of the model in the components, no longer than `radius` `[B]`: a `WhiteStep`."""
        step, _ = self._constrained(self.gradient(), radius)
        return self._described(Whitened(step), tf.linalg.matvec(self.jacobian, step, transpose_a=True))

    def full_step(self, radius, cg_steps):
        """A step in components and rest: a `WhiteStep`.

        The components are eliminated exactly, so that conjugate gradients see only what they leave out,

            (K^T W K + I) dw = -(K^T W (r / sigma + G da_0) + w),   W = I - G^T (I + G G^T)^-1 G,

        in coordinates w = S^-1/2 (1 + 1 / (alpha S))^-1/2 v, alpha = |K' g|^2 / |g|^2 the curvature along the gradient
        g in x: modes that the data decide are left as they are in x (whitened, their spectrum is steeper and CG
        slower), modes that the prior decides are white and cost no steps.
        """
        problem, prior, dtype = self.whitened.problem, self.whitened.prior, self._residual.dtype
        first, factor = self._constrained(self.gradient(), radius)
        left = self.residual + tf.linalg.matvec(self.jacobian, first, transpose_a=True)
        x = prior.unwhiten(self.z)
        *_, jvp, vjp = problem.linearize(x)
        scale, weight = tf.constant(prior.scale, dtype), self.whitened.per_deviation
        shape = tf.shape(self._residual)

        def times(field):  # in units of `scale`
            return weight * jvp(scale * field)

        def transposed(flat):
            return scale * vjp(weight * tf.reshape(tf.cast(flat, dtype), shape))

        def without_components(flat):
            inner = tf.linalg.matvec(self.jacobian, flat)
            solved = tf.linalg.cholesky_solve(factor, inner[..., None])[..., 0]
            return flat - tf.linalg.matvec(self.jacobian, solved, transpose_a=True)

        descent = transposed(left)
        direction = descent / batched.expand(batched.safe_scale(descent), descent)
        lengths = batched.dot(direction, direction)
        alpha = tf.square(batched.norm(times(direction))) / tf.where(lengths > 0, lengths, tf.ones_like(lengths))
        largest = tf.cast(np.finfo(dtype.as_numpy_dtype).max ** 0.25, dtype)
        alpha = tf.clip_by_value(tf.where(tf.math.is_finite(alpha), alpha, 1.0), 1 / largest, largest)
        modes = tf.constant(prior.floored_spectrum, dtype)
        per_alpha = tf.reshape(1.0 / alpha, [-1] + [1] * prior.floored_spectrum.ndim)
        # S^1/2 (1 + 1 / (alpha S))^1/2 / S^1/2, from white w to v and back, and v to the field.
        to_field = 1.0 / tf.sqrt(1.0 + per_alpha / modes)
        to_white = to_field / tf.sqrt(modes)

        def filtered(field, factors):
            return spectral_bases.spectral_filter(field, factors, prior.basis)

        def product(v):
            inner = without_components(_flat(times(filtered(v, to_field))))
            return filtered(transposed(inner), to_field) + filtered(v, tf.square(to_white))

        pull = tf.cast(self.pull.field, dtype)
        right = -filtered(descent, to_field) - filtered(pull, to_white)
        v = conjugate_gradient(product, right, max_steps=cg_steps, tolerance=CG_TOLERANCE).solution
        change = _flat(times(filtered(v, to_field)))
        inner = tf.linalg.matvec(self.jacobian, change)
        step = first - tf.linalg.cholesky_solve(factor, inner[..., None])[..., 0]
        moved = change + tf.linalg.matvec(self.jacobian, step, transpose_a=True)
        return self._described(Whitened(step, tf.cast(filtered(v, to_white), tf.float64)), moved)

    def _constrained(self, gradient, radius):
        """(step, Cholesky factor of its damped system): -(I + G G^T + lambda I)^-1 g, no longer than the radius."""
        radius = tf.cast(radius, tf.float64)
        damping = tf.zeros_like(radius)
        for _ in range(SECULAR_STEPS):
            factor = self.cholesky(damping)
            step = -tf.linalg.cholesky_solve(factor, gradient[..., None])[..., 0]
            length = tf.norm(step, axis=1)
            inner = tf.norm(tf.linalg.triangular_solve(factor, step[..., None])[..., 0], axis=1)
            inner = tf.where(inner > 0, inner, tf.ones_like(inner))
            more = tf.square(length / inner) * (length - radius) / radius
            damping = tf.where(length > radius, damping + more, damping)
        share = tf.minimum(tf.ones_like(radius), radius / tf.where(length > 0, length, tf.ones_like(length)))
        return share[:, None] * step, factor

    def _described(self, step, moved):
        slope = tf.reduce_sum(self.residual * moved, axis=1) + inner_product(self.pull, step)
        curvature = tf.reduce_sum(tf.square(moved), axis=1) + squared_norm(step)
        dtype = self._residual.dtype
        return WhiteStep(tf.nest.map_structure(lambda t: tf.cast(t, dtype), step), slope, curvature)


def noise_deviation(problem, residual, relative):
    """sigma, the standard deviation of the noise in each entry of the residual, broadcast against it.

    context["noise_level"], where it is known: a number for each example, or one for each datum. Else a fraction of the
    residual's root mean square. At least the rounding of y. Where a simulator has a residual of its own, noise in y is
    passed through it, and sigma is that of the entry that gets most: its weights remain.
    """
    unit = 1.0 / problem.scale
    target = batched.rms(problem.y_target) * unit
    size = batched.rms(residual)
    rounding = ROUNDINGS * np.finfo(residual.dtype.as_numpy_dtype).eps * (target + size)
    rounding = tf.where(rounding > 0, rounding, tf.ones_like(rounding))
    level = (problem.context or {}).get("noise_level")
    if level is None:
        return batched.expand(tf.sqrt(tf.square(relative * size) + tf.square(rounding)), residual)
    entries = level.shape[1:].num_elements()
    level = tf.abs(level)
    if problem.simulator.has("residual"):
        level = tf.reshape(level, [-1, *(problem.y_target.shape[1:] if entries > 1 else [1])])
        per_example = _passed_on(problem, _like(level, problem.y_target))
        return batched.expand(tf.sqrt(tf.square(per_example) + tf.square(rounding)), residual)
    if entries > 1:
        level = tf.reshape(level, tf.shape(residual)) * batched.expand(unit, residual)
        return tf.sqrt(tf.square(level) + tf.square(batched.expand(rounding, residual)))
    level = tf.reshape(level, [-1]) * unit
    return batched.expand(tf.sqrt(tf.square(level) + tf.square(rounding)), residual)


def _passed_on(problem, level):
    """The largest deviation of an entry of the residual / m where y has noise of a level, `[B]`."""
    simulator, y, context = problem.simulator, problem.y_target, problem.context
    here = simulator.residual(y, y, context)
    squares = tf.zeros_like(here)
    noise = np.random.default_rng(23).standard_normal((NOISE_PROBES, 1, *y.shape[1:]))
    unit = batched.expand(1.0 / problem.scale, here)
    for probe in noise:
        moved = simulator.residual(y + level * tf.constant(probe, y.dtype), y, context)
        squares += tf.square((moved - here) * unit)
    return tf.sqrt(batched.max_abs(squares) / NOISE_PROBES)


def difference(a, b):
    """a - b of white coordinates."""
    return tf.nest.map_structure(tf.subtract, a, b)


def inner_product(a, b):
    """<a, b> `[B]` of white coordinates."""
    total = tf.reduce_sum(a.components * b.components, axis=1)
    # A step in the components alone has no field.
    return total + batched.dot(a.field, b.field) if a.has_field and b.has_field else total


def squared_norm(z):
    """|z|^2 `[B]`, float64."""
    z = tf.nest.map_structure(lambda t: tf.cast(t, tf.float64), z)
    return inner_product(z, z)


def _like(level, like):
    return level if level.shape.rank == like.shape.rank else batched.expand(tf.reshape(level, [-1]), like)


def _flat(tensor) -> Any:
    """`[B, n]` in float64."""
    return tf.cast(tf.reshape(tensor, [-1, tensor.shape[1:].num_elements()]), tf.float64)
