"""Batch normalisation by TensorFlow's fused kernel, with second derivatives that are about as cheap as the first."""

import tensorflow as tf


def batch_norm(x, gamma, beta, epsilon):
    """Normalise each channel over batch and cells:

        x_hat = (x - mean) r,    r = 1 / sqrt(variance + epsilon),    y = gamma x_hat + beta

    First and second derivatives are right; third ones are not. TensorFlow's own second derivative of the kernel takes
    some forty passes over the batch, this one takes the kernel's first derivative once more and ten passes.

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

    def by_kernel(dy, x, gamma):
        result = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=dy,
            x=x,
            scale=gamma,
            reserve_space_1=kernel.reserve_space_1,
            reserve_space_2=kernel.reserve_space_2,
            reserve_space_3=kernel.reserve_space_3,
            epsilon=epsilon,
            is_training=True,
        )
        return result.x_backprop, result.scale_backprop, result.offset_backprop

    @tf.custom_gradient
    def gradient(dy, x, gamma):
        dx, dgamma, dbeta = by_kernel(dy, x, gamma)

        def second(u, a, b):
            """Derivatives with respect to dy, x and gamma of sum(u dx) + a . dgamma + b . dbeta."""
            # The first derivative is a symmetric linear map of dy: its transpose is the kernel again.
            from_u, u_x_hat, u_sum = by_kernel(u, x, gamma)
            cells = tf.cast(tf.size(x) // x.shape[-1], gamma.dtype)
            r = tf.math.rsqrt(kernel.batch_variance * (cells - 1) / cells + epsilon)
            along_dy, along_u = dgamma / cells, u_x_hat / cells
            both = tf.reduce_mean(tf.cast(u, gamma.dtype) * tf.cast(dy, gamma.dtype), axis=(0, 1, 2))
            covariance = both - u_sum / cells * dbeta / cells - along_u * along_dy
            # What reaches x_hat in dx and dgamma is c = of_u u + of_dy dy; the kernel's formula takes it on to x, and
            # r itself depends on x.
            of_u, of_dy = -gamma * r * along_dy, a - gamma * r * along_u
            mean_c = of_u * u_sum / cells + of_dy * dbeta / cells
            along_c = of_u * along_u + of_dy * along_dy
            of_x_hat = -r * (along_c + gamma * r * covariance)
            dx_dx = _combine(x.dtype, (r * of_u, u), (r * of_dy, dy), (of_x_hat * r, x))
            dx_dx += tf.cast(-r * mean_c - of_x_hat * r * kernel.batch_mean, x.dtype)
            dx_dy = from_u + _combine(x.dtype, (a * r, x)) + tf.cast(b - a * r * kernel.batch_mean, x.dtype)
            return dx_dy, dx_dx, r * cells * covariance

        return (dx, dgamma, dbeta), second

    return gradient(dy, x, gamma)


def _combine(dtype, *terms):
    """sum of coefficient `[C]` times tensor `[B, H, W, C]`."""
    return sum(tf.cast(coefficient, dtype) * tensor for coefficient, tensor in terms)
