"""A training run that can be killed: what the tests of exact resume start in a process of its own."""

import time

import keras
import numpy as np

import keras_sip
from keras_sip.callbacks import ExactResume

STEPS, EVERY, BATCH = 240, 5, 128
SIMULATOR = keras_sip.Poisson((8, 8))


class Slow(keras.callbacks.Callback):
    """Steps of a few milliseconds, so that there is time to kill the process while it trains."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.01)


def make_model(batch_statistics="measured"):
    """Batch norm, dropout and Adam: moving statistics, a random generator and slots must all come back."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SIMULATOR.y_shape)
    hidden = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    hidden = keras.layers.Dropout(0.2, seed=3)(keras.layers.Activation("relu")(hidden))
    network = keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same")(hidden))
    model = keras_sip.SIPModel(network, SIMULATOR, keras_sip.AnalyticInverse())
    model.compile(keras.optimizers.Adam(1e-2), batch_statistics=batch_statistics)
    return model


def train(folder, steps=STEPS, every=EVERY, callbacks=()):
    """(model, final metrics) after all steps; goes on where an earlier call was stopped."""
    model = make_model()
    resume = ExactResume(folder, every=every)
    step = resume.restore(model)
    data = keras_sip.dataset(SIMULATOR, batch_size=BATCH, seed=0, start_step=step)
    history = model.fit(data, steps_per_epoch=steps - step, verbose=0, callbacks=[resume, *callbacks])
    return model, {name: values[-1] for name, values in history.history.items()}


def everything(model):
    """All numbers that training reads and changes."""
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


def run(folder, result):
    """What a process does: train, and leave all numbers in a file."""
    model, metrics = train(folder, callbacks=[Slow()])
    numbers = {f"variable{index}": value for index, value in enumerate(everything(model))}
    np.savez(result, **numbers, **{f"metric_{name}": value for name, value in metrics.items()})
