"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners."""

from typing import Any

import keras
import tensorflow as tf

from keras_sip.errors import check_number, check_positive_int
from keras_sip.optimizers.muon import matrix_shape


@keras.saving.register_keras_serializable(package="keras_sip")
class SOAP(keras.optimizers.Optimizer):
    """Adam in the coordinates in which the second moments of a kernel's rows and columns are diagonal.

        A <- beta_s A + (1 - beta_s) G G^T,    B <- beta_s B + (1 - beta_s) G^T G
        M <- beta_1 M + (1 - beta_1) G,        V <- beta_2 V + (1 - beta_2) (Q_A^T G Q_B)^2
        W <- W - learning_rate Q_A [ (Q_A^T M Q_B / (1 - beta_1^t)) / (sqrt(V / (1 - beta_2^t)) + epsilon) ] Q_B^T

    G is the gradient of a kernel as the matrix `[n_in, n_out]` that acts on a patch, Q_A and Q_B the eigenvectors of A
    and B, brought up to date every `update_every` steps by one step of orthogonal iteration. A side longer than
    `largest_side` keeps Q = I, as do biases and other vectors, for which this is Adam. The first gradient gives the
    first bases, and no step.

    Source: Vyas et al., SOAP: improving and stabilizing Shampoo using Adam (2024), Algorithm 3.

    Args:
        learning_rate: A float or a Keras schedule.
        beta_1, beta_2, epsilon: Of Adam.
        shampoo_beta: beta_s; None takes beta_2.
        update_every: Steps between two updates of the bases.
        largest_side: Sides of kernels above it are left alone.
        weight_decay: Decoupled; None for none.
        **kwargs: Of every Keras optimizer.
    """

    def __init__(
        self,
        learning_rate: Any = 3e-3,
        beta_1: float = 0.95,
        beta_2: float = 0.95,
        epsilon: float = 1e-8,
        *,
        shampoo_beta: float | None = None,
        update_every: int = 10,
        largest_side: int = 1024,
        weight_decay: float | None = None,
        name: str = "soap",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.beta_1 = check_number("beta_1", beta_1, maximum=1.0)
        self.beta_2 = check_number("beta_2", beta_2, maximum=1.0)
        self.epsilon = check_number("epsilon", epsilon)
        shampoo_beta = self.beta_2 if shampoo_beta is None else shampoo_beta
        self.shampoo_beta = check_number("shampoo_beta", shampoo_beta, maximum=1.0)
        self.update_every = check_positive_int("update_every", update_every)
        self.largest_side = check_positive_int("largest_side", largest_side)

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums = [self.add_variable_from_reference(variable, "momentum") for variable in variables]
        self._velocities = [self.add_variable_from_reference(variable, "velocity") for variable in variables]
        self._sides = [self._built_sides(variable) for variable in variables]

    def _built_sides(self, variable):
        """For rows and columns of the kernel: (A, Q), or None where Q stays the identity."""
        if len(variable.shape) < 2:
            return (None, None)
        return tuple(
            self._built_side(variable, size) if 1 < size <= self.largest_side else None
            for size in matrix_shape(variable.shape)
        )

    def _built_side(self, variable, size):
        names = ("moment", "basis")
        return tuple(self.add_variable((size, size), "zeros", variable.dtype, name=name) for name in names)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        momentum, velocity, sides = self._momentums[index], self._velocities[index], self._sides[index]
        rate = tf.cast(learning_rate, variable.dtype)
        if sides == (None, None):
            self.assign_sub(variable, rate * self._adam(gradient, gradient, momentum, velocity, lambda m: m, 0))
            return
        shape = matrix_shape(variable.shape)
        matrix = tf.reshape(gradient, shape)
        is_first = tf.equal(self.iterations, 0)
        self._update_moments(matrix, sides, is_first)
        rows, columns = (None if side is None else side[1].value for side in sides)

        def rotate(tensor):
            return tf.reshape(_product(rows, tf.reshape(tensor, shape), columns, back=False), gradient.shape)

        def rotate_back(tensor):
            return tf.reshape(_product(rows, tf.reshape(tensor, shape), columns, back=True), gradient.shape)

        # The first gradient makes the bases; a step by its own second moments would be one of signs.
        counted = tf.where(is_first, tf.zeros_like(gradient), gradient)
        step = rotate_back(self._adam(counted, rotate(counted), momentum, velocity, rotate, 1))
        self.assign_sub(variable, tf.where(is_first, tf.zeros_like(step), rate * step))
        self._update_bases(sides, is_first)

    def _adam(self, gradient, rotated, momentum, velocity, rotate, skipped):
        """Adam's step for a rate of 1 in rotated coordinates; `skipped` gradients came before the first that counts."""
        count = tf.cast(self.iterations + 1 - skipped, gradient.dtype)
        count = tf.maximum(count, tf.ones_like(count))
        self.assign(momentum, self.beta_1 * momentum + (1 - self.beta_1) * gradient)
        self.assign(velocity, self.beta_2 * velocity + (1 - self.beta_2) * tf.square(rotated))
        mean = rotate(momentum.value) / (1 - self.beta_1**count)
        return mean / (tf.sqrt(velocity / (1 - self.beta_2**count)) + self.epsilon)

    def _update_moments(self, matrix, sides, is_first):
        products = (
            lambda: tf.linalg.matmul(matrix, matrix, transpose_b=True),
            lambda: tf.linalg.matmul(matrix, matrix, transpose_a=True),
        )
        for side, product in zip(sides, products, strict=True):
            if side is None:
                continue
            moment, basis = side
            self.assign(moment, self.shampoo_beta * moment + (1 - self.shampoo_beta) * product())
            # Of the first gradient alone; afterwards orthogonal iteration follows the moments.
            self.assign(basis, tf.cond(is_first, lambda m=moment: _eigenvectors(m.value), lambda b=basis: b.value))

    def _update_bases(self, sides, is_first):
        due = tf.equal(self.iterations % self.update_every, 0) & ~is_first
        for side in sides:
            if side is None:
                continue
            moment, basis = side
            self.assign(
                basis,
                tf.cond(due, lambda m=moment, b=basis: _iterated(m.value, b.value), lambda b=basis: b.value),
            )

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "shampoo_beta": self.shampoo_beta,
            "update_every": self.update_every,
            "largest_side": self.largest_side,
        }


def _product(rows, matrix, columns, *, back):
    """Q_A^T G Q_B, or Q_A G Q_B^T going back; None stands for the identity."""
    if rows is not None:
        matrix = tf.linalg.matmul(rows, matrix, transpose_a=not back)
    if columns is not None:
        matrix = tf.linalg.matmul(matrix, columns, transpose_b=back)
    return matrix


def _eigenvectors(moment):
    finite = tf.reduce_all(tf.math.is_finite(moment))
    identity = tf.eye(moment.shape[0], dtype=moment.dtype)
    # In descending order, as orthogonal iteration keeps them.
    return tf.linalg.eigh(tf.where(finite, moment, identity))[1][:, ::-1]


def _iterated(moment, basis):
    """One step of orthogonal iteration; where it is not finite, the basis as it was."""
    iterated = tf.linalg.qr(tf.linalg.matmul(moment, basis))[0]
    return tf.where(tf.reduce_all(tf.math.is_finite(iterated)), iterated, basis)
