"""Sine, cosine and Fourier transforms of fields `[B, *resolution, C]`, and what is diagonal in them."""

import functools

import numpy as np
import tensorflow as tf

from keras_sip.ops.stencils import check_boundary

BASES = ("fourier", "sine", "cosine")

# Axes up to this length are transformed by a matrix product, longer ones by an FFT. Time of the FFT over that of the
# product for a 2D transform in float32 on two CPU cores, graph (XLA): 3.2 (2.5) at 64 cells, 2.4 (1.0) at 256,
# 0.8 (0.6) at 384, 1.6 (1.4) at 400, 0.7 (0.6) at 512, 0.4 (0.3) at 1024: it jumps with the prime factors of n + 1.
# float64 crosses over at the same place. XLA makes the product slower by a fifth or more and helps the FFT little.
LONGEST_MATRIX_AXIS = 384


def sine_transform(field, axes):
    """Orthonormal type-I discrete sine transform along `axes`; it is its own inverse and its own transpose.

    F_k = sqrt(2 / (n + 1)) sum_j f_j sin(pi j k / (n + 1)),   j, k = 1 ... n

    Its basis functions vanish one spacing beyond the first and last cells' centres: they are the eigenvectors of
    `stencils.laplacian` with the boundary "dirichlet".

    Args:
        field: A tensor of any rank, `[B, *resolution, C]` for a field.
        axes: The axes to transform, for a field 1 ... d.

    Source: Press et al., Numerical Recipes, 3rd ed., Section 12.4.1 (there without the factor).
    """
    return _transform_axes(field, axes, _sine_matrix, _sine_transform_by_fft)


def cosine_transform(field, axes):
    """Orthonormal type-II discrete cosine transform along `axes`.

    F_k = c_k sum_j f_j cos(pi k (j + 1/2) / n),   j, k = 0 ... n - 1,   c_0 = sqrt(1 / n), else c_k = sqrt(2 / n)

    Its basis functions have no slope at the outer faces of the first and last cells: insulated walls.

    Args:
        field: A tensor of any rank, `[B, *resolution, C]` for a field.
        axes: The axes to transform, for a field 1 ... d.

    Source: Press et al., Numerical Recipes, 3rd ed., Section 12.4.2 (there without the factors).
    """
    return _transform_axes(field, axes, _cosine_matrix, lambda rows: tf.signal.dct(rows, type=2, norm="ortho"))


def inverse_cosine_transform(modes, axes):
    """Inverse, and transpose, of `cosine_transform`."""
    return _transform_axes(
        modes, axes, lambda length: _cosine_matrix(length).T, lambda rows: tf.signal.idct(rows, type=2, norm="ortho")
    )


def fourier_modes(field):
    """Real FFT over the spatial axes: `[B, *resolution, C]` to complex `[B, C, *half]`.

    F_n = sum_j f_j exp(-2 pi i sum_a n_a j_a / N_a), without a factor; of the last axis only the N // 2 + 1
    modes with n >= 0 are kept, the others being their complex conjugates. `field_from_modes` is the inverse.
    """
    rank = field.shape.rank
    channels_first = tf.transpose(field, [0, rank - 1, *range(1, rank - 1)])
    modes = tf.signal.rfft(channels_first) if rank == 3 else tf.signal.rfft2d(channels_first)
    return _along_first_of_three(tf.signal.fft, modes) if rank == 5 else modes


def field_from_modes(modes, resolution):
    """Inverse of `fourier_modes`: complex `[B, C, *half]` to the real field `[B, *resolution, C]`.

    `resolution` says whether the last axis had an even or an odd number of cells. Modes that should be real or
    conjugates of each other (last index 0 and, for even sizes, the last) must be so: what is done with others differs
    between processors.
    """
    if len(resolution) == 3:
        modes = _along_first_of_three(tf.signal.ifft, modes)
    inverse = tf.signal.irfft if len(resolution) == 1 else tf.signal.irfft2d
    channels_first = inverse(modes, fft_length=list(resolution[-2:]))
    rank = channels_first.shape.rank
    return tf.transpose(channels_first, [0, *range(2, rank), 1])


def periodic_filter(field, transfer):
    """Multiply each Fourier mode of a periodic field by a real number: a convolution with a symmetric kernel.

    Args:
        field: `[B, *resolution, C]`, one to three spatial axes of odd or even length.
        transfer: The factors, real, in the layout of `fourier_modes`: `[*half]`, half = (*resolution[:-1],
            resolution[-1] // 2 + 1), or anything that broadcasts against `[B, C, *half]`. The same for n and -n.
    """
    modes = fourier_modes(field)
    factors = tf.cast(tf.convert_to_tensor(transfer, field.dtype), modes.dtype)
    return field_from_modes(modes * factors, field.shape[1:-1])


def squared_frequencies(resolution, spacing=1.0):
    """|q|^2 of the modes of `fourier_modes`, q in cycles per length: NumPy float64 `[*half]`."""
    return _sum_over_axes(
        [
            np.square((np.fft.rfftfreq if is_last else np.fft.fftfreq)(cells, width))
            for cells, width, is_last in _grid_axes(resolution, spacing)
        ]
    )


