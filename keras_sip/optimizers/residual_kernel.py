"""Steps in the space of a batch's residuals: what half-inverse and natural gradients share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_sip.errors import check_positive_int, three_part
from keras_sip.ops.lanczos import apply_function, lanczos
from keras_sip.optimizers.second_order import SecondOrderOptimizer

# Rows of a dense Jacobian: its Gram matrix is decomposed in each step, which takes their number cubed.
MOST_RESIDUALS = 1024


class ResidualKernel(NamedTuple):
    """r and J = dr/dw of a batch, and functions of the kernel K = J J^T, in float64.

    Attributes:
        residual: r `[m]`, with L = 1/2 |r|^2.
        product: v `[n]` -> J v `[m]`.
        transposed: u `[m]` -> J^T u `[n]`.
        function: (u `[m]`, f) -> f(K) u, f mapping the eigenvalues of K in ascending order.
    """

    residual: tf.Tensor
    product: Callable
    transposed: Callable
    function: Callable


class ResidualKernelOptimizer(SecondOrderOptimizer):
    """An optimizer whose step is J^T f(J J^T) u, J the Jacobian of the batch's residuals.

    **Must override** `direction(kernel, problem) -> [n]`, the step for a rate of 1.

    Args:
        learning_rate: Factor on the step.
        lanczos_steps: None decomposes J J^T, for at most 1,024 residuals a batch. An int takes so many steps of
            Lanczos' iteration with products of J and J^T, for any number, and stores no J.
    """

    needs_least_squares = True
    needs_independent_examples = True
    # Eigenvectors of XLA are good to 1e-9 of the largest eigenvalue: singular values below 3e-5 would be noise.
    compiles = False

    def __init__(self, learning_rate: Any, lanczos_steps: int | None, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.lanczos_steps = None if lanczos_steps is None else check_positive_int("lanczos_steps", lanczos_steps)

    def direction(self, kernel: ResidualKernel, problem: Any) -> tf.Tensor:
        raise NotImplementedError(
            three_part(
                f"`{type(self).__name__}` to define `direction(self, kernel, problem)`",
                "an optimizer in residual space without it",
                "Return the step in the weights, such as -kernel.transposed(kernel.residual).",
            )
        )

    def take_step(self, problem: Any) -> None:
        kernel = self._dense(problem) if self.lanczos_steps is None else self._matrix_free(problem)
        step = self.direction(kernel, problem)
        step = tf.where(tf.reduce_all(tf.math.is_finite(step)), step, tf.zeros_like(step))
        self.change(problem.split(-tf.cast(step, problem.weights.dtype)), problem.variables)

    def _dense(self, problem):
        residual, jacobian = problem.jacobian()
        residual = self._of_allowed_size(residual)
        residual, jacobian = tf.cast(residual, tf.float64), tf.cast(jacobian, tf.float64)
        gram = tf.linalg.matmul(jacobian, jacobian, transpose_b=True)
        finite = tf.reduce_all(tf.math.is_finite(gram))
        # Decompositions need not end, or raise, on NaN.
        values, vectors = tf.linalg.eigh(tf.where(finite, gram, tf.zeros_like(gram)))
        residual = tf.where(finite, residual, tf.zeros_like(residual))

        def function(u, f):
            return tf.linalg.matvec(vectors, f(values) * tf.linalg.matvec(vectors, u, transpose_a=True))

        return ResidualKernel(
            residual=residual,
            product=lambda v: tf.linalg.matvec(jacobian, tf.cast(v, tf.float64)),
            transposed=lambda u: tf.linalg.matvec(jacobian, u, transpose_a=True),
            function=function,
        )

    def _matrix_free(self, problem):
        residual, product, transposed = problem.linearized_residual()
        dtype = residual.dtype

        def kernel(u):
            return tf.cast(product(transposed(tf.cast(u, dtype))), tf.float64)

        return ResidualKernel(
            residual=tf.cast(residual, tf.float64),
            product=lambda v: tf.cast(product(tf.cast(v, problem.weights.dtype)), tf.float64),
            transposed=lambda u: tf.cast(transposed(tf.cast(u, dtype)), tf.float64),
            function=lambda u, f: apply_function(f, lanczos(kernel, u, self.lanczos_steps)),
        )

    def _of_allowed_size(self, residual):
        """`residual`, after an error where there are too many; the batch size may be known only when the graph runs."""
        count = residual.shape[0]
        message = three_part(
            f"at most {MOST_RESIDUALS} residuals in a batch for {type(self).__name__}, which decomposes the matrix of "
            "their products",
            "more of them (examples times outputs)" if count is None else f"{count} of them (examples times outputs)",
            "Take smaller batches, or pass lanczos_steps=30, which stores no matrix.",
        )
        if count is None:
            with tf.control_dependencies([tf.debugging.assert_less_equal(tf.size(residual), MOST_RESIDUALS, message)]):
                return tf.identity(residual)
        if count > MOST_RESIDUALS:
            raise ValueError(message)
        return residual

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign_sub(variable, tf.cast(learning_rate, variable.dtype) * gradient)

    def get_config(self) -> dict:
        return {**super().get_config(), "lanczos_steps": self.lanczos_steps}
