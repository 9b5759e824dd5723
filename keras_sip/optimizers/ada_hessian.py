"""AdaHessian: Adam with the diagonal of the Hessian in place of the squared gradient."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int
from keras_sip.optimizers.second_order import LearningRate, SecondOrderOptimizer

if TYPE_CHECKING:
    from keras_sip.training.weight_problem import WeightProblem


@keras.saving.register_keras_serializable(package="keras_sip")
class AdaHessian(SecondOrderOptimizer):
    """AdaHessian: steps divided by a running root mean square of the Hessian's diagonal.

        D = mean over the kernel's cells of v * (H v),    v_i = +-1 at random (Hutchinson: E[v * (H v)] = diag H)
        m <- beta_1 m + (1 - beta_1) g;    s <- beta_2 s + (1 - beta_2) D^2
        w <- w - learning_rate * (m / (1 - beta_1^t)) / ((s / (1 - beta_2^t))^(k/2) + epsilon)

    The mean of D runs over the spatial axes of convolution kernels (`[H, W, in, out]`, and alike in 1D and 3D), so that
    one number serves each pair of channels. H is that of the batch's loss as `SIPModel` has it: through network and
    simulator with method "adjoint". A step costs one gradient and, every `hessian_every` steps, one Hessian-vector
    product; in between s stays, and t of s counts products.

    Source: Yao et al., AdaHessian (2021), Algorithm 1, Eqs. 7 to 10.

    Args:
        learning_rate: A float or a Keras schedule.
        beta_1, beta_2: Shares of m and s that one step leaves.
        epsilon: Added to the divisor; it is in the units of H, and with them of the loss.
        hessian_power: k; 1 is a Newton step along each axis, 0 gradient descent with momentum.
        hessian_every: Steps from one Hessian product to the next; a product takes longer than the rest of a step.
        seed: Of the random signs; those of a step depend on (seed, step) alone.
        **kwargs: Of every Keras optimizer, except clipping and gradient accumulation.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-4,
        hessian_power: float = 1.0,
        *,
        hessian_every: int = 1,
        seed: int = 0,
        name: str = "ada_hessian",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.beta_1 = check_number("beta_1", beta_1, maximum=1.0)
        self.beta_2 = check_number("beta_2", beta_2, maximum=1.0)
        self.epsilon = check_number("epsilon", epsilon)
        self.hessian_power = check_number("hessian_power", hessian_power, maximum=1.0)
        self.hessian_every = check_positive_int("hessian_every", hessian_every)
        self.seed = check_positive_int("seed", seed, minimum=0)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums = [self.add_variable_from_reference(variable, "momentum") for variable in variables]
        self._curvatures = [
            self.add_variable(_averaged_shape(variable.shape), "zeros", variable.dtype, name=f"curvature_{index}")
            for index, variable in enumerate(variables)
        ]

    def take_step(self, problem: "WeightProblem") -> None:
        if self.hessian_every == 1:
            gradient = self._gradient_with_curvature(problem)
        else:
            due = self.iterations % self.hessian_every == 0
            gradient = tf.cond(due, lambda: self._gradient_with_curvature(problem), problem.gradient)
        self.change(problem.split(gradient), problem.variables)

    def _gradient_with_curvature(self, problem):
        """The gradient `[n]`, after the running squares of the diagonal have taken in this batch's."""
        step_seed = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(self.iterations, tf.int64)])
        signs = tf.random.stateless_uniform(problem.weights.shape, step_seed, maxval=2, dtype=tf.int32)
        probe = tf.cast(2 * signs - 1, problem.weights.dtype)
        gradient, product = problem.gradient_and_hessian_product(probe)
        for estimate, curvature in zip(problem.split(probe * product), self._curvatures, strict=True):
            diagonal = tf.reduce_mean(estimate, axis=_spatial_axes(estimate.shape), keepdims=True)
            curvature.assign(self.beta_2 * curvature + (1 - self.beta_2) * tf.square(diagonal))
        return gradient

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        momentum, curvature = self._momentums[index], self._curvatures[index]
        products = self.iterations // self.hessian_every + 1
        rate, count, products = (
            tf.cast(value, variable.dtype) for value in (learning_rate, self.iterations + 1, products)
        )
        self.assign(momentum, self.beta_1 * momentum + (1 - self.beta_1) * gradient)
        mean = momentum / (1 - self.beta_1**count)
        size = tf.sqrt(curvature / (1 - self.beta_2**products)) ** self.hessian_power + self.epsilon
        self.assign_sub(variable, rate * mean / size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "hessian_power": self.hessian_power,
            "hessian_every": self.hessian_every,
            "seed": self.seed,
        }


def _spatial_axes(shape):
    """Those of a convolution kernel; none of vectors and dense kernels."""
    return list(range(max(len(shape) - 2, 0)))


def _averaged_shape(shape):
    axes = _spatial_axes(shape)
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
