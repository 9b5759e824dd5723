"""Natural gradients of a batch's residuals, by the Woodbury identity, with momentum in the kernel."""

from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_number
from keras_sip.optimizers.residual_kernel import ResidualKernel, ResidualKernelOptimizer


@keras.saving.register_keras_serializable(package="keras_sip")
class NaturalGradient(ResidualKernelOptimizer):
    """The damped Gauss-Newton step of a batch, drawn towards the step before where the batch says nothing.

        d_k = argmin_d |r + J d|^2 + lambda |d - momentum d_(k - 1)|^2
            = momentum d_(k - 1) - J^T (J J^T + lambda)^(-1) (r + momentum J d_(k - 1))
        w <- w + learning_rate d_k

    lambda = damping times the mean eigenvalue of J^T J, so that steps depend neither on the unit of y nor on the size
    of the batch. Where m residuals are fewer than n weights, the m x m system is the smaller one.

    J passes through network and simulator with method "adjoint".

    Source: Müller and Zeinhofer, Achieving high accuracy with PINNs via energy natural gradients (ICML 2023); in this
    form Goldshlager, Abrahamsen and Lin, A Kaczmarz-inspired approach to accelerate the optimization of neural network
    wavefunctions (2024), Eq. 15 (SPRING).

    Args:
        learning_rate: A float or a Keras schedule.
        damping: lambda over the mean eigenvalue of J^T J.
        momentum: Of the step before, below 1.
        lanczos_steps: As in `HalfInverse`.
        **kwargs: Of every Keras optimizer, except clipping and gradient accumulation.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        damping: float = 1e-3,
        momentum: float = 0.9,
        *,
        lanczos_steps: int | None = None,
        name: str = "natural_gradient",
        **kwargs,
    ):
        super().__init__(learning_rate, lanczos_steps, name=name, **kwargs)
        self.damping = check_number("damping", damping, exclusive=True)
        self.momentum = check_number("momentum", momentum, maximum=0.999)

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._last_steps = [self.add_variable_from_reference(variable, "last_step") for variable in variables]

    def direction(self, kernel: ResidualKernel, problem: Any) -> tf.Tensor:
        last = self.momentum * problem.join(self._last_steps)
        misfit = kernel.residual + kernel.product(last)
        count = tf.cast(tf.size(last), tf.float64)

        def function(eigenvalues):
            # Of Lanczos' iteration the sum is that of the part of K it has seen.
            damping = self.damping * tf.reduce_sum(tf.abs(eigenvalues)) / count
            shifted = tf.maximum(eigenvalues, 0.0) + damping
            return tf.math.divide_no_nan(tf.ones_like(shifted), shifted)

        step = tf.cast(last, tf.float64) - kernel.transposed(kernel.function(misfit, function))
        usable = tf.reduce_all(tf.math.is_finite(step))
        for variable, part in zip(self._last_steps, problem.split(tf.cast(step, last.dtype)), strict=True):
            variable.assign(tf.where(usable, part, tf.zeros_like(part)))
        return step

    def get_config(self) -> dict:
        return {**super().get_config(), "damping": self.damping, "momentum": self.momentum}
