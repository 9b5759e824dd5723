"""Steps of small networks: many of them, with examples that the simulator draws on the way, in one compiled program."""

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from keras_sip.training.model import SIPModel


class Executions:
    """Takes the place of Keras' loop over `steps_per_execution` batches in `SIPModel.fit`, where it can.

    Keras fetches each batch and starts each compiled step by itself, which takes a step of a few thousand weights ten
    times as long as what it computes. Here an execution is one program: a loop over steps, each of which draws its
    batch from (seed, step) and trains on it. Batches, callbacks and logs are those of Keras' loop, and metrics are read
    once an execution there too; the sums of numbers may be rounded otherwise.

    It can where the data are `keras_sip.dataset(...)`, whole steps are compiled, `simulator.prefers_xla` says that
    `sample` is XLA's too, an execution has several steps, and there is one replica.

    Args:
        model: The compiled `SIPModel`.
    """

    def __init__(self, model: "SIPModel"):
        self._model = model
        self._programs: dict = {}

    @contextlib.contextmanager
    def of_fit(self, given: Any, data: Any, options: dict) -> Iterator[Any]:
        """What Keras' fit is to iterate over: executions, and a train function for them meanwhile, or `data`.

        Args:
            given: What the user passed to fit.
            data: What Keras would iterate over.
            options: Arguments of Keras' fit, checked by `fit_data`.
        """
        draws = getattr(given, "draws", None)
        if draws is None or not self._can(draws):
            yield data
            return
        model, before = self._model, self._model.train_function
        length, program = model.steps_per_execution, self._program_of(draws)
        passes = options.get("epochs", 1) - options.get("initial_epoch", 0)
        # Passes of other lengths than whole executions are refused, unless there is one.
        end = draws.start_step + options["steps_per_epoch"] if passes == 1 else math.inf

        def train_function(iterator):
            first = int(next(iterator))
            return program(_int64(draws.seed), _int64(first), _int64(min(length, end - first)))

        model.train_function = train_function
        try:
            # First steps of executions.
            yield tf.data.Dataset.counter(draws.start_step, length)
        finally:
            model.train_function = before

    def _can(self, draws):
        model = self._model
        compiled = model.jit_compile and not model.run_eagerly and draws.simulator.prefers_xla
        return compiled and model.steps_per_execution > 1 and model.distribute_strategy.num_replicas_in_sync == 1

    def _program_of(self, draws):
        key = (id(draws.simulator), draws.batch_size)
        if key not in self._programs:
            # Kept with its simulator, whose id is not to be another's later.
            self._programs[key] = draws.simulator, self._program(draws)
        return self._programs[key][1]

    def _program(self, draws):
        model = self._model

        @tf.function(jit_compile=True, autograph=False)
        def execution(seed, first, steps):
            def step(done):
                model.train_step(draws._replace(seed=seed).batch(first + done))
                return (done + 1,)

            tf.while_loop(lambda done: done < steps, step, (tf.zeros_like(steps),))
            return model.get_metrics_result()

        return execution


def _int64(value):
    return tf.constant(value, tf.int64)
