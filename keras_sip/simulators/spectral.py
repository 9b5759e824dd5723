"""SpectralSimulator: linear systems that multiply each Fourier, sine or cosine mode of x by a number."""

import functools
from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, must_define, three_part
from keras_sip.ops import spectral_transforms as transforms
from keras_sip.simulators.base import Context, Simulator, check_resolution
from keras_sip.simulators.measured_form import LARGEST_LEAKAGE, measured_leakage

TRANSFORMS = {
    "sine": (transforms.sine_transform, transforms.sine_transform),
    "cosine": (transforms.cosine_transform, transforms.inverse_cosine_transform),
}


class DiagonalForm(NamedTuple):
    """P as a product mode by mode: y_k = transfer_k x_k. What spectral solvers work with.

    Attributes:
        to_modes: Field `[B, *resolution, C]` to modes `[B, ...]`, real or complex.
        from_modes: The inverse of `to_modes`.
        transfer: The factors, NumPy float64 or complex128, broadcast against the modes of one example.
        mode_size: Root mean square of each mode of white noise of variance 1: sqrt(number of cells) for Fourier modes,
            1 for the orthonormal sines and cosines.
        channel_axis: Where the channels are among the axes of the modes of one example; `transfer` has length 1 there.
    """

    to_modes: Callable
    from_modes: Callable
    transfer: np.ndarray
    mode_size: float
    channel_axis: int

    @classmethod
    def in_basis(cls, basis: str, resolution: tuple[int, ...], transfer: np.ndarray) -> Self:
        """The form of one spectrum `[*modes]` for all channels of fields `[B, *resolution, C]`."""
        axes = range(1, 1 + len(resolution))
        if basis == "fourier":
            to_modes, channel_axis, mode_size = transforms.fourier_modes, 0, float(np.sqrt(np.prod(resolution)))
            from_modes = functools.partial(transforms.field_from_modes, resolution=tuple(resolution))
        else:
            channel_axis, mode_size = len(resolution), 1.0
            there, back = TRANSFORMS[basis]
            to_modes, from_modes = functools.partial(there, axes=axes), functools.partial(back, axes=axes)
        return cls(to_modes, from_modes, np.expand_dims(transfer, channel_axis), mode_size, channel_axis)

    @classmethod
    def measured(cls, simulator: Simulator, *, probes: int = 8, seed: int = 0) -> Self | None:
        """The form of a process that does not say one, from products J v with random fields; None where all bases leak.

        Of the Fourier, sine and cosine bases the one in which the least of J v is off the diagonal, where that is next
        to nothing (at most 1e-3 of it): P is then linear and diagonal there, but for a constant. With it
        the spectral inverses serve:

            class Known(keras_sip.SimulatorWrapper):
                diagonal_form = keras_sip.DiagonalForm.measured(simulator)

        `MaximumAPosteriori` measures it unasked; `diagnose` shows what each basis leaks.

        Args:
            simulator: A simulator with `sample`, of the default residual; x and y fields of one shape.
            probes: Random fields at each of two points x.
            seed: An int.
        """
        leakages = measured_leakage(simulator, probes, seed) if simulator.has("sample") else []
        if not leakages or leakages[0].leakage > LARGEST_LEAKAGE:
            return None
        return cls.in_basis(leakages[0].basis, tuple(simulator.x_shape[:-1]), leakages[0].transfer)

    @property
    def modes_shape(self) -> tuple[int, ...]:
        """Shape of a spectrum, without batch and channels."""
        return tuple(size for axis, size in enumerate(self.transfer.shape) if axis != self.channel_axis)

    def expand(self, spectrum: np.ndarray) -> np.ndarray:
        """A spectrum `[*modes]` that broadcasts against the modes of a batch."""
        return np.expand_dims(np.asarray(spectrum), self.channel_axis)


class SpectralSimulator(Simulator):
    """A linear system that is diagonal in a spectral basis: convolutions, diffusion, screened fields, blurs.

        y = B^-1 (T * B x),    B the transform of `basis`, T the transfer function

    x, y: `[B, *resolution, C]`, values at cell centres, x axis first; one to three spatial axes, odd or even.

    - basis "fourier": periodic, by real FFTs. T is real for symmetric kernels; it may be complex, T(-q) = conj T(q).
    - basis "sine": fields that vanish one `spacing` beyond the first and last cells' centres.
    - basis "cosine": no slope at the outer faces, that is insulated or reflecting walls.

    **Must override** `transfer_function(frequencies)`. `DampedSpectralInverse` and `WienerInverse` then invert it.

    Example, a Gaussian blur:

        class Blur(keras_sip.SpectralSimulator):
            def __init__(self, resolution, *, spacing=1.0, dtype="float32", width=2.0):
                super().__init__(resolution, spacing=spacing, dtype=dtype)
                self.width = width

            def transfer_function(self, frequencies):
                return np.exp(-2 * (np.pi * self.width) ** 2 * sum(q**2 for q in frequencies))

    Args:
        resolution: Cells along each axis.
        spacing: Width of a cell.
        dtype: "float32" or "float64".
        basis: "fourier", "sine" or "cosine".
        channels: C; all are transformed alike.
    """

    def __init__(
        self,
        resolution: int | tuple[int, ...],
        *,
        spacing: float = 1.0,
        dtype: str = "float32",
        basis: str = "fourier",
        channels: int = 1,
    ):
        self.resolution = check_resolution(resolution)
        self.basis = check_choice("basis", basis, transforms.BASES)
        self.spacing = check_number("spacing", spacing, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.x_shape = self.y_shape = (*self.resolution, check_positive_int("channels", channels))

    def transfer_function(self, frequencies: list[np.ndarray]) -> np.ndarray:
        """T of every mode, a NumPy array `[*modes]`.

        Args:
            frequencies: q along each axis in cycles per length, arrays that broadcast to `[*modes]`; their modes are
                those of `ops.spectral_transforms.mode_frequencies`.
        """
        raise must_define(
            self,
            "transfer_function(self, frequencies)",
            "a spectral simulator without it",
            "Return the factor by which each mode of x is multiplied.",
        )

    @functools.cached_property
    def diagonal_form(self) -> DiagonalForm:
        return DiagonalForm.in_basis(self.basis, self.resolution, self._checked_transfer())

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        form = self.diagonal_form
        modes = form.to_modes(x)
        return form.from_modes(modes * tf.constant(form.transfer, modes.dtype))

    def _checked_transfer(self):
        frequencies = transforms.mode_frequencies(self.resolution, self.spacing, self.basis)
        shape = np.broadcast_shapes(*(q.shape for q in frequencies))
        transfer = np.asarray(self.transfer_function(frequencies))
        fits = transfer.shape == shape and np.all(np.isfinite(transfer))
        if not fits or (np.iscomplexobj(transfer) and self.basis != "fourier"):
            raise ValueError(
                three_part(
                    f"`transfer_function` to return finite numbers of shape {shape}, complex only with basis 'fourier'",
                    f"an array of shape {transfer.shape} and dtype {transfer.dtype}",
                    "Compute it from `frequencies` by broadcasting; replace the factor of a singular mode by 0.",
                )
            )
        if np.iscomplexobj(transfer):
            # The nearest that a real kernel can have: at the highest frequency of an even size it is real.
            axes = range(len(shape))
            return np.fft.rfftn(np.fft.irfftn(transfer, s=self.resolution, axes=axes), axes=axes)
        return transfer.astype("float64")
