"""GaussianPrior: what is known of x before y is seen, measured on examples."""

import base64
import functools
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import random_fields, spectral_bases
from keras_sip.ops.principal_components import with_signs
from keras_sip.priors import measuring

# Standard deviations of the rest's modes are at least this fraction of the largest: they are divided by.
SMALLEST_DEVIATION = 1e-5


class Whitened(NamedTuple):
    """Coordinates in which a Gaussian is white noise of variance 1.

    Attributes:
        components: `[B, k]`, one for each row of the factor.
        field: `[B, *x_shape]` for the rest, or () where the prior has no spectrum.
    """

    components: tf.Tensor
    # Not None, which is an entry to tf.nest and to loops.
    field: Any = ()

    @property
    def has_field(self):
        return not isinstance(self.field, tuple)


@keras.saving.register_keras_serializable(package="keras_sip")
class GaussianPrior:
    """x ~ N(m, C),   C = F^T F + D B^T S B D: a few directions, and on fields a stationary spectrum of the rest.

    F `[k, *x_shape]` is a factor, principal components times their standard deviations; B the orthonormal transform of
    `basis`, S the power spectrum of what F leaves out, D = diag(scale). Without a spectrum C has rank k: x varies in k
    directions only (`project`). Small x has a dense factor, k the number of unknowns.

        prior = keras_sip.GaussianPrior.measured(simulator)             # on the simulator's own samples
        prior = keras_sip.GaussianPrior.measured(simulator, x=array)    # on yours

    The root of C is C^(1/2) = (F^T, D B^T S^(1/2) B): it maps white coordinates z, a `Whitened`, to x - m.

    All numbers are kept in float64; products are taken in the precision of their argument, what divides by C in
    float64. Equal priors compare equal; copies, pickles and JSON keep every bit.

    Source: Bui-Thanh, Ghattas, Martin, Stadler, A computational framework for infinite-dimensional Bayesian inverse
    problems, SISC 35 (2013), for the use; Tipping and Bishop, Probabilistic principal component analysis (1999), for
    the sum of components and a rest.

    Args:
        mean: m `[*x_shape]`.
        factor: F `[k, *x_shape]`, rows in the unit of x; need not be orthogonal.
        spectrum: S in the layout of `ops.spectral_bases`, or None.
        basis: "fourier", "sine", "cosine"; "components" for vectors, where S is a variance for each component.
        scale: D, the unit of each component of x, broadcast against `[*x_shape]`, one number for each channel of a
            field. What is nearest (`project`) is judged in it.
        captured: Share of the variance of the examples that F holds, in units of `scale`.
        examples: How many examples it was measured on; 0 where it was given.
    """

    def __init__(self, mean, factor, *, spectrum=None, basis="fourier", scale=1.0, captured=1.0, examples=0):
        self.mean = _finite_array("mean", mean)
        self.factor = _finite_array("factor", factor)
        self.x_shape = self.mean.shape
        self.basis = check_choice("basis", basis, spectral_bases.BASES)
        self.captured = check_number("captured", captured, maximum=1.0 + 1e-9)
        self.examples = check_positive_int("examples", examples, minimum=0)
        self.scale = np.broadcast_to(_finite_array("scale", scale), self.x_shape).copy()
        self.spectrum = None if spectrum is None else _finite_array("spectrum", spectrum)
        if self.factor.shape[1:] != self.x_shape or not np.all(self.scale > 0):
            raise ValueError(
                three_part(
                    f"`factor` of shape [k, {', '.join(map(str, self.x_shape))}], as the mean, and `scale` above 0",
                    f"factor of shape {self.factor.shape}, smallest scale {np.min(self.scale):g}",
                    "Measure the prior: GaussianPrior.measured(simulator) or GaussianPrior.measured(simulator, x=x).",
                )
            )
        if self.spectrum is not None:
            self._check_spectrum()

    @classmethod
    def measured(
        cls,
        simulator,
        x=None,
        *,
        examples=1024,
        components=None,
        explained_variance=0.99,
        basis=None,
        spectrum=True,
        seed=0,
    ):
        """The prior of the mean and covariance of examples.

        With up to 64 unknowns the covariance is dense. Of more unknowns there are so many principal components as hold
        `explained_variance`, at most 32, and the spectrum of the rest. Components of x are compared in units of their
        standard deviation, those of fields in that of their channel.

        Args:
            simulator: A simulator with `sample`, or any with `x`.
            x: Examples `[N, *x_shape]`; None draws `examples` from the simulator.
            examples: How many to draw.
            components: Their number; None chooses it. 0 leaves all to the spectrum.
            explained_variance: Share of the variance that the components shall hold.
            basis: Of the rest: "fourier", the default of fields, "sine" or "cosine"; vectors have "components".
            spectrum: Whether what the components leave out belongs to the prior.
            seed: An int, of the samples.

        Raises:
            ValueError: Examples of another shape, fewer than two or than components, NaN, or all the same.
        """
        found = measuring.measured(
            simulator,
            x,
            examples=examples,
            components=components,
            explained_variance=explained_variance,
            basis=basis,
            spectrum=spectrum,
            seed=seed,
        )
        return cls(**found)

    # Products ---------------------------------------------------------------------------------------------------------

    def root(self, whitened):
        """C^(1/2) z `[B, *x_shape]` of white coordinates z."""
        x = tf.reshape(whitened.components @ self._matrix(whitened.components.dtype), [-1, *self.x_shape])
        if not whitened.has_field:
            return x
        return x + tf.constant(self.scale, x.dtype) * self._filtered(whitened.field, 0.5)

    def root_transposed(self, v):
        """C^(1/2)^T v, a `Whitened`, of v `[B, *x_shape]`."""
        components = tf.matmul(self._rows(v), self._matrix(v.dtype), transpose_b=True)
        if self.spectrum is None:
            return Whitened(components)
        return Whitened(components, self._filtered(tf.constant(self.scale, v.dtype) * v, 0.5))

    def covariance(self, v):
        """C v `[B, *x_shape]`, that is root(root_transposed(v))."""
        return self.root(self.root_transposed(v))

    def unwhiten(self, whitened):
        """x = m + C^(1/2) z `[B, *x_shape]`."""
        return tf.constant(self.mean, whitened.components.dtype) + self.root(whitened)

    def whiten(self, x):
        """The shortest white coordinates z of the x that the prior can give nearest to x.

        Where C has full rank that is C^(1/2)^T C^-1 (x - m) and `unwhiten` gives x back; without a spectrum x is first
        projected. |z|^2 is (x - m)^T C^-1 (x - m).
        """
        return self._whiten(tf.cast(x, tf.float64) - self.mean, x.dtype)

    def unwhiten_transposed(self, v):
        """The transpose of the linear part of `unwhiten`: `root_transposed`."""
        return self.root_transposed(v)

    def whiten_transposed(self, whitened):
        """The transpose of the linear part of `whiten`: C^-1 C^(1/2) z `[B, *x_shape]`."""
        return self.precision(self.root(whitened))

    def precision(self, v):
        """C^-1 v `[B, *x_shape]`; the pseudo-inverse (in units of `scale`) where C has not full rank."""
        v64 = tf.cast(v, tf.float64)
        if self.spectrum is None:
            components = self._rows(v64) @ (self._readout.T @ self._readout)
            return tf.cast(tf.reshape(components, [-1, *self.x_shape]), v.dtype)
        components = self._components(v64)
        rest = v64 - self.root(Whitened(components))
        return tf.cast(self._filtered(rest / self.scale, -1.0) / self.scale, v.dtype)

    def project(self, x):
        """The nearest m + F^T a to x `[B, *x_shape]`, in units of `scale`: x without what the components leave out."""
        d = self._rows(x - tf.constant(self.mean, x.dtype))
        readout = tf.constant(self._readout, x.dtype)
        return self.unwhiten(Whitened(tf.matmul(d, readout, transpose_b=True)))

    # As a distribution ------------------------------------------------------------------------------------------------

    def sample(self, num, seed, dtype="float32"):
        """x `[num, *x_shape]`; a function of `seed` alone, the same eagerly, in a graph and under XLA."""
        check_positive_int("num", num)
        return self.unwhiten(self.white(num, seed, dtype))

    def white(self, num, seed, dtype="float32"):
        """White coordinates of `num` samples."""
        first, second = tf.unstack(random_fields.split_seed(seed, 2))
        # At least one number is drawn where there are no components.
        components = random_fields.normal([num, max(self.num_components, 1)], first, dtype=dtype)
        field = ()
        if self.spectrum is not None:
            field = random_fields.normal([num, *self.x_shape], second, dtype=dtype)
        return Whitened(components[:, : self.num_components], field)

    def log_prob(self, x):
        """Logarithm of the density `[B]` at x.

        Where C has not full rank that of `project(x)` in its k dimensions, in units of `scale`.
        """
        whitened = self.whiten(x)
        square = tf.reduce_sum(tf.square(tf.cast(whitened.components, tf.float64)), axis=1)
        if whitened.has_field:
            square += tf.reduce_sum(tf.square(self._rows(tf.cast(whitened.field, tf.float64))), axis=1)
        size = self.size if self.spectrum is not None else self.num_components
        return tf.cast(-0.5 * (square + self._log_determinant + size * np.log(2 * np.pi)), x.dtype)

    @functools.cached_property
    def stddev(self):
        """Standard deviation of each component of x, NumPy `[*x_shape]`."""
        return np.sqrt(np.sum(np.square(self.factor), axis=0) + self.variance_of_rest)

    @functools.cached_property
    def variance_of_rest(self):
        """Variance of each component of x by the spectrum alone, NumPy `[*x_shape]`."""
        if self.spectrum is None:
            return np.zeros(self.x_shape)
        rest = spectral_bases.pointwise_variance(self.floored_spectrum, self.x_shape, self.basis)
        return np.square(self.scale) * rest

    # Facts ------------------------------------------------------------------------------------------------------------

    @property
    def num_components(self):
        """k."""
        return len(self.factor)

    @property
    def size(self):
        """The number of unknowns."""
        return self.mean.size

    @property
    def has_full_rank(self):
        """Whether every x is possible."""
        return self.spectrum is not None or self.num_components == self.size

    def without_rest(self):
        """The prior of the components alone."""
        return self if self.spectrum is None else type(self)(**{**self._arguments(), "spectrum": None})

    def dense(self):
        """The same Gaussian with one component for each unknown and no spectrum: for small x, its root is n x n."""
        return self._dense

    def rescaled(self, unit):
        """The prior of x / unit, unit broadcast against `[*x_shape]`, one number for each channel of a field."""
        unit = np.broadcast_to(np.asarray(unit, np.float64), self.x_shape)
        scaled = {name: getattr(self, name) / unit for name in ("mean", "factor", "scale")}
        return type(self)(**{**self._arguments(), **scaled})

    def check(self, simulator):
        """Refuse a simulator whose x has another shape."""
        if tuple(simulator.x_shape) != self.x_shape:
            raise ValueError(
                three_part(
                    f"a prior of x of shape {tuple(simulator.x_shape)} for {simulator!r}",
                    f"a prior of shape {self.x_shape}",
                    "Measure one on this simulator: GaussianPrior.measured(simulator).",
                )
            )

    @property
    def summary(self):
        """One line: what the prior is and how much of the variance its components hold."""
        kind = "dense, all" if self.num_components == self.size else f"{self.num_components} principal"
        source = f" of {self.examples} examples" if self.examples else ""
        text = f"{kind} components of {self.size} unknowns, {100 * self.captured:.1f} % of the variance{source}"
        if self.spectrum is None:
            return text
        return text + ("; the rest one variance each" if self.basis == "components" else f"; the rest {self.basis}")

    def __repr__(self):
        return f"GaussianPrior({self.summary})"

    def __eq__(self, other):
        if not isinstance(other, GaussianPrior):
            return NotImplemented
        mine, others = self._arguments(), other._arguments()
        return all(np.array_equal(mine[name], others[name]) for name in mine)

    def __hash__(self):
        return hash((self.x_shape, self.mean.tobytes(), self.factor.tobytes()))

    def get_config(self):
        config = self._arguments()
        return {name: _encoded(value) if isinstance(value, np.ndarray) else value for name, value in config.items()}

    @classmethod
    def from_config(cls, config):
        return cls(**{name: _decoded(value) if isinstance(value, dict) else value for name, value in config.items()})

    def _arguments(self):
        names = ("mean", "factor", "spectrum", "basis", "scale", "captured", "examples")
        return {name: getattr(self, name) for name in names}

    def _check_spectrum(self):
        shape = spectral_bases.multiplicity(self.x_shape, self.basis).shape
        if self.spectrum.shape != shape or not np.all(self.spectrum >= 0) or not np.any(self.spectrum > 0):
            raise ValueError(
                three_part(
                    f"`spectrum` of shape {shape} in the basis {self.basis!r}, at least 0 and not all 0",
                    f"shape {self.spectrum.shape}, smallest {np.min(self.spectrum):g}",
                    "Leave it out where the factor holds all of x, or measure it: GaussianPrior.measured(simulator).",
                )
            )

    # What is computed once, in float64 ------------------------------------------------------------------------------

    @functools.cached_property
    def _readout(self):
        """F^+ `[k, n]`: the components of x - m, by least squares in units of `scale`."""
        rows = (self.factor / self.scale).reshape(-1, self.size)
        # Units may differ between the directions too.
        lengths = np.linalg.norm(rows, axis=1)
        lengths = np.where(lengths > 0, lengths, 1.0)
        unit_rows = rows / lengths[:, None]
        return np.linalg.pinv(unit_rows.T, rcond=1e-13) / lengths[:, None] / self.scale.reshape(-1)

    @functools.cached_property
    def _dense(self):
        if self.spectrum is None:
            return self
        with tf.init_scope():
            covariance = np.asarray(self.covariance(tf.constant(np.eye(self.size).reshape(-1, *self.x_shape))))
        # Directions in units of `scale`, as measured ones are.
        unit = self.scale.reshape(-1)
        variances, directions = np.linalg.eigh(covariance.reshape(self.size, -1) / np.outer(unit, unit))
        rows = np.sqrt(np.maximum(variances[::-1], 0.0))[:, None] * with_signs(directions.T[::-1])
        factor = (rows * unit).reshape(-1, *self.x_shape)
        return type(self)(**{**self._arguments(), "factor": factor, "spectrum": None, "captured": 1.0})

    @functools.cached_property
    def floored_spectrum(self):
        """The spectrum, above 0 everywhere."""
        return np.maximum(self.spectrum, SMALLEST_DEVIATION**2 * np.max(self.spectrum))

    @functools.cached_property
    def _gain(self):
        """(I + F R^-1 F^T)^-1 F R^-1 `[k, n]`, R the covariance of the rest, and the logarithm of the determinant."""
        if not self.num_components:
            return np.zeros((0, self.size)), 0.0
        with tf.init_scope():
            weighted = np.asarray(self._filtered(tf.constant(self.factor / self.scale), -1.0)) / self.scale
        weighted = weighted.reshape(-1, self.size)
        square = np.eye(self.num_components) + weighted @ self.factor.reshape(-1, self.size).T
        return np.linalg.solve(square, weighted), float(np.linalg.slogdet(square)[1])

    @functools.cached_property
    def _log_determinant(self):
        if self.spectrum is None:
            rows = (self.factor / self.scale).reshape(-1, self.size)
            unit = 2 * np.sum(np.log(self.scale)) if self.has_full_rank else 0.0
            return float(np.linalg.slogdet(rows @ rows.T)[1] + unit)
        modes = np.sum(spectral_bases.multiplicity(self.x_shape, self.basis) * np.log(self.floored_spectrum))
        return float(modes + 2 * np.sum(np.log(self.scale))) + self._gain[1]

    def _whiten(self, d, dtype):
        components = self._components(d)
        if self.spectrum is None:
            return Whitened(tf.cast(components, dtype))
        rest = (d - self.root(Whitened(components))) / self.scale
        return Whitened(tf.cast(components, dtype), tf.cast(self._filtered(rest, -0.5), dtype))

    def _components(self, d):
        """The white coordinates of d = x - m in the directions of F."""
        matrix = self._readout if self.spectrum is None else self._gain[0]
        return tf.matmul(self._rows(d), tf.constant(matrix, d.dtype), transpose_b=True)

    def _matrix(self, dtype):
        return tf.constant(self.factor.reshape(-1, self.size), dtype)

    def _rows(self, v):
        return tf.reshape(v, [-1, self.size])

    def _filtered(self, field, power):
        """B^T S^power B field."""
        return spectral_bases.spectral_filter(field, self.floored_spectrum**power, self.basis)


def _finite_array(name, values):
    array = np.array(values, np.float64)
    if not np.all(np.isfinite(array)):
        raise ValueError(
            three_part(
                f"`{name}` to hold finite numbers",
                f"{int(np.sum(~np.isfinite(array)))} of {array.size} that are not",
                "Leave such examples out before measuring a prior.",
            )
        )
    return array


def _encoded(array):
    """An array as JSON holds it, to the last bit."""
    return {"shape": list(array.shape), "float64": base64.b64encode(array.astype("<f8").tobytes()).decode()}


def _decoded(entry):
    return np.frombuffer(base64.b64decode(entry["float64"]), "<f8").reshape(entry["shape"])
