"""Half-inverse gradients: between the gradient and Gauss-Newton, in all weights of a network."""

from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_number
from keras_sip.optimizers.residual_kernel import ResidualKernel, ResidualKernelOptimizer


@keras.saving.register_keras_serializable(package="keras_sip")
class HalfInverse(ResidualKernelOptimizer):
    """Half-inverse gradients: the Jacobian of the batch's residuals, inverted by half.

        w <- w - learning_rate V S^(-power) U^T r,    J = dr/dw = U S V^T,    L = 1/2 |r|^2

    With power 1 the steps are those of Gauss-Newton, which overfit each batch where the network is small; with -1 they
    are those of the gradient, J^T r, which hardly move along directions of small singular values; 0 leaves S out. 1/2
    lies between, and needs no damping. Singular values below `truncation` times the largest are dropped. The source
    writes the exponent of S itself, -power.

    J passes through network and simulator with method "adjoint". It is formed from the products of the network's
    derivatives with those of the simulator, J J^T decomposed in float64: V S^(-p) U^T r = J^T (J J^T)^(-(1 + p) / 2) r.

    Residuals are weighted as the batch is, and measured in units of their norm in the first step (kept with the
    optimizer): rates do not depend on the unit of y or on the size of the batch.

    Source: Schnell, Holl and Thuerey, Half-inverse gradients for physical deep learning (ICLR 2022), Eq. 5.

    Args:
        learning_rate: A float or a Keras schedule.
        power: From -1, the gradient, to 1, Gauss-Newton.
        truncation: Smallest singular value that counts, over the largest.
        lanczos_steps: None, for at most 1,024 residuals (examples times outputs) in a batch; above, so many steps of
            Lanczos' iteration take the place of the decomposition, and no J is stored.
        **kwargs: Of every Keras optimizer, except clipping and gradient accumulation.
    """

    def __init__(
        self,
        learning_rate: Any = 1.0,
        power: float = 0.5,
        truncation: float = 1e-6,
        *,
        lanczos_steps: int | None = None,
        name: str = "half_inverse",
        **kwargs,
    ):
        super().__init__(learning_rate, lanczos_steps, name=name, **kwargs)
        self.power = check_number("power", power, minimum=-1.0, maximum=1.0)
        self.truncation = check_number("truncation", truncation, exclusive=True, maximum=1.0)

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.residual_unit = self.add_variable((), "zeros", dtype="float64", name="residual_unit")

    def direction(self, kernel: ResidualKernel, problem: Any) -> tf.Tensor:
        norm = tf.norm(kernel.residual)
        unit = tf.where(self.residual_unit > 0, self.residual_unit, norm)
        self.residual_unit.assign(tf.where(tf.math.is_finite(unit), unit, tf.zeros_like(unit)))
        # In units of u: r / u and J / u, whose function of the kernel is that of K / u^2.
        unit = tf.where(unit > 0, unit, tf.ones_like(unit))

        def function(eigenvalues):
            squares = eigenvalues / unit**2
            kept = squares > self.truncation**2 * tf.reduce_max(squares)
            return tf.where(kept, tf.pow(tf.where(kept, squares, tf.ones_like(squares)), -(1 + self.power) / 2), 0.0)

        return -kernel.transposed(kernel.function(kernel.residual, function)) / unit**2

    def get_config(self) -> dict:
        return {**super().get_config(), "power": self.power, "truncation": self.truncation}
