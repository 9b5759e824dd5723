"""The objective of each example to second order, along the eigenvectors of its Hessian: what Newton's methods share."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops import batched
from keras_sip.ops.eigen import symmetric_eigen
from keras_sip.solvers.base import Status, Step
from keras_sip.solvers.problem import ROUNDINGS

# The Hessian takes one product for each component, all traced into one graph, and its eigenproblem grows as n^3.
LARGEST_X = 256


class Curvature(NamedTuple):
    """The quadratic model of each example along the eigenvectors of D^-1 H D^-1, in the units of `InverseProblem`.

    All in float64 but for `objective`.

    Attributes:
        unit: D `[B, n]`, a diagonal.
        slopes: g_j, the components of D^-1 times the gradient, `[B, n]`.
        eigenvalues: lambda_j in ascending order, `[B, n]`.
        eigenvectors: As columns, `[B, n, n]`.
        is_flat: Where lambda_j is nothing but rounding, boolean `[B, n]`.
        is_level: Where g_j is nothing but rounding, boolean `[B, n]`.
    """

    unit: tf.Tensor
    slopes: tf.Tensor
    eigenvalues: tf.Tensor
    eigenvectors: tf.Tensor
    is_flat: tf.Tensor
    is_level: tf.Tensor

    @property
    def is_convex(self):
        """Whether L grows along every direction that it depends on, boolean `[B]`."""
        return tf.reduce_all(((self.eigenvalues > 0) & ~self.is_flat) | (self.is_flat & self.is_level), axis=1)

    def displacement(self, components):
        """dx `[B, n]` with these components along the eigenvectors."""
        return tf.linalg.matvec(self.eigenvectors, components) / self.unit


def curvature(model, precision, *, damping=None, scaled=True):
    """The `Curvature` of a `QuadraticModel`.

    Scaled by the square roots of the Hessian's diagonal (of the magnitudes of its two parts), what an eigenvalue tells
    of the rank does not depend on the units of x.

    Args:
        precision: The simulator's NumPy dtype, in which J and the bending were computed.
        damping: Added to the diagonal of H, `[B, 1]`, or None.
        scaled: False leaves D out: eigenvectors and eigenvalues of H itself.
    """
    size = model.gradient.shape[1]
    hessian = model.squared + model.bending
    diagonal = tf.abs(tf.linalg.diag_part(model.squared)) + tf.abs(tf.linalg.diag_part(model.bending))
    if damping is not None:
        hessian += damping[:, :, None] * tf.eye(size, dtype=tf.float64)
        diagonal += damping
    unit = tf.sqrt(tf.where(diagonal > 0, diagonal, tf.ones_like(diagonal))) if scaled else tf.ones_like(diagonal)
    per_entry = unit[:, :, None] * unit[:, None, :]
    eigenvalues, eigenvectors = symmetric_eigen(hessian / per_entry)
    gradient = model.gradient / unit
    slopes = tf.linalg.matvec(eigenvectors, gradient, transpose_a=True)
    # Sums are taken in float64, of which J^T J of float32 numbers is a product without rounding.
    rounding = np.finfo(precision).eps * size
    of_square = rounding**2 + np.finfo("float64").eps * size
    largest = tf.reduce_max(tf.abs(slopes), axis=1, keepdims=True)
    level = tf.maximum(rounding * largest, ROUNDINGS * tf.cast(model.rounding, tf.float64)[:, None])
    flat = of_square * batched.max_abs(model.squared / per_entry) + rounding * batched.max_abs(
        model.bending / per_entry
    )
    if not scaled:
        # The rounding of the residual is in units of columns.
        level = rounding * largest
    return Curvature(
        unit=unit,
        slopes=slopes,
        eigenvalues=eigenvalues,
        eigenvectors=eigenvectors,
        is_flat=tf.abs(eigenvalues) <= flat[:, None],
        is_level=tf.abs(slopes) <= level,
    )


def newton_components(along):
    """(-g_j / lambda_j, where that is not defined `[B]`): the components of Newton's step."""
    ignored = along.is_level & along.is_flat
    safe = tf.where(along.is_flat, tf.ones_like(along.eigenvalues), along.eigenvalues)
    components = tf.where(along.is_flat, tf.zeros_like(safe), -along.slopes / safe)
    return components, tf.reduce_any(along.is_flat & ~ignored, axis=1)


def curvature_step(x, model, along, displacement, undefined):
    """The `Step` by `displacement` `[B, n]`, whose measures are those of Newton's step.

    Args:
        along: The scaled `Curvature`.
        undefined: Where there is no step, boolean `[B]`.

    Where the gradient vanishes, the example is at its minimum if all curvatures are positive, else there is no step.
    """
    newton, _ = newton_components(along)
    decrease = 0.5 * tf.reduce_sum(tf.square(newton) * tf.abs(along.eigenvalues), axis=1)
    is_rounding = tf.sqrt(2 * decrease) <= ROUNDINGS * tf.cast(model.rounding, tf.float64)
    norms = tf.cast(tf.reshape(model.norms, tf.shape(along.unit)), tf.float64)
    flat_x = tf.cast(tf.reshape(x, tf.shape(along.unit)), tf.float64)
    length = batched.norm(norms * along.displacement(newton)) / batched.norm(norms * flat_x)
    size = tf.abs(tf.cast(model.objective, tf.float64))
    stationary = tf.reduce_all(along.slopes == 0, axis=1)
    nan = tf.constant(np.nan, tf.float64)
    # At a saddle the first-order test holds too, but that is no solution.
    optimality, decrease, length = (
        tf.cast(tf.where(along.is_convex, tf.cast(measure, tf.float64), nan), x.dtype)
        for measure in (model.optimality, decrease / tf.where(size > 0, size, tf.ones_like(size)), length)
    )
    return Step(
        update=tf.reshape(tf.cast(displacement, x.dtype), tf.shape(x)),
        objective=model.objective,
        converged=along.is_convex & (is_rounding | stationary) & (batched.max_abs(along.eigenvalues) > 0),
        failure=tf.where(undefined | stationary, int(Status.BREAKDOWN), 0),
        state=(),
        optimality=optimality,
        decrease=decrease,
        length=length,
    )


def check_few_components(simulator, solver):
    """Refuse a simulator whose x is too large for a dense Hessian."""
    size = 1
    for length in simulator.x_shape:
        size *= length
    if size > LARGEST_X:
        raise TypeError(
            three_part(
                f"an x of at most {LARGEST_X} components, for a dense Hessian",
                f"{simulator!r} with {size}",
                f"Use a solver without matrices instead of {type(solver).__name__}: GaussNewton() or "
                "LevenbergMarquardt().",
            )
        )
