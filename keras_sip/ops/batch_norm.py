"""Batch normalisation by TensorFlow's fused kernel, with second derivatives that are about as cheap as the first."""

import tensorflow as tf


def batch_norm(x, gamma, beta, epsilon):
    """Normalise each channel over batch and cells:

        x_hat = (x - mean) r,    r = 1 / sqrt(variance + epsilon),    y = gamma x_hat + beta

    First and second derivatives are right; third ones are not. TensorFlow's own second derivative of the kernel is
    made of many small operations; this one takes the first derivative once more and a few passes.

    Args:
        x: `[B, H, W, C]`, float32, or float16 or bfloat16 beside float32 gamma and beta.
        gamma, beta: `[C]`.
        epsilon: A number.

    Returns:
        (y `[B, H, W, C]`, mean `[C]`, unbiased variance `[C]`); no gradient flows through mean and variance.
    """

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        kernel = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
        )
        outputs = kernel.y, kernel.batch_mean, kernel.batch_variance
        return outputs, lambda dy, *_: _gradient(dy, x, gamma, kernel, epsilon)

    return normalize(*map(tf.convert_to_tensor, (x, gamma, beta)))


def _gradient(dy, x, gamma, kernel, epsilon):
    """(dL/dx, dL/dgamma, dL/dbeta) of dL/dy; with < > for the mean over batch and cells and N for their number

    dx = gamma r (dy - <dy> - x_hat <dy x_hat>),    dgamma = N <dy x_hat>,    dbeta = N <dy>
    """

    @tf.custom_gradient
    def gradient(dy, x, gamma):
        first = _by_kernel(dy, x, gamma, kernel, epsilon)
        return first, lambda *cotangents: _second(cotangents, dy, x, gamma, first, kernel, epsilon)

    return gradient(dy, x, gamma)


def _by_kernel(dy, x, gamma, kernel, epsilon):
    gradient = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=dy,
        x=x,
        scale=gamma,
        reserve_space_1=kernel.reserve_space_1,
        reserve_space_2=kernel.reserve_space_2,
        reserve_space_3=kernel.reserve_space_3,
        epsilon=epsilon,
        is_training=True,
    )
    return gradient.x_backprop, gradient.scale_backprop, gradient.offset_backprop


def _second(cotangents, dy, x, gamma, first, kernel, epsilon):
    """Derivatives with respect to dy, x and gamma of sum(u dx) + a . dgamma + b . dbeta, of cotangents (u, a, b)."""
    u, a, b = cotangents
    # The first derivative is a symmetric linear map of dy: its transpose is the kernel again.
    from_u, *sums_u = _by_kernel(u, x, gamma, kernel, epsilon)
    cells = tf.cast(tf.size(x) // x.shape[-1], gamma.dtype)
    r = tf.math.rsqrt(kernel.batch_variance * (cells - 1) / cells + epsilon)
    (dy_x_hat, dy_mean), (u_x_hat, u_mean) = ([value / cells for value in sums] for sums in (first[1:], sums_u))
    u_dy = tf.reduce_mean(tf.cast(u, gamma.dtype) * tf.cast(dy, gamma.dtype), axis=(0, 1, 2))
    covariance = u_dy - u_mean * dy_mean - u_x_hat * dy_x_hat
    # What reaches x_hat in dx and dgamma is c = of_u u + of_dy dy. The kernel's formula takes c on to x; besides, r
    # depends on x.
    of_u, of_dy = -gamma * r * dy_x_hat, a - gamma * r * u_x_hat
    c_mean, c_x_hat = of_u * u_mean + of_dy * dy_mean, of_u * u_x_hat + of_dy * dy_x_hat
    of_x_hat = -r * (c_x_hat + gamma * r * covariance)
    from_x_hat, offset = of_x_hat * r, -r * c_mean - of_x_hat * r * kernel.batch_mean
    return (
        _combined((1.0, from_u), (a * r, x), offset=b - a * r * kernel.batch_mean),
        _combined((r * of_u, u), (r * of_dy, dy), (from_x_hat, x), offset=offset),
        r * cells * covariance,
    )


def _combined(*terms, offset):
    """offset `[C]` + sum of coefficient `[C]` times tensor `[B, H, W, C]`, in the tensors' type."""
    dtype = terms[0][1].dtype
    return sum((tf.cast(factor, dtype) * tensor for factor, tensor in terms), start=tf.cast(offset, dtype))
