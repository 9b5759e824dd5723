"""Operators on periodic staggered (marker-and-cell) grids in two dimensions.

A staggered velocity `[B, H, W, 2]` holds component k of cell i on the LOWER face of axis k: component 0 of cell (i, j)
lies at (i, j + 1/2) spacings, component 1 at (i + 1/2, j). A centred field lies at (i + 1/2, j + 1/2).
"""

import numpy as np
import tensorflow as tf

from keras_sip.ops import spectral_transforms as transforms

AXES = (1, 2)


def to_faces(centred):
    """Centred velocity `[B, H, W, 2]` to faces: the mean of the two cells at each face. Second-order accurate."""
    return _by_component(centred, lambda component, axis: 0.5 * (component + below(component, axis)))


def to_centres(staggered):
    """Staggered velocity `[B, H, W, 2]` to cell centres: the mean of a cell's two faces. Second-order accurate."""
    return _by_component(staggered, lambda component, axis: 0.5 * (component + above(component, axis)))


def velocity_at_faces(staggered):
    """The whole velocity at the faces of each axis: two tensors `[B, H, W, 2]`, first at those of component 0.

    The component that lives there is taken as it is, the other is the mean of the four around the face.
    """
    u, v = tf.split(staggered, 2, axis=-1)
    v_between = 0.25 * (v + below(v, 1) + above(v + below(v, 1), 2))
    u_between = 0.25 * (u + below(u, 2) + above(u + below(u, 2), 1))
    return tf.concat([u, v_between], -1), tf.concat([u_between, v], -1)


def divergence(staggered, spacing):
    """Outflow of each cell over its area, `[B, H, W, 1]`: sum over k of (v_k on the upper - on the lower face) / dx."""
    u, v = tf.split(staggered, 2, axis=-1)
    return (above(u, 1) - u + above(v, 2) - v) / spacing


def pressure_gradient(pressure, spacing):
    """Gradient of a centred `[B, H, W, 1]` on the faces `[B, H, W, 2]`; minus the transpose of `divergence`."""
    return tf.concat([(pressure - below(pressure, axis)) / spacing for axis in AXES], -1)


def make_divergence_free(staggered, spacing):
    """The closest velocity without divergence, `[B, H, W, 2]`: v - grad p with laplace p = div v.

    div grad is here the five-point Laplacian, which real FFTs invert exactly on the periodic domain; the mean velocity
    stays as it is. An orthogonal projection: doing it twice changes nothing.

    Source: Harlow and Welch 1965; Chorin 1968.
    """
    source = divergence(staggered, spacing)
    eigenvalues = transforms.laplacian_eigenvalues(staggered.shape[1:3], spacing, "periodic", "float64")
    # The mean of a divergence is 0; that of the pressure is free.
    eigenvalues[0, 0] = np.inf
    pressure = transforms.periodic_filter(source, 1.0 / eigenvalues)
    return staggered - pressure_gradient(pressure, spacing)


def diffuse(field, amount, spacing):
    """exp(amount * laplace) of a periodic field `[B, H, W, C]`, exact for the five-point Laplacian.

    Args:
        field: At any points of the grid, staggered ones included.
        amount: Viscosity times time, a length squared.
        spacing: dx.

    It commutes with `make_divergence_free`.
    """
    eigenvalues = transforms.laplacian_eigenvalues(field.shape[1:3], spacing, "periodic", "float64")
    return transforms.periodic_filter(field, np.exp(amount * eigenvalues))


def below(field, axis):
    """The value of the neighbour one cell down the axis: f_{i - 1}."""
    return tf.roll(field, 1, axis)


def above(field, axis):
    """The value of the neighbour one cell up the axis: f_{i + 1}."""
    return tf.roll(field, -1, axis)


def _by_component(velocity, function):
    components = tf.split(velocity, 2, axis=-1)
    return tf.concat([function(component, axis) for component, axis in zip(components, AXES, strict=True)], -1)
