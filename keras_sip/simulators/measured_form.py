"""In which spectral basis a simulator's J is diagonal, measured with random fields."""

import concurrent.futures
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.ops import derivatives, random_fields, spectral_bases
from keras_sip.simulators.base import Simulator

BASES = ("fourier", "sine", "cosine")
# P is taken to be diagonal where the share of J v off the diagonal is at most this, root mean square.
LARGEST_LEAKAGE = 1e-3
# A factor of a mode counts where it is so many times its own error.
SIGNIFICANT = 3.0
# J has the modes of one x: of so many it must have the same.
POINTS = 2


class Leakage(NamedTuple):
    """What a basis makes of J.

    Attributes:
        basis: "fourier", "sine" or "cosine".
        leakage: Root mean square of what is off the diagonal of J in the basis, over that of all: 0 to 1.
        transfer: The diagonal, a NumPy spectrum of one channel, `[*modes]`.
    """

    basis: str
    leakage: float
    transfer: np.ndarray


# AutoGraph would warn that it cannot convert a thread.
@tf.autograph.experimental.do_not_convert
def measured_leakage(simulator: Simulator, probes: int = 8, seed: Any = 0) -> list[Leakage]:
    """The `Leakage` of each basis, the least first; empty where x and y are no fields of one shape.

    J v of white random fields v, at two samples of x, so that a J that depends on x leaks too. The diagonal T is the
    one of least squares, T_q = <(J v)_q conj(v_q)> / <|v_q|^2>; factors that do not stand out of their own error are 0.

    Args:
        simulator: A least-squares simulator with `sample`, of the default residual.
        probes: Random fields at each of two points.
        seed: An int.
    """
    shape = tuple(simulator.x_shape)
    if len(shape) < 2 or len(shape) > 4 or shape != tuple(simulator.y_shape) or simulator.has("residual"):
        return []

    def measure():
        sample = simulator.sample(POINTS, (seed, 0))
        # Every point with every probe.
        x = tf.repeat(simulator.as_x(sample["x"]), probes, axis=0)
        context = simulator.as_context(sample.get("context"))
        context = context and {name: tf.repeat(entry, probes, axis=0) for name, entry in context.items()}
        v = random_fields.normal([POINTS * probes, *shape], (seed, 1), dtype=simulator.dtype)
        v *= tf.cast(simulator.x_scale, v.dtype)
        product = derivatives.jvp(lambda x: simulator.forward(x, context), x, v)[1]
        return sorted((_leakage(basis, v, product) for basis in BASES), key=lambda entry: entry.leakage)

    # In a thread of its own numbers are computed while a graph is traced, too; tf.init_scope would take no derivatives.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(measure).result()


def _leakage(basis, v, product):
    v, product = (np.asarray(spectral_bases.modes(tf.cast(field, tf.float64), basis)) for field in (v, product))
    channel_axis = 1 if basis == "fourier" else v.ndim - 1
    axes = (0, channel_axis)
    power = np.sum(np.square(np.abs(v)), axis=axes, keepdims=True)
    transfer = np.sum(product * np.conj(v), axis=axes, keepdims=True) / power
    left = np.sum(np.square(np.abs(product - transfer * v)), axis=axes, keepdims=True)
    total = np.sum(np.square(np.abs(product)))
    # One of the numbers of each mode went into its factor.
    count = v.shape[0] * v.shape[channel_axis]
    leakage = np.sqrt(min(np.sum(left) / total * count / (count - 1), 1.0)) if total > 0 else 1.0
    error = np.sqrt(left / (count - 1) / power)
    transfer = np.where(np.abs(transfer) > SIGNIFICANT * error, transfer, 0.0)
    if np.iscomplexobj(transfer) and np.all(np.abs(transfer.imag) <= 1e-6 * np.max(np.abs(transfer))):
        transfer = transfer.real
    return Leakage(basis, float(leakage), np.squeeze(transfer, axis=axes))
