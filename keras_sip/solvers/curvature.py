"""The objective of each example to second order, along the eigenvectors of its Hessian: what Newton's methods share."""

from typing import NamedTuple

import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops.eigen import symmetric_eigen
from keras_sip.solvers.base import Status, Step

# The Hessian takes one product for each component, all traced into one graph, and its eigenproblem grows as n^3.
LARGEST_X = 256


class Curvature(NamedTuple):
    """The quadratic model of each example along its eigenvectors, in the units of `InverseProblem`.

    Attributes:
        objective: L / m^2 `[B]`, in the simulator's precision; the others are in float64.
        slopes: g_j, the components of the gradient, `[B, n]`.
        eigenvalues: lambda_j in ascending order, `[B, n]`.
        eigenvectors: As columns, `[B, n, n]`.
        is_flat: Where lambda_j is nothing but rounding, boolean `[B, n]`.
        is_level: Where g_j is nothing but rounding, boolean `[B, n]`.
    """

    objective: tf.Tensor
    slopes: tf.Tensor
    eigenvalues: tf.Tensor
    eigenvectors: tf.Tensor
    is_flat: tf.Tensor
    is_level: tf.Tensor


def curvature(problem, x):
    """The `Curvature` of the problem's objective at x."""
    model = problem.quadratic_model(x)
    eigenvalues, eigenvectors = symmetric_eigen(model.hessian)
    slopes = tf.linalg.matvec(eigenvectors, model.gradient, transpose_a=True)
    steepest = tf.reduce_max(tf.abs(slopes), axis=1, keepdims=True)
    return Curvature(
        objective=model.objective,
        slopes=slopes,
        eigenvalues=eigenvalues,
        eigenvectors=eigenvectors,
        is_flat=tf.abs(eigenvalues) <= model.hessian_rounding[:, None],
        is_level=tf.abs(slopes) <= model.gradient_rounding * steepest,
    )


def curvature_step(x, along, components, singular, tolerance):
    """The `Step` with these `components` `[B, n]` along the eigenvectors; a `singular` one `[B]` is not defined.

    Where the gradient vanishes, the example is at its minimum if all curvatures are positive, else there is no step.
    """
    convex = tf.reduce_all((along.eigenvalues > 0) & ~along.is_flat, axis=1)
    stationary = tf.reduce_all(along.slopes == 0, axis=1)
    # Of the quadratic model; the difference of two objectives would drown in rounding.
    decrease = 0.5 * tf.reduce_sum(tf.abs(along.slopes * components), axis=1)
    enough = tolerance**2 * tf.abs(tf.cast(along.objective, decrease.dtype))
    update = tf.linalg.matvec(along.eigenvectors, components)
    return Step(
        update=tf.reshape(tf.cast(update, x.dtype), tf.shape(x)),
        objective=along.objective,
        converged=convex & (stationary | (decrease <= enough)),
        failure=tf.where(singular | stationary, int(Status.BREAKDOWN), 0),
        state=(),
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
