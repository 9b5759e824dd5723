"""Slow, plain NumPy and SciPy computations that the tests compare with."""

import numpy as np
import scipy.sparse


def central_difference(function, x, direction, step):
    """(f(x + step v) - f(x - step v)) / (2 step), for a function of NumPy arrays."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def laplacian_matrix(resolution, spacing=1.0, periodic=False):
    """The Laplacian of 2 d + 1 points as a sparse matrix, assembled neighbour by neighbour."""
    matrix = scipy.sparse.lil_matrix((np.prod(resolution), np.prod(resolution)))
    for cell in np.ndindex(*resolution):
        row = np.ravel_multi_index(cell, resolution)
        matrix[row, row] -= 2 * len(resolution)
        for axis in range(len(resolution)):
            for shift in (-1, 1):
                neighbour = list(cell)
                neighbour[axis] += shift
                if periodic:
                    neighbour[axis] %= resolution[axis]
                if 0 <= neighbour[axis] < resolution[axis]:
                    matrix[row, np.ravel_multi_index(neighbour, resolution)] += 1
    return matrix.tocsc() / spacing**2


def dense_jacobian(function, x, step=1e-6):
    """`[B, m, n]` by central differences, column by column, of a function of NumPy arrays `[B, ...]`."""
    columns = []
    for index in np.ndindex(*x.shape[1:]):
        direction = np.zeros_like(x)
        direction[(slice(None), *index)] = 1
        columns.append(central_difference(function, x, direction, step).reshape(len(x), -1))
    return np.stack(columns, axis=-1)


def relative_error(received, expected):
    """Largest difference, relative to the largest expected magnitude."""
    received, expected = np.asarray(received, np.float64), np.asarray(expected, np.float64)
    return np.max(np.abs(received - expected)) / np.max(np.abs(expected))
