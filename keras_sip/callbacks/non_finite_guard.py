"""Stop a run whose numbers are no longer finite, and keep the last weights that were."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_sip.callbacks.follower import Follower
from keras_sip.errors import check_positive_int, three_part
from keras_sip.simulators.base import split_observation


class NonFiniteError(ArithmeticError):
    """Loss or weights are no longer finite; the model holds the last weights that were.

    Attributes:
        step: The step after which they are not, or the last one that can be.
        last_good_step: The step after which the model now is.
        example: Index of the worst example in the batch of that step, or None.
    """

    def __init__(self, message: str, step: int, last_good_step: int, example: int | None) -> None:
        super().__init__(message)
        self.step, self.last_good_step, self.example = step, last_good_step, example


class NonFiniteGuard(Follower):
    """Ends `fit` with a `NonFiniteError` at the first non-finite loss or weight, and puts good weights back.

    Weights and optimizer are copied every so many steps, after they were found finite. Where `data` is given, the steps
    since the last copy are done again one by one: the error then names the very step and its worst example, and the
    model is left as it was before that step. Without it the step is known to within `every`.

    Examples whose own observation or solution is not finite do not set it off: they have weight 0 and are counted in
    `bad_input` and `failed`.

    Args:
        every: Steps between copies.
        data: `first_step -> tf.data.Dataset` of the batches from that step on, such as
            `lambda step: keras_sip.dataset(simulator, 32, seed=0, start_step=step)`.
    """

    def __init__(self, every: int = 50, data: Callable[[int], tf.data.Dataset] | None = None) -> None:
        super().__init__()
        self.every = check_positive_int("every", every)
        self.data = data

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        self._keep()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        previous = self.step
        super().on_train_batch_end(batch, logs)
        due = self.step // self.every > previous // self.every
        if not np.isfinite((logs or {}).get("loss", 0.0)) or (due and not self._weights_are_finite()):
            self._stop()
        elif due:
            self._keep()

    def on_train_end(self, logs: dict | None = None) -> None:
        if not self._weights_are_finite():
            self._stop()

    def _stop(self):
        noticed, example = self.step, None
        self._restore()
        if self.data is None:
            step, where = noticed, f"a step from {self._kept_step + 1} to {noticed}"
        else:
            step, example = self._replay(noticed)
            where = f"step {step}"
        received = f"others after {where}"
        if example:
            received += f", where example {example['index']} of the batch has {example['what']}"
        raise NonFiniteError(
            three_part(
                "finite losses and weights",
                received,
                f"The model is as it was after step {self._kept_step}. Lower the learning rate, clip gradients (the "
                "optimizer's argument `global_clipnorm`) or bound x.",
            ),
            step,
            self._kept_step,
            example and example["index"],
        )

    def _replay(self, noticed):
        """(the first step after which something is not finite, its worst example); the model is as it was before."""
        for batch in self.data(self._kept_step):
            example = self._worst_example(batch)
            logs = self.model.train_on_batch(*_parts(batch), return_dict=True)
            if not np.isfinite(logs["loss"]) or not self._weights_are_finite():
                self._restore()
                return self._kept_step + 1, example
            if self._kept_step + 1 >= noticed:
                return noticed, None
            self._keep(self._kept_step + 1)
        return noticed, None

    def _worst_example(self, batch):
        """The example with the largest objective, or the first whose answer is not finite, before the step."""
        if not hasattr(self.model, "simulator"):
            return None
        observation, *_ = _parts(batch)
        y_target, context = split_observation(observation)
        physics = self.model.physics
        x = self.model(observation, training=True)
        # Batch norm has moved its statistics.
        self._restore()
        objective = physics.loss(physics.simulator.forward(x, context), y_target, context).numpy()
        bad = np.flatnonzero(~np.isfinite(objective))
        if bad.size:
            return {"index": int(bad[0]), "what": f"a loss of {objective[bad[0]]}"}
        worst = int(np.argmax(objective))
        return {
            "index": worst,
            "what": f"the largest loss, {objective[worst]:.3g} (median {np.median(objective):.3g})",
        }

    def _variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def _weights_are_finite(self):
        return all(
            bool(tf.reduce_all(tf.math.is_finite(variable.value)))
            for variable in self.model.variables
            if tf.as_dtype(variable.dtype).is_floating
        )

    def _keep(self, step=None):
        self._kept_step = self.step if step is None else step
        self._kept = [tf.identity(variable.value) for variable in self._variables()]

    def _restore(self):
        for variable, value in zip(self._variables(), self._kept, strict=True):
            variable.assign(value)


def _parts(batch):
    return batch if isinstance(batch, tuple) else (batch,)
