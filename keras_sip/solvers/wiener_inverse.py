"""The linear inverse of least expected error."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.solvers.spectral_inverse import SpectralInverse


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class WienerInverse(SpectralInverse):
    """U_k = conj(T) S / (|T|^2 S + N) r_k: of all linear maps of the residual the one of least E |x - x0 - U|^2.

    S is the power spectrum of x - x0 and N that of the noise in y, each the mean square of orthonormal modes. N adds
    the noise of `SpectralInverse` to `noise_spectrum`. Where a mode does not stand out of the noise U vanishes and x0
    stays as it is. `WienerInverse.measured` takes S and N from examples.

    Direct: one step, no simulation but P(x0).

    Scale law: any common factor of x (with `x_scale`); any unit of y where `noise_spectrum` is 0 or in that unit.

    Source: Wiener 1949; as a deconvolution in Press et al., Numerical Recipes, 3rd ed., Section 13.3.

    Args:
        noise: Noise in each cell of the residual over the residual's root mean square.
        signal: S in units of x_scale^2: a number, or an array `[*modes]` (of `SpectralSimulator.transfer_function`).
        noise_spectrum: Further noise in units of y^2, in the same form.
    """

    signal: float | tuple = 1.0
    noise_spectrum: float | tuple = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("signal", "noise_spectrum"):
            object.__setattr__(self, name, _checked_spectrum(name, getattr(self, name)))

    @classmethod
    def measured(cls, simulator, x=None, y_noise=None, **options):
        """The inverse for spectra measured on examples.

        Args:
            simulator: A simulator with a `diagonal_form`.
            x: Examples of x - x0 `[N, *x_shape]`, of x where x0 is 0; None leaves `signal` as it is.
            y_noise: Examples of measurement noise `[N, *y_shape]`, or None.
            **options: Of the solver.
        """
        cls().check(simulator)
        if x is not None:
            x_scale = np.sqrt(np.mean(np.square(simulator.x_scale)))
            options["signal"] = mean_power(simulator, simulator.as_x(x)) / x_scale**2
        if y_noise is not None:
            options["noise_spectrum"] = mean_power(simulator, simulator.as_y(y_noise, name="y_noise"))
        return cls(**options)

    def check(self, simulator):
        super().check(simulator)
        shape = simulator.diagonal_form.modes_shape
        for name in ("signal", "noise_spectrum"):
            received = np.shape(getattr(self, name))
            if received not in ((), shape):
                raise ValueError(
                    three_part(
                        f"`{name}` to be a number or of shape {shape}, one entry for each mode of {simulator!r}",
                        f"shape {received}",
                        "Measure it on this simulator: WienerInverse.measured(simulator, x=...).",
                    )
                )

    def share(self, modes):
        """|T|^2 S / (|T|^2 S + N)."""
        dtype = modes.noise.dtype
        with np.errstate(divide="ignore", over="ignore"):
            per_signal = tf.constant(1.0 / (modes.signal * self._root(self.signal, modes.form)), dtype)
        noise = modes.noise / modes.per_unit
        if np.any(self.noise_spectrum):
            coloured = tf.constant(modes.form.mode_size * self._root(self.noise_spectrum, modes.form), dtype)
            noise = tf.sqrt(tf.square(noise) + tf.square(coloured))
        return 1.0 / (1.0 + tf.square(noise * per_signal))

    def _root(self, spectrum, form):
        """Root of a power spectrum, broadcast against the modes."""
        return np.sqrt(form.expand(spectrum) if np.ndim(spectrum) else spectrum)

    def get_config(self):
        config = super().get_config()
        return {**config, **{name: np.asarray(config[name]).tolist() for name in ("signal", "noise_spectrum")}}


def mean_power(simulator, fields):
    """Mean square of each orthonormal mode over examples and channels, NumPy `[*modes]`."""
    form = simulator.diagonal_form
    power = np.square(np.abs(form.to_modes(fields).numpy()) / form.mode_size).mean(axis=0)
    return power.mean(axis=form.channel_axis)


def _checked_spectrum(name, values):
    array = np.asarray(values, np.float64)
    if not np.all(np.isfinite(array) & (array >= 0)):
        raise ValueError(
            three_part(
                f"`{name}` to be a power spectrum: finite numbers of at least 0",
                f"numbers from {array.min()} to {array.max()}",
                "Give mean squares of modes, or measure them with WienerInverse.measured(...).",
            )
        )
    return _nested_tuple(array.tolist())


def _nested_tuple(values):
    """Lists as tuples, which a frozen solver can be compared and hashed with."""
    return tuple(map(_nested_tuple, values)) if isinstance(values, list) else values
