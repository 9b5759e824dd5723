"""XlaTrial: whether physics and solver of a user's own simulator are faster under XLA, tried while fit trains."""

import logging
import time
from typing import Any

import keras
import tensorflow as tf

from keras_sip.data import as_observation, first_observations, without_bad_examples
from keras_sip.simulators.base import split_observation
from keras_sip.training.methods import Batch

LOG = logging.getLogger("keras_sip")
# Processor seconds of a step below which compiling would cost more than a short run can win back.
SLOW_STEP = 0.05
# By how much XLA must be faster: it compiles anew for every batch size.
GAIN = 1.2
REPEATS = 3


class XlaTrial(keras.callbacks.Callback):
    """Times the update that the training method asks for, by kernels and under XLA, and lets the model use the faster.

    Only where `simulator.prefers_xla` is None, nobody knows, and a step takes long enough: it is timed at the second
    execution, the first one compiles. What is found goes to the log "keras_sip" and holds as long as the model does.
    Runs that are to go on bit by bit set `prefers_xla`.

    Args:
        data: What the model is trained on.
    """

    def __init__(self, data: Any):
        super().__init__()
        self._data, self._executions = data, 0

    @classmethod
    def of_fit(cls, model: keras.Model, data: Any) -> "XlaTrial | None":
        """The trial, where something is to be found out: nobody knows, and the step is neither compiled nor eager."""
        undecided = model.physics.prefers_xla is None and not (model.jit_compile or model.run_eagerly)
        simulates = not model.method.needs_labels and model.distribute_strategy.num_replicas_in_sync == 1
        return cls(data) if undecided and simulates else None

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._began, self._step = time.process_time(), batch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._executions += 1
        if self._executions != 2:
            return
        seconds = (time.process_time() - self._began) / (batch + 1 - self._step)
        if seconds >= SLOW_STEP:
            self._try()

    def _try(self):
        observations = first_observations(self._data, 1)
        if not observations:
            return
        model = self.model
        observation, _ = without_bad_examples(as_observation(model.simulator, observations[0]))
        z, _ = model.scaled_network(observation, training=False)
        by_kernels, by_xla = (_seconds(model, observation, z, jit_compile=way) for way in (None, True))
        faster = by_xla is not None and GAIN * by_xla < by_kernels
        LOG.info(
            "update of %r: %.3g s by kernels, %s under XLA, which is %s for it. Set `prefers_xla` to decide otherwise.",
            model.simulator,
            by_kernels,
            "not possible" if by_xla is None else f"{by_xla:.3g} s",
            "used" if faster else "not used",
        )
        model.prefer_xla(faster)


def _seconds(model, observation, z, *, jit_compile):
    """The shortest of a few updates, or None where XLA cannot compile it."""
    y_target, context = split_observation(observation)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def update(observation, y_target, context, z):
        weight = tf.ones(tf.shape(z)[:1], z.dtype)
        batch = Batch(observation, y_target, context, None, weight)
        return model.method.desired_update(model.physics, batch, z).update

    shortest = float("inf")
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        try:
            update(observation, y_target, context, z).numpy()
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.InternalError):
            if jit_compile:
                return None
            raise
        shortest = min(shortest, time.perf_counter() - began)
    return shortest
