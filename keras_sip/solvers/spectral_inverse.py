"""SpectralInverse: mode by mode, what the inverses of systems that are diagonal in a spectral basis have in common."""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_number, must_define, three_part
from keras_sip.ops import batched
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.spectral import DiagonalForm
from keras_sip.solvers.base import Status
from keras_sip.solvers.direct_inverse import DirectInverse
from keras_sip.solvers.gauss_newton import check_least_squares

# exp of these and of their negatives are normal numbers, with room for the sums of an FFT.
LARGEST_EXPONENT = {"float32": 80.0, "float64": 600.0}
# What two transforms and a difference leave in each cell, in roundings of its size.
ROUNDINGS = 4.0


class ResidualModes(NamedTuple):
    """The residual mode by mode, as `SpectralInverse.share` sees it.

    Attributes:
        form: The simulator's `DiagonalForm`.
        exponent: K, NumPy, clamped to `LARGEST_EXPONENT`.
        power: |modes of r|^2 `[B, ...]`, float32. It and `noise` are in a unit that each example has of its own.
        noise: Standard deviation of the noise in a mode, above 0; broadcast against `power`.
        signal: Root mean square of a mode where x - x0 is white noise of size x_scale, NumPy, in the unit of y.
        per_unit: 1 over the example's unit in that of y; broadcast against `power`.
    """

    form: DiagonalForm
    exponent: np.ndarray
    power: tf.Tensor
    noise: tf.Tensor
    signal: np.ndarray
    per_unit: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectralInverse(DirectInverse):
    """U = B^-1 (G * B r),  r = y* - P(x0): each mode of the residual times a gain.

    For simulators with a `diagonal_form`, y_k = T_k x_k. With K_k = log(max |T| / |T_k|), how many e-folds a mode has
    lost against the best-transmitted one, G = s e^K conj(T) / (|T| max |T|), which with s = 1 is full inversion.

    **Must override** `share(modes)`, s.

    The standard deviation of the noise in each mode is that of white noise of

        sqrt((noise * rms of r + rounding of y* and r)^2 + context["noise_level"]^2)    per cell;

    the noise level is measurement noise that is known of each example (one standard deviation, `[B]`).

    Args:
        noise: Noise in each cell of the residual over the residual's root mean square.
    """

    noise: float = 1e-6

    solved = Status.MAX_STEPS

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "noise", check_number("noise", self.noise))

    def share(self, modes):
        """s, the share of full inversion that each mode gets: real, at least 0, broadcast against the modes.

        Args:
            modes: The `ResidualModes`.
        """
        raise must_define(
            self,
            "share(self, modes)",
            "a spectral inverse without it",
            "Return the share of full inversion that each mode gets; 1 inverts it.",
        )

    def check(self, simulator):
        super().check(simulator)
        check_least_squares(simulator, self)
        if not simulator.has(Ability.DIAGONAL_FORM):
            raise TypeError(
                three_part(
                    "a simulator that is diagonal in a spectral basis",
                    f"{simulator!r}, whose `diagonal_form` is None",
                    "Derive it from SpectralSimulator and define `transfer_function(self, frequencies)`; its x_scale "
                    "must be one number. Or use GaussNewton(), which needs no spectrum.",
                )
            )

    def prepare(self, simulator, x0, y_target, context):
        x0, y_target, context = super().prepare(simulator, x0, y_target, context)
        _check_noise_level(context)
        return x0, y_target, context

    def direct_update(self, problem, x0, y0):
        simulator, context = problem.simulator, problem.context
        y0 = simulator.forward(x0, context) if y0 is None else y0
        residual = simulator.residual(y0, problem.y_target, context)
        form = simulator.diagonal_form
        largest, exponent, direction = _polar(form.transfer, LARGEST_EXPONENT[simulator.dtype])
        values = form.to_modes(residual)
        # In units of the residual's root mean square nothing over- nor underflows, whatever the unit of y.
        unit = _root_mean_square(residual)
        unit = tf.where(unit > 0, unit, tf.ones_like(unit))
        per_unit = batched.expand(1.0 / unit, values)
        x_scale = np.sqrt(np.mean(np.square(simulator.x_scale)))
        noise = form.mode_size * self._noise_in_a_cell(problem.y_target, unit, context)
        modes = ResidualModes(
            form=form,
            exponent=exponent,
            power=_power(values, per_unit),
            noise=batched.expand(noise, values),
            signal=form.mode_size * x_scale * largest * np.exp(-exponent),
            per_unit=per_unit,
        )
        # Minus: the residual is y - y*.
        full, share = -np.exp(exponent) * direction, self.share(modes)
        if np.iscomplexobj(full):
            update = form.from_modes(values * tf.cast(share, values.dtype) * tf.constant(full, values.dtype))
        else:
            update = form.from_modes(values * tf.cast(share * tf.constant(full, share.dtype), values.dtype))
        # Apart, as e^K may be all that a number can hold.
        return update if largest == 1.0 else update / largest

    def _noise_in_a_cell(self, y_target, unit, context):
        """`[B]`, in units of `unit`, the residual's root mean square."""
        # An inverse that is repeated comes down to the rounding of y*, which would be amplified without end.
        rounding = ROUNDINGS * np.finfo(unit.dtype.as_numpy_dtype).eps
        noise = self.noise + rounding * (1.0 + _root_mean_square(y_target) / unit)
        if "noise_level" in (context or {}):
            noise = tf.sqrt(tf.square(noise) + tf.square(tf.reshape(context["noise_level"], [-1]) / unit))
        return noise


def _polar(transfer, largest_exponent):
    """max |T|, K = log(max |T| / |T|), and conj(T) / |T|."""
    magnitude = np.abs(transfer)
    largest = float(np.max(magnitude))
    with np.errstate(divide="ignore"):
        exponent = np.minimum(np.log(largest) - np.log(magnitude), largest_exponent)
    # A mode that does not reach y at all has no direction, and no update.
    return largest, exponent, np.conj(transfer) / np.where(magnitude > 0, magnitude, 1.0)


def _root_mean_square(field):
    """`[B]`. In float64, which holds the squares of whatever float32 holds; by a product, which makes no copy."""
    cells = field.shape[1:].num_elements()
    rows = tf.cast(tf.reshape(field, [-1, 1, cells]), "float64")
    return tf.cast(tf.sqrt(tf.matmul(rows, rows, transpose_b=True)[:, 0, 0] / cells), field.dtype)


def _power(values, per_unit):
    """|values / unit|^2 in single precision; the magnitude of complex numbers would be several times slower."""
    parts = (tf.math.real(values), tf.math.imag(values)) if values.dtype.is_complex else (values,)
    return tf.add_n([tf.square(tf.cast(part * per_unit, tf.float32)) for part in parts])


def _check_noise_level(context):
    """`ValueError` for a negative noise level, where it has a value (compiled steps use its magnitude)."""
    level = (context or {}).get("noise_level")
    if level is None or not tf.executing_eagerly():
        return
    if not np.all(level.numpy() >= 0):
        raise ValueError(
            three_part(
                "`context['noise_level']` to be one standard deviation of the noise for each example, at least 0",
                f"a smallest one of {np.min(level.numpy())}",
                "Give 0 for an example whose measurement is exact.",
            )
        )
