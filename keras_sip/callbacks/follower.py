"""What our callbacks share: the step, the time without compiling, and means of the last batches."""

import collections
import math
import time

import keras

from keras_sip.training.network import updates_of

RUNNING_MEAN = 10


class Follower(keras.callbacks.Callback):
    """A callback that knows which training step has just ended and how long the steps took.

    Attributes:
        step: Training steps done, those before this program started included.
        train_seconds: In training steps so far, without the first execution, which compiles, and without what is done
            between steps (evaluation, checkpoints, figures).
        compile_seconds: In the first execution.

    Args:
        first_step: Steps done before; None reads it off the model when training begins.
    """

    def __init__(self, first_step: int | None = None) -> None:
        super().__init__()
        self._first_step = first_step
        self.step = first_step or 0
        self.train_seconds = self.compile_seconds = 0.0
        self._timed_from: int | None = None
        self._contributions: collections.deque[tuple[int, dict[str, float]]] = collections.deque(maxlen=RUNNING_MEAN)
        self._batches: int | None = None
        self._before: dict[str, float] = {}

    @property
    def steps_per_second(self) -> float:
        """Rate in this program; 0 before the second execution."""
        if self._timed_from is None or self.train_seconds <= 0:
            return 0.0
        return (self.step - self._timed_from) / self.train_seconds

    def running_means(self) -> dict[str, float]:
        """{metric: mean over the last ten executions}, of each batch alone and not since the epoch began."""
        means = {}
        for name in self._contributions[-1][1] if self._contributions else ():
            pairs = [(count, sums[name]) for count, sums in self._contributions if name in sums]
            means[name] = math.fsum(value for _, value in pairs) / sum(count for count, _ in pairs)
        return means

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.step = _steps_done(self.model) if self._first_step is None else self._first_step
        self._timed_from = self._batches = None
        self.train_seconds = self.compile_seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch_began, self._updates_before = self.step, _steps_done(self.model)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if _metrics_are_empty(self.model):
            self._batches, self._before = 0, {}
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # Keras has read the metrics into `logs` by now, so that the step is over also on a GPU.
        seconds = time.perf_counter() - self._began
        previous, self.step = self.step, self._epoch_began + self._batches_done(batch)
        if self._timed_from is None:
            self.compile_seconds = seconds
            self._timed_from = self.step
        else:
            self.train_seconds += seconds
        self._remember(self.step - previous, logs or {})

    def _batches_done(self, batch):
        """Of this epoch, after the execution whose last batch is `batch`.

        Where many steps make one execution, Keras counts the last one as whole. It was if the data went on, and was not
        if they ended there: the optimizer knows.
        """
        done, steps = batch + 1, self.params.get("steps")
        if not steps or done <= steps:
            return done
        return min(done, max(steps, _steps_done(self.model) - self._updates_before))

    def _remember(self, count, logs):
        """Undo Keras' mean over the epoch: n m_n - k m_k is the sum over the batches k + 1 to n."""
        restored = self._batches is None
        self._batches = self.step if restored else self._batches + count
        sums = {name: self._batches * float(mean) for name, mean in logs.items()}
        if not restored:
            # Restored metrics count the batches of an earlier program too; this execution's part is not known.
            parts = {name: value - self._before.get(name, 0.0) for name, value in sums.items()}
            self._contributions.append((count, parts))
        self._before = sums


def _steps_done(model: keras.Model) -> int:
    """Training steps, of which with gradient accumulation several make one change of the weights."""
    if getattr(model, "optimizer", None) is None:
        return 0
    method = getattr(model, "method", None)
    return int(updates_of(model.optimizer)) // getattr(method, "optimizer_steps", 1)


def _metrics_are_empty(model):
    """Whether the means begin with the next batch: at an epoch's start, or where a callback resets them."""
    mean = next((metric for metric in model.metrics if isinstance(metric, keras.metrics.Mean)), None)
    return mean is None or float(mean.count) == 0
