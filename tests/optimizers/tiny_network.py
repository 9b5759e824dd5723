"""A network of 13 weights in front of Poisson's equation, in Keras and once more in NumPy."""

import keras
import numpy as np

import keras_sip
from numerics import laplacian_matrix

RESOLUTION = (3, 3)
SHAPES = [(2, 2, 1, 2), (2,), (1, 1, 2, 1), (1,)]
SIMULATOR = keras_sip.Poisson(RESOLUTION, dtype="float64")
LAPLACIAN = laplacian_matrix(RESOLUTION).toarray()


def model(optimizer, method="adjoint", solver=None, **options):
    """The compiled SIPModel; its weights are the same each time."""
    inputs = keras.Input((*RESOLUTION, 1), dtype="float64")
    hidden = keras.layers.Conv2D(2, 2, activation="tanh", dtype="float64")(inputs)
    network = keras.Model(inputs, keras.layers.ZeroPadding2D(((0, 1), (0, 1)), dtype="float64")(
        keras.layers.Conv2D(1, 1, dtype="float64", name="last")(hidden)
    ))  # fmt: skip
    network.set_weights(start_weights())
    sip = keras_sip.SIPModel(network, SIMULATOR, solver, method, input_scale=1.0, x_scale=1.0)
    sip.compile(optimizer, **options)
    return sip


def start_weights():
    generator = np.random.default_rng(0)
    return [0.6 * generator.standard_normal(shape) for shape in SHAPES]


def restart(model, **optimizer_variables):
    """The model as it was made, its traced step kept; given optimizer variables are set to these values."""
    model.network.set_weights(start_weights())
    for variable in model.optimizer.variables:
        if variable is not model.optimizer._learning_rate:
            variable.assign(keras.ops.zeros_like(variable))
    for name, value in optimizer_variables.items():
        getattr(model.optimizer, name).assign(value)
    return model


def observations(batch=5, seed=1):
    """(y, x), NumPy."""
    y, x = keras_sip.evaluation_set(SIMULATOR, batch, seed)
    return y.numpy(), x.numpy()


def weights(sip):
    return np.concatenate([np.ravel(value) for value in sip.network.get_weights()])


def predict(weights, y):
    """x `[B, 3, 3, 1]` of the network with these 13 weights: patches of 2 x 2 cells, one after the other."""
    parts = np.split(weights, np.cumsum([np.prod(shape) for shape in SHAPES])[:-1])
    kernel, bias, head, last = (part.reshape(shape) for part, shape in zip(parts, SHAPES, strict=True))
    x = np.zeros(y.shape)
    for i in range(2):
        for j in range(2):
            patch = y[:, i : i + 2, j : j + 2, 0]
            hidden = np.tanh(np.einsum("bij,ijc->bc", patch, kernel[:, :, 0]) + bias)
            x[:, i, j, 0] = hidden @ head[0, 0, :, 0] + last[0]
    return x


def residual(weights, y):
    """All residuals of the batch as one vector whose half square is the loss, averaged over examples."""
    x = predict(weights, y).reshape(len(y), -1)
    return (np.linalg.solve(LAPLACIAN, x.T).T - y.reshape(len(y), -1)).ravel() / np.sqrt(len(y))


def loss(weights, y):
    return 0.5 * np.sum(residual(weights, y) ** 2)


def jacobian(weights, y, step=1e-6):
    """Central differences, error about 1e-9."""
    units = step * np.eye(len(weights))
    columns = [(residual(weights + unit, y) - residual(weights - unit, y)) / (2 * step) for unit in units]
    return np.stack(columns, axis=1)


def gradient(weights, y):
    return jacobian(weights, y).T @ residual(weights, y)


def hessian(weights, y, step=1e-4):
    """Central differences of the gradient, error about 1e-7."""
    units = step * np.eye(len(weights))
    rows = np.stack([(gradient(weights + unit, y) - gradient(weights - unit, y)) / (2 * step) for unit in units])
    return (rows + rows.T) / 2
