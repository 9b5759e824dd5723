"""What a GaussianPrior is measured on: principal components of examples, and the spectrum of what they leave out."""

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.ops import spectral_bases
from keras_sip.ops.principal_components import principal_components, with_signs
from keras_sip.simulators.base import check_simulator_interface

# Up to this many unknowns all principal components are taken: the covariance is dense.
LARGEST_DENSE = 64
# Principal components of larger x at most, unless their number is given: each costs a solver one simulation a step.
MOST_COMPONENTS = 32
# Samples drawn at once.
CHUNK = 256
# What the components leave out is rounding below this fraction of the deviation of x.
ROUNDING = 1e-6


def measured(simulator, x, *, examples, components, explained_variance, basis, spectrum, seed):
    """The arguments of a `GaussianPrior` of examples: see `GaussianPrior.measured`."""
    check_simulator_interface(simulator)
    x = _drawn(simulator, examples, seed) if x is None else np.asarray(simulator.as_x(x))
    x = np.asarray(x, np.float64)
    check_number("explained_variance", explained_variance, exclusive=True, maximum=1.0)
    if components is not None:
        check_positive_int("components", components, minimum=0)
    _check_examples(x, components)
    is_field = x.ndim > 2
    basis = ("fourier" if is_field else "components") if basis is None else basis
    if not is_field and basis != "components":
        raise ValueError(three_part("basis='components' or None for vectors", f"basis={basis!r}", "Leave `basis` out."))
    mean = np.mean(x, axis=0)
    scale = _deviation(x - mean, is_field)
    rows = ((x - mean) / scale).reshape(len(x), -1)
    variances, directions = principal_components(rows)
    total = float(np.sum(np.square(rows))) / (len(x) - 1)
    number = _number_of_components(variances, total, mean.size, components, explained_variance)
    variances, directions = variances[:number], directions[:number]
    captured = min(float(np.sum(variances)) / total, 1.0)
    rest = None
    if spectrum and number < mean.size:
        rest = _spectrum_of_rest(rows, directions, mean.shape, basis)
    if rest is not None:
        variances, directions, rest = _sum_as_measured(variances, directions, rest, mean.shape, basis)
    factor = (np.sqrt(variances)[:, None] * directions).reshape(-1, *mean.shape) * scale
    return {
        "mean": mean,
        "factor": factor,
        "spectrum": rest,
        "basis": basis,
        "scale": scale,
        "captured": captured,
        "examples": len(x),
    }


def _drawn(simulator, examples, seed):
    """x of `examples` samples, NumPy; y, which is not needed, is not simulated."""
    check_positive_int("examples", examples, minimum=2)
    if not simulator.has("sample"):
        raise TypeError(
            three_part(
                "a simulator that defines `sample`, or examples of x",
                f"{simulator!r} without `sample`",
                "Pass your own: GaussianPrior.measured(simulator, x=array).",
            )
        )
    # Asked for while a graph is traced, the samples must still be drawn as numbers.
    with tf.init_scope():
        # A graph leaves out what x does not depend on.
        chunk = tf.function(lambda seed: simulator.sample(min(CHUNK, examples), seed)["x"], autograph=False)
        batches = [chunk(tf.constant([seed, index], tf.int64)).numpy() for index in range(-(-examples // CHUNK))]
    return np.concatenate(batches)[:examples]


def _check_examples(x, components):
    remedy = "Pass more examples, or fewer `components`."
    if len(x) < 2 or (components is not None and components >= len(x)):
        needed = max(2, (components or 0) + 1)
        raise ValueError(three_part(f"at least {needed} examples of x", f"{len(x)}", remedy))
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if bad.size:
        raise ValueError(
            three_part(
                "finite examples of x",
                f"NaN or infinity in {bad.size} of {len(x)}, first in example {bad[0]}",
                "Leave them out, or mend `sample`.",
            )
        )
    if not np.any(x != x[0]):
        raise ValueError(
            three_part(
                "examples of x that differ from each other",
                f"{len(x)} equal ones" + (", all zero" if not np.any(x) else ""),
                "A prior is measured on how x varies: check `sample`, or the array.",
            )
        )


def _deviation(differences, is_field):
    """The unit of each component: its standard deviation, that of its channel for fields."""
    axes = tuple(range(differences.ndim - 1)) if is_field else (0,)
    peak = np.max(np.abs(differences), axis=axes)
    unit = np.where(peak > 0, peak, 1.0)
    deviation = unit * np.sqrt(np.mean(np.square(differences / unit), axis=axes))
    # A component that never varies is no unit.
    return np.broadcast_to(np.where(deviation > 0, deviation, 1.0), differences.shape[1:])


def _number_of_components(variances, total, size, components, explained_variance):
    if components is not None:
        return min(components, len(variances))
    if size <= LARGEST_DENSE:
        return len(variances)
    enough = int(np.searchsorted(np.cumsum(variances) / total, explained_variance)) + 1
    return min(enough, len(variances), MOST_COMPONENTS)


def _spectrum_of_rest(rows, directions, x_shape, basis):
    """Power of what the components leave of the examples; None where that is rounding."""
    rest = rows - (rows @ directions.T) @ directions
    # The mean and the components were fitted to the same examples.
    freedom = len(rows) - 1 - len(directions)
    if freedom < 1 or np.sum(np.square(rest)) <= ROUNDING**2 * np.sum(np.square(rows)):
        return None
    return spectral_bases.mean_power(tf.constant(rest.reshape(-1, *x_shape)), basis) * len(rows) / freedom


def _sum_as_measured(variances, directions, rest, x_shape, basis):
    """(variances, directions, spectrum) of components and rest whose sum has the measured variances.

    The rest, being stationary, has a share in the directions of the components too: they get the less, and where they
    do not reach it gets the more.
    """
    if not len(directions):
        return variances, directions, rest
    fields = tf.constant(directions.reshape(-1, *x_shape))
    shared = np.asarray(spectral_bases.spectral_filter(fields, rest, basis)).reshape(len(directions), -1)
    shared = shared @ directions.T
    total = np.sum(spectral_bases.multiplicity(x_shape, basis) * rest)
    gain = total / (total - np.trace(shared))
    left, rotation = np.linalg.eigh(np.diag(variances) - gain * shared)
    return np.maximum(left[::-1], 0.0), with_signs(rotation.T[::-1] @ directions), gain * rest
