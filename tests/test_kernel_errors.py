import pytest
import tensorflow as tf

import keras_sip
from keras_sip.kernel_errors import SimulatorKernelError, explaining_kernel_errors

SINGULAR = tf.constant([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
RHS = tf.ones([2, 2, 1])


class Singular(keras_sip.Simulator):
    x_shape, y_shape = (2,), (2,)

    def __repr__(self):
        return "Singular()"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "kernel, operation",
    [(tf.linalg.solve, "MatrixSolve"), (lambda matrix, _: tf.linalg.lu(matrix), "Lu")],
)
def test_a_kernel_that_raises_is_named_as_the_simulators_with_the_remedy(kernel, operation, compiled):
    function = tf.function(kernel, autograph=False) if compiled else kernel
    with pytest.raises(SimulatorKernelError) as caught, explaining_kernel_errors(Singular()):
        function(SINGULAR, RHS)
    message = str(caught.value)
    assert operation in message
    assert "in `forward` of Singular()" in message
    assert "keras_sip.ops.solve" in message
    assert isinstance(caught.value.__cause__, tf.errors.OpError)


def test_a_loop_that_xla_cannot_differentiate_names_integrate():
    constants = tf.random.stateless_normal([200], (0, 1))

    def product(x, v):
        matrix = tf.constant([[0.5, 0.1], [0.0, 0.7]])

        def step(i, s):
            return i + 1, tf.tanh(tf.matmul(s, matrix) + tf.gather(constants, i))

        def forward(x):
            return tf.while_loop(lambda i, s: i < 5, step, (0, x), maximum_iterations=5)[1]

        return keras_sip.ops.derivatives.linearize(forward, x)[1](v)

    compiled = tf.function(product, autograph=False, jit_compile=True)
    with pytest.raises(SimulatorKernelError, match="ops.integrate"), explaining_kernel_errors():
        compiled(tf.ones([3, 2]), tf.ones([3, 2]))


def test_other_errors_pass_as_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes"), explaining_kernel_errors():
        tf.ones([2]) + tf.ones([3])
    with pytest.raises(ZeroDivisionError), explaining_kernel_errors():
        raise ZeroDivisionError
