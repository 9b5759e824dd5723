"""Requests that wait a moment for each other and are answered together."""

import asyncio
import collections
import dataclasses
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.serving.server.served_model import Input


class QueueFull(Exception):
    """More examples wait than the queue may hold; the request is answered with 503."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Waiting:
    key: tuple
    inputs: Mapping[str, np.ndarray]
    examples: int
    since: float
    answer: asyncio.Future


class MicroBatcher:
    """Runs `function(signature, inputs)` on the examples of several requests at a time, one batch after the other.

    A batch starts when it is full, or when its oldest request has waited `max_wait` seconds; a request that comes after
    one that was alone starts at once: there is nobody to wait for. While a batch runs, requests gather for the next.
    Requests for the same signature, and with the same inputs that have no batch axis, share one. If a batch fails, each
    of its requests is run alone, and fails alone.

    Args:
        function: Of a signature's name and {input: array `[B, ...]`}; returns {output: array `[B, ...]`}.
        signatures: {name: {input: `Input`}}.
        max_batch: Examples in a batch, at most.
        max_wait: Seconds.
        max_queue: Examples that may wait, at most.
        on_batch: Called with the examples of each batch that is run.
    """

    def __init__(
        self,
        function: Callable,
        signatures: Mapping[str, Mapping[str, Input]],
        *,
        max_batch: int = 32,
        max_wait: float = 0.002,
        max_queue: int = 256,
        on_batch: Callable[[int], Any] = lambda examples: None,
    ):
        self._function, self._signatures, self._on_batch = function, signatures, on_batch
        self.max_batch = check_positive_int("max_batch", max_batch)
        self.max_queue = check_positive_int("max_queue", max_queue, minimum=self.max_batch)
        self.max_wait = check_number("max_wait", max_wait)
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._arrived = asyncio.Event()
        # One batch at a time: TensorFlow spreads it over all cores.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keras_sip-batches")
        self._task: asyncio.Task | None = None
        self._closing = False
        self._had_company = False

    @property
    def waiting(self) -> int:
        """Examples in the queue."""
        return sum(each.examples for each in self._queue)

    async def __aenter__(self) -> "MicroBatcher":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exception) -> None:
        """Ends when what was accepted is answered."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def __call__(self, signature: str, inputs: Mapping[str, np.ndarray], examples: int) -> dict[str, np.ndarray]:
        """The outputs of a request of at most `max_batch` examples.

        Raises:
            QueueFull: There is no room for it now.
        """
        if self.waiting + examples > self.max_queue:
            raise QueueFull(
                three_part(
                    f"at most {self.max_queue} examples waiting",
                    f"{examples} more than the {self.waiting} that wait",
                    "Try again in a second, or start the server with a larger --max-queue.",
                )
            )
        shared = {name: value for name, value in inputs.items() if not self._signatures[signature][name].is_batched}
        key = (signature, *((name, value.tobytes()) for name, value in sorted(shared.items())))
        answer = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(key, inputs, examples, time.monotonic(), answer))
        self._arrived.set()
        return await answer

    async def _run(self):
        while True:
            while not self._queue:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            batch = self._next_batch()
            left = self._queue[0].since + self.max_wait - time.monotonic()
            if (
                left > 0
                and self._had_company
                and not self._closing
                and sum(each.examples for each in batch) < self.max_batch
            ):
                self._arrived.clear()
                try:
                    await asyncio.wait_for(self._arrived.wait(), left)
                except TimeoutError:
                    pass
                continue
            for each in batch:
                self._queue.remove(each)
            self._had_company = len(batch) > 1
            await self._answer(batch)

    def _next_batch(self):
        """The oldest request, and those of its kind that fit, in their order."""
        batch = []
        room = self.max_batch
        for each in self._queue:
            if each.key == self._queue[0].key:
                if each.examples > room:
                    break
                batch.append(each)
                room -= each.examples
        return batch

    async def _answer(self, batch):
        batch = [each for each in batch if not each.answer.done()]  # Its client may have gone.
        if not batch:
            return
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._thread, self._together, batch)
        except Exception as error:
            if len(batch) > 1:
                for each in batch:
                    await self._answer([each])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for each, answer in zip(batch, answers, strict=True):
            if not each.answer.done():
                each.answer.set_result(answer)

    def _together(self, batch):
        """The outputs of each request of a batch."""
        signature = batch[0].key[0]
        specs = self._signatures[signature]
        inputs = {
            name: np.concatenate([each.inputs[name] for each in batch]) if spec.is_batched else batch[0].inputs[name]
            for name, spec in specs.items()
        }
        ends = np.cumsum([each.examples for each in batch])
        self._on_batch(int(ends[-1]))
        outputs = self._function(signature, inputs)
        split = {name: np.split(value, ends[:-1]) for name, value in outputs.items()}
        return [dict(zip(split, parts, strict=True)) for parts in zip(*split.values(), strict=True)]
