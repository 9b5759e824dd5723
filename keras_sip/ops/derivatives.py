"""Derivatives of batched functions, whose examples are independent of each other.

Throughout, f maps `[B, *x]` to `[B, *y]` so that y_i depends on x_i alone (it may close over constants `[B, ...]`), and
J is the Jacobian of each example, y_size x x_size, never formed unless asked for. Everything works eagerly, in graphs,
under XLA and in while loops, also where f itself holds FFTs, gathers, custom gradients or `ops.integrate`.

A raw `tf.while_loop` in f is differentiated by TensorFlow: eagerly and in graphs as well as any. Under XLA J v fails
where the loop reads constants ("Cannot find body function"), and where it indexes with its counter the program is
compiled anew for every new x, or not at all ("must be a compile-time constant"). `ops.integrate` has none of this.
"""

from collections.abc import Callable

import tensorflow as tf

Function = Callable[[tf.Tensor], tf.Tensor]
Product = Callable[[tf.Tensor], tf.Tensor]

ZERO = tf.UnconnectedGradients.ZERO


def jvp(f: Function, x: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(f(x), J v): the directional derivative along v `[B, *x]`. Costs two to three evaluations of f.

    For many directions at one x use `linearize`. (Not `tf.autodiff.ForwardAccumulator`, which passes over custom
    gradients in graphs: J v of a function that has one would be 0 or that of what is inside, without a word.)
    """
    y, product, _ = linearize(f, x)
    return y, product(tf.convert_to_tensor(v, y.dtype))


def vjp(f: Function, x: tf.Tensor, w: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """(f(x), J^T w) for w `[B, *y]`, reverse mode. Costs two to three evaluations of f and keeps its intermediates."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = f(x)
    return y, tape.gradient(y, x, output_gradients=w, unconnected_gradients=ZERO)


def linearize(f: Function, x: tf.Tensor) -> tuple[tf.Tensor, Product, Product]:
    """(f(x), v -> J v, w -> J^T w): f evaluated once, the products as often as you like.

    A product costs one to two evaluations of f, which is not evaluated again: its intermediate results are kept as long
    as the two functions are. They may be called inside a while loop whose outside linearised f.

    J v is the derivative with respect to w of the linear map w -> J^T w ("double-vjp trick"), which reuses the
    intermediates where forward accumulation would compute f anew in each product.
    """
    x = tf.convert_to_tensor(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = f(x)
    with tf.GradientTape(persistent=True) as tape_of_transpose:
        any_w = tf.zeros_like(y)
        tape_of_transpose.watch(any_w)
        transposed = tape.gradient(y, x, output_gradients=any_w, unconnected_gradients=ZERO)

    def product(v):
        return tape_of_transpose.gradient(transposed, any_w, output_gradients=v, unconnected_gradients=ZERO)

    def transposed_product(w):
        return tape.gradient(y, x, output_gradients=w, unconnected_gradients=ZERO)

    return y, product, transposed_product


def gradient(objective: Function, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(L, dL/dx) of an objective `[B, *x]` to `[B]`: `[B]` and `[B, *x]`. Costs two to three evaluations of it."""
    # Without w the tape takes ones: the derivative of the sum over the batch, which is that of each example.
    return vjp(objective, x, None)


def jacobian(f: Function, x: tf.Tensor) -> tf.Tensor:
    """The Jacobian of each example, dense: `[B, y_size, x_size]`, x and y flattened row by row.

    Costs one evaluation of f and min(x_size, y_size) products, unrolled: for small x or y. (Measured as fast as
    repeating the examples along the batch, which would break functions that close over constants of each example.)
    """
    x = tf.convert_to_tensor(x)
    y, product, transposed_product = linearize(f, x)
    x_size, y_size = x.shape[1:].num_elements(), y.shape[1:].num_elements()
    if y_size <= x_size:
        rows = [tf.reshape(transposed_product(unit), [-1, x_size]) for unit in _units(y)]
        return tf.stack(rows, axis=1)
    columns = [tf.reshape(product(unit), [-1, y_size]) for unit in _units(x)]
    return tf.stack(columns, axis=2)


def hessian(objective: Function, x: tf.Tensor) -> tf.Tensor:
    """The Hessian of an objective `[B, *x]` to `[B]` in each example, dense: `[B, n, n]` with n = x_size.

    Costs one gradient and n products with its transposed Jacobian, unrolled: for small x. Symmetric to rounding.
    """
    return jacobian(lambda x: gradient(objective, x)[1], x)


def _units(like):
    """The unit vectors of one example's entries, each as a tensor like `like` `[B, ...]`, the same in all examples."""
    size = like.shape[1:].num_elements()
    for row in tf.unstack(tf.eye(size, dtype=like.dtype)):
        yield tf.zeros_like(like) + tf.reshape(row, like.shape[1:])
