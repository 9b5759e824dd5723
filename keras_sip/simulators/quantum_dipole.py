"""An electron in a box, to be steered from its ground state by an electric field over time."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int
from keras_sip.ops import batched, random_fields
from keras_sip.ops.time_integration import integrate
from keras_sip.simulators.base import Context, Simulator

TARGETS = ("reached", "excited")


@keras.saving.register_keras_serializable(package="keras_sip")
class QuantumDipole(Simulator):
    """The Schroedinger equation of a particle in a box of infinite walls, in a uniform field u(t):

        i dpsi/dt = H psi + u(t) s psi,    H = -d^2/ds^2,    psi = 0 at s = 0 and s = width

    x `[B, num_steps]`: u, held over each step. y `[B, points, 2]`: real and imaginary part of psi at the inner points
    after the last step, of unit norm, sum |psi|^2 = 1. The start is the ground state. hbar and twice the mass are 1.

    A step is exp(-i dt u s / 2) exp(-i dt H) exp(-i dt u s / 2), with the three-point H: of order 2 in `step_size`, and
    unitary to rounding. The code of the source steps by Crank and Nicolson.

    L = 1 - |<y*, y>|^2, by the residual r = sqrt(2) (y - <y*, y> y*), which is a half sum of squares for states of unit
    norm: a phase of all psi counts for nothing.

    `sample` draws, by `target`,

    - "reached": x normal of deviation `control_size`, and y = P(x);
    - "excited": the published problem, y a superposition of the second and third eigenstate with normal coefficients,
      normalised. There is no true x: that of a sample says what controls are like, and belongs to no y.

    `distance` is the root mean square of x - x_ref; with target "excited" of x, the effort.

    Source: Schnell, Holl and Thuerey, Half-inverse gradients for physical deep learning (ICLR 2022), Section 3.3; the
    defaults are those of their code. The splitting: Feit, Fleck and Steiger, Solution of the Schroedinger equation by a
    spectral method, J. Comput. Phys. 47 (1982), Eq. 3.

    Args:
        num_steps: Number of steps, and of controls.
        points: Inner points of the grid.
        step_size: dt.
        width: Of the box.
        target: "reached" or "excited".
        control_size: Standard deviation of the controls of samples; `x_scale` too.
        dtype: "float32" or "float64".
    """

    prefers_xla = True
    context_shape: dict[str, Any] = {}

    def __init__(
        self,
        num_steps: int = 384,
        *,
        points: int = 14,
        step_size: float = 0.05,
        width: float = 2.0,
        target: str = "reached",
        control_size: float = 1.0,
        dtype: str = "float32",
    ):
        self.num_steps = check_positive_int("num_steps", num_steps)
        self.points = check_positive_int("points", points, minimum=3)
        self.step_size = check_number("step_size", step_size, exclusive=True)
        self.width = check_number("width", width, exclusive=True)
        self.target = check_choice("target", target, TARGETS)
        self.control_size = check_number("control_size", control_size, exclusive=True)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.x_shape, self.y_shape = (self.num_steps,), (self.points, 2)

    @property
    def x_scale(self) -> float:
        return self.control_size

    @property
    def positions(self) -> np.ndarray:
        """s of the inner points, `[points]`."""
        return self.width * np.arange(1, self.points + 1) / (self.points + 1)

    @property
    def energies(self) -> np.ndarray:
        """Eigenvalues of H, rising, `[points]`: those of the second difference."""
        spacing = self.width / (self.points + 1)
        return (2 / spacing * np.sin(np.pi * np.arange(1, self.points + 1) / (2 * (self.points + 1)))) ** 2

    @property
    def eigenstates(self) -> np.ndarray:
        """Eigenvectors of H of unit norm, row k to `energies[k]`, `[points, points]`."""
        numbers = np.arange(1, self.points + 1)
        return np.sqrt(2 / (self.points + 1)) * np.sin(np.pi * np.outer(numbers, numbers) / (self.points + 1))

    def forward(self, x: tf.Tensor, context: Context = None) -> tf.Tensor:
        complex_dtype = "complex64" if self.dtype == "float32" else "complex128"
        states = self.eigenstates
        # Symmetric, so that it acts from the right as from the left.
        drift = tf.constant(states.T * np.exp(-1j * self.step_size * self.energies) @ states, complex_dtype)
        angles = tf.constant(-0.5 * self.step_size * self.positions, self.dtype)

        def step(psi, control, k):
            angle = control[:, None] * angles
            kick = tf.complex(tf.cos(angle), tf.sin(angle))
            return kick * tf.linalg.matmul(kick * psi, drift)

        ground = tf.constant(states[:1], complex_dtype)
        psi = integrate(step, tf.tile(ground, [tf.shape(x)[0], 1]), tf.transpose(x))
        return tf.stack([tf.math.real(psi), tf.math.imag(psi)], axis=-1)

    def residual(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        real, imaginary = tf.unstack(y, axis=-1)
        target_real, target_imaginary = tf.unstack(y_target, axis=-1)
        # <y*, y>, its two parts.
        same = tf.reduce_sum(target_real * real + target_imaginary * imaginary, axis=1, keepdims=True)
        turned = tf.reduce_sum(target_real * imaginary - target_imaginary * real, axis=1, keepdims=True)
        explained = [same * target_real - turned * target_imaginary, same * target_imaginary + turned * target_real]
        return 2**0.5 * (y - tf.stack(explained, axis=-1))

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        return batched.rms(x if self.target == "excited" else x - x_ref)

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        check_positive_int("batch_size", batch_size)
        control_seed, target_seed = tf.unstack(random_fields.split_seed(seed, 2))
        x = self.control_size * random_fields.normal([batch_size, *self.x_shape], control_seed, dtype=self.dtype)
        return {"x": x, "y": self._excited(batch_size, target_seed) if self.target == "excited" else self.forward(x)}

    def _excited(self, batch_size, seed):
        weights = random_fields.normal([batch_size, 2], seed, dtype=self.dtype)
        weights /= tf.norm(weights, axis=1, keepdims=True)
        real = tf.linalg.matmul(weights, tf.constant(self.eigenstates[1:3], self.dtype))
        return tf.stack([real, tf.zeros_like(real)], axis=-1)
