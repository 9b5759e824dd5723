"""Training of the compared models: equal data for equal seeds, measured, shown, saved, resumed."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from keras_sip.callbacks import BatchStatistics
from keras_sip.callbacks.progress_bar import ProgressLine
from keras_sip.comparison.interruption import Interruption
from keras_sip.comparison.recorder import Checkpoint, Progress, Recorder, is_used_up
from keras_sip.comparison.records import RunFolder
from keras_sip.data import dataset, evaluation_set

EVALUATION_BATCH = 128
# Batch norm is measured on examples of its own, in batches of the training's size.
STATISTICS_SEED = 1
STATISTICS_EXAMPLES = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How each model of a comparison is trained and measured.

    Args:
        folder: Where the rows and checkpoints go.
        evaluation: (observation, x), the fixed set that all are measured on.
        steps: The last step.
        batch: Examples in a training batch.
        schedule: Steps after which the evaluation set is measured, in order, the last step among them.
        budget: Seconds of training after which a run ends, or None; compiling and evaluating are not counted.
        error_parts: {name: `(simulator, x, x_ref) -> [B]`}, more errors to measure on the evaluation set.
        measure_statistics: Whether batch norm is measured on examples of its own before evaluations, in place of its
            moving averages.
        show_progress: Whether to show each run on a line of its own.
        say: What is called with a line of text about a run.
    """

    folder: RunFolder
    evaluation: tuple
    steps: int
    batch: int
    schedule: Sequence[int]
    budget: float | None = None
    error_parts: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    measure_statistics: bool = True
    show_progress: bool = True
    say: Callable[[str], None] = print

    def train_all(
        self,
        build: Callable[[str, int], keras.Model],
        methods: Sequence[str],
        seeds: Sequence[int],
        further_callbacks: Callable = lambda method, seed, line: [],
    ) -> None:
        """Train every method with every seed, as far as they are not done yet.

        Seed by seed, so that the methods can be compared as early as possible. One that fails does not stop the others.

        Args:
            build: `(method, seed) -> compiled SIPModel` of that name, with the initial weights of the seed.
            methods, seeds: What to train.
            further_callbacks: `(method, seed, line) -> callbacks`, beside those that record, show and save; each may
                have a `close`, which is called however the run ends.
        """
        runs = [(method, seed) for seed in seeds for method in methods]
        for number, (method, seed) in enumerate(runs, start=1):
            title = f"[{number}/{len(runs)}] {method} s{seed}"
            if self.is_finished(method, seed):
                self.say(f"{title} finished before")
                continue
            with self.folder.recording_failure(f"{method} seed {seed}"):
                self.train(build(method, seed), seed, title, further_callbacks)

    def is_finished(self, method: str, seed: int) -> bool:
        """Whether a run has come to its last step, or to the end of its budget."""
        step = self.folder.checkpoint_step(method, seed)
        seconds = self.folder.metrics.curve(method, seed, "train_seconds").get(step, 0.0)
        return step >= self.steps or (step > 0 and is_used_up(self.budget, seconds))

    def unfinished(self, methods: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """The runs that have not come to their end, in words."""
        return [f"{method} seed {seed}" for method in methods for seed in seeds if not self.is_finished(method, seed)]

    def train(self, model: keras.Model, seed: int, title: str, further_callbacks: Callable) -> None:
        """Train one model up to the last step, going on after its last checkpoint where there is one."""
        method, metrics = model.name, self.folder.metrics
        with Interruption() as interruption, contextlib.ExitStack() as stack:
            checkpoint = Checkpoint(self.folder.checkpoint_folder(method, seed), interruption, metrics)
            stack.callback(checkpoint.close)
            first_step = checkpoint.restore(model)
            if first_step:
                self.say(f"{title} goes on after step {first_step}")
            metrics.forget_after(method, seed, first_step or -1)
            line = None
            if self.show_progress:
                line = stack.enter_context(contextlib.closing(ProgressLine(title, self.steps, budget=self.budget)))
            recorder = Recorder(
                metrics,
                method,
                seed,
                first_step,
                tf.data.Dataset.from_tensor_slices(self.evaluation).batch(EVALUATION_BATCH),
                self.schedule,
                self.budget,
                {name: functools.partial(part, model.simulator) for name, part in self.error_parts.items()},
                self._batch_statistics(model.simulator),
                line,
            )
            further = list(further_callbacks(method, seed, line))
            for callback in further:
                stack.callback(getattr(callback, "close", lambda: None))
            progress = [Progress(recorder, line)] if line else []
            model.fit(
                dataset(model.simulator, self.batch, seed, start_step=first_step),
                steps_per_epoch=self.steps - first_step,
                verbose=0,
                callbacks=[recorder, *progress, *further, checkpoint],
            )

    def _batch_statistics(self, simulator):
        if not self.measure_statistics:
            return None
        examples = max(1, STATISTICS_EXAMPLES // self.batch) * self.batch
        observation, _ = evaluation_set(simulator, examples, STATISTICS_SEED)
        return BatchStatistics(observation, self.batch)


def evaluation_schedule(steps: int, table_steps: Sequence[int], every: int | None = None) -> list[int]:
    """The steps after which the evaluation set is measured: the table's, the last, and those between.

    With `every` each such step lies between, else about eight steps a decade.
    """
    if every:
        between = {*range(0, steps + 1, every)}
    else:
        decades = range(len(str(steps)))
        between = {int(lead * 10**decade) for decade in decades for lead in (1, 1.5, 2, 3, 4, 5, 6, 8)}
    return sorted(step for step in {0, *between, *table_steps, steps} if step <= steps)
