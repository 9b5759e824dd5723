"""Muon for convolutional networks: momentum whose matrices are made orthogonal."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.ops.orthogonal import orthogonalize
from keras_sip.optimizers.second_order import LearningRate

# Root mean square of Adam's steps in units of its rate, so that rates of Adam suit Muon too.
SIZE_OF_ADAM = 0.2


@keras.saving.register_keras_serializable(package="keras_sip")
class Muon(keras.optimizers.Optimizer):
    """Muon: kernels move along the orthogonal factor of their momentum, all else by Adam.

        m <- momentum m + g;    O = orthogonalize(g + momentum m)
        w <- w - learning_rate 0.2 sqrt(max(n_in, n_out)) O

    A kernel is taken as the matrix `[n_in, n_out]` that acts on a patch, `[9 in, out]` for a 3x3 convolution
    (`keras.optimizers.Muon` gives every kernel that is no matrix to AdamW). Adam takes biases, batch norm, kernels of
    which one side is 1, and the layers in `exclude`.

    Source: Jordan et al., Muon (2024), with Nesterov's momentum; the factor 0.2 sqrt(max(n_in, n_out)), which gives
    steps the size of Adam's, after Liu et al., Muon is scalable for LLM training (2025), Eq. 4.

    Args:
        learning_rate: A float or a Keras schedule, of the kernels.
        adam_ratio: Rate of Adam over `learning_rate`.
        momentum: Of the kernels.
        beta_1, beta_2, epsilon: Of Adam.
        iterations_of_root: Newton-Schulz steps of each orthogonalisation.
        exclude: Parts of the paths of variables that Adam takes.
        weight_decay: Decoupled, for everything; None for none.
        **kwargs: Of every Keras optimizer.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        adam_ratio: float = 1.0,
        momentum: float = 0.95,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        *,
        iterations_of_root: int = 5,
        exclude: Sequence[str] = ("head", "embedding"),
        weight_decay: float | None = None,
        name: str = "muon",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.adam_ratio = check_number("adam_ratio", adam_ratio)
        self.momentum = check_number("momentum", momentum, maximum=1.0)
        self.beta_1 = check_number("beta_1", beta_1, maximum=1.0)
        self.beta_2 = check_number("beta_2", beta_2, maximum=1.0)
        self.epsilon = check_number("epsilon", epsilon)
        self.iterations_of_root = check_positive_int("iterations_of_root", iterations_of_root)
        self.exclude = _checked_names(exclude)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums = [self.add_variable_from_reference(variable, "momentum") for variable in variables]
        self._velocities = [
            None if self.orthogonalizes(variable) else self.add_variable_from_reference(variable, "velocity")
            for variable in variables
        ]

    def orthogonalizes(self, variable: keras.Variable) -> bool:
        """Whether the variable is a kernel for Muon, and not Adam's."""
        if len(variable.shape) < 2 or any(name in variable.path for name in self.exclude):
            return False
        return min(matrix_shape(variable.shape)) > 1

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        rate = tf.cast(learning_rate, variable.dtype)
        if velocity is None:
            self.assign(momentum, self.momentum * momentum + gradient)
            step = self._orthogonal(gradient + self.momentum * momentum)
        else:
            step = self.adam_ratio * self._adam(gradient, momentum, velocity)
        self.assign_sub(variable, rate * step)

    def _orthogonal(self, kernel):
        shape = matrix_shape(kernel.shape)
        factor = orthogonalize(tf.reshape(kernel, shape), steps=self.iterations_of_root)
        return tf.reshape(SIZE_OF_ADAM * max(shape) ** 0.5 * factor, kernel.shape)

    def _adam(self, gradient, momentum, velocity):
        count = tf.cast(self.iterations + 1, gradient.dtype)
        self.assign(momentum, self.beta_1 * momentum + (1 - self.beta_1) * gradient)
        self.assign(velocity, self.beta_2 * velocity + (1 - self.beta_2) * tf.square(gradient))
        mean = momentum / (1 - self.beta_1**count)
        return mean / (tf.sqrt(velocity / (1 - self.beta_2**count)) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "adam_ratio": self.adam_ratio,
            "momentum": self.momentum,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "iterations_of_root": self.iterations_of_root,
            "exclude": list(self.exclude),
        }


def matrix_shape(shape):
    """(n_in, n_out) of a kernel `[..., in, out]`."""
    inputs = 1
    for size in shape[:-1]:
        inputs *= size
    return inputs, shape[-1]


def _checked_names(names):
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            three_part(
                "`exclude` to be a tuple of parts of variable paths",
                f"exclude={names!r}",
                'Give for example exclude=("head",).',
            )
        )
    return tuple(names)
