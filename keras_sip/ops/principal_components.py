"""Principal components of examples, in NumPy float64."""

import numpy as np

# Variances below this fraction of the largest are rounding errors of float64 covariances; components that are made of
# examples are orthogonal to each other only above it.
SMALLEST_VARIANCE = 1e-12


def principal_components(rows):
    """(variances `[r]`, components `[r, n]`) of centred rows `[N, n]`: orthonormal, in descending order of variance.

    Only those whose variance is more than rounding; r is at most n and N - 1. The sign is chosen so that the entry of
    largest magnitude is positive: one set of examples gives one result.

    Source: Jolliffe, Principal Component Analysis, 2nd ed., Section 3.5 (by the smaller of the two square matrices).
    """
    count, size = rows.shape
    if size <= count:
        variances, vectors = np.linalg.eigh(rows.T @ rows / (count - 1))
        components = vectors.T[::-1]
        variances = variances[::-1]
    else:
        variances, vectors = np.linalg.eigh(rows @ rows.T / (count - 1))
        variances = variances[::-1]
        components = vectors.T[::-1] @ rows
        components /= np.maximum(np.linalg.norm(components, axis=1, keepdims=True), np.finfo("float64").tiny)
    kept = min(size, count - 1, int(np.sum(variances > SMALLEST_VARIANCE * max(variances[0], 0.0))))
    return variances[:kept], with_signs(components[:kept])


def with_signs(components):
    """Rows times 1 or -1 so that the entry of largest magnitude of each is positive."""
    if not components.size:
        return components
    largest = np.argmax(np.abs(components), axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return components * np.where(signs == 0, 1.0, signs)[:, None]