def laplacian_eigenvalues(resolution, spacing, boundary, dtype):
    """Eigenvalues of `stencils.laplacian`, computed in float64, as a NumPy array of `dtype`.

    "dirichlet": sum over axes of (2 cos(pi k / (n + 1)) - 2) / spacing^2, k = 1 ... n, `[*resolution]`, those of
    the modes of `sine_transform`. "periodic": sum of (2 cos(2 pi k / n) - 2) / spacing^2, those of the modes of
    `fourier_modes`, `[*half]`; the first one is 0.

    Args:
        resolution: Cells along each axis.
        spacing: Width of a cell, one number or one for each axis.
        boundary: "dirichlet" or "periodic".
        dtype: "float32" or "float64".
    """
    check_boundary(boundary)
    per_axis = []
    for cells, width, is_last in _grid_axes(resolution, spacing):
        if boundary == "dirichlet":
            angles = np.pi * np.arange(1, cells + 1) / (cells + 1)
        else:
            angles = 2 * np.pi * (np.fft.rfftfreq if is_last else np.fft.fftfreq)(cells)
        # -4 sin^2(a / 2) is 2 cos(a) - 2 without the cancellation at the long waves.
        per_axis.append(-np.square(2 * np.sin(angles / 2) / width))
    return _sum_over_axes(per_axis).astype(dtype)


def mode_frequencies(resolution, spacing, basis):
    """q of the modes of a basis along each axis, in cycles per length: d NumPy float64 arrays that broadcast.

    "fourier", those of `fourier_modes`: n / (N dx), n negative in the second half of all axes but the last;
    "sine", of `sine_transform`: k / (2 (N + 1) dx), k = 1 ... N;
    "cosine", of `cosine_transform`: k / (2 N dx), k = 0 ... N - 1.
    """
    if basis not in BASES:
        raise ValueError(
            f"Expected `basis` to be one of {', '.join(map(repr, BASES))}.\nReceived basis={basis!r}.\n"
            'Choose "fourier" for periodic fields, "sine" for fields that vanish outside, "cosine" for insulated walls.'
        )
    per_axis = []
    for cells, width, is_last in _grid_axes(resolution, spacing):
        if basis == "fourier":
            per_axis.append((np.fft.rfftfreq if is_last else np.fft.fftfreq)(cells, width))
        elif basis == "sine":
            per_axis.append(np.arange(1, cells + 1) / (2 * (cells + 1) * width))
        else:
            per_axis.append(np.arange(cells) / (2 * cells * width))
    return np.meshgrid(*per_axis, indexing="ij", sparse=True)


def _transform_axes(field, axes, matrix_of_length, transform_rows):
    """Transform along each axis: by a product with its matrix, or long ones by `transform_rows` of `[B, stride, n]`."""
    shape = field.shape
    for axis in axes:
        length, stride = shape[axis], int(np.prod(shape[axis + 1 :]))
        # In memory the field is a stack of length x stride matrices, so no product needs a transpose.
        if length > LONGEST_MATRIX_AXIS or _rounds_products(field.dtype):
            columns = tf.linalg.matrix_transpose(tf.reshape(field, [-1, length, stride]))
            field = tf.linalg.matrix_transpose(transform_rows(columns))
        elif stride == 1:
            field = tf.reshape(field, [-1, length]) @ tf.constant(matrix_of_length(length).T, field.dtype)
        else:
            field = tf.constant(matrix_of_length(length), field.dtype) @ tf.reshape(field, [-1, length, stride])
    return tf.reshape(field, [-1, *shape[1:]])


def _rounds_products(dtype):
    """Whether matrix products may round their factors to 10 bits: float32 on GPUs, unless TensorFlow is told not to."""
    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    return dtype == tf.float32 and allowed and bool(tf.config.list_physical_devices("GPU"))


@functools.cache
def _sine_matrix(length):
    index = np.arange(1, length + 1)
    # The product is reduced to one period as an integer, where that is exact.
    half_turns = np.outer(index, index) % (2 * (length + 1)) / (length + 1)
    return np.sqrt(2 / (length + 1)) * np.sin(np.pi * half_turns)


@functools.cache
def _cosine_matrix(length):
    index = np.arange(length)
    # As for the sines, reduced to one period while it is an integer.
    half_turns = np.outer(index, 2 * index + 1) % (4 * length) / (2 * length)
    return np.where(index == 0, 1.0, np.sqrt(2.0))[:, None] / np.sqrt(length) * np.cos(np.pi * half_turns)


def _sine_transform_by_fft(rows):
    """The transform along the last of three axes: the imaginary part of the FFT of 0, f_1 ... f_n, 0, ... 0."""
    length = rows.shape[-1]
    modes = tf.signal.rfft(tf.pad(rows, [[0, 0], [0, 0], [1, 0]]), fft_length=[2 * (length + 1)])
    return -np.sqrt(2 / (length + 1)) * tf.math.imag(modes[..., 1 : length + 1])


def _along_first_of_three(transform, modes):
    # TensorFlow's three-dimensional real transforms have no gradient; the same work in two steps has one.
    swapped = transform(tf.transpose(modes, [0, 1, 3, 4, 2]))
    return tf.transpose(swapped, [0, 1, 4, 2, 3])


def _grid_axes(resolution, spacing):
    """(cells, width of a cell, whether it is the last) of each axis."""
    widths = np.broadcast_to(np.asarray(spacing, np.float64), (len(resolution),))
    last = len(resolution) - 1
    return [(cells, widths[axis], axis == last) for axis, cells in enumerate(resolution)]


def _sum_over_axes(per_axis):
    """sum over axes a of values_a[i_a], as an array over all index vectors i."""
    return functools.reduce(np.add.outer, per_axis)
