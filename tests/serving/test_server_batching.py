"""Requests share batches, and nothing else."""

import asyncio
import contextlib

import numpy as np
import pytest
from arithmetic import Arithmetic

from keras_sip.serving.server.batching import MicroBatcher, QueueFull


def rows(*values):
    return np.array([[value, value] for value in values], "float32")


def answered(requests, **options):
    """(answers or errors, batches) of requests (signature, inputs) that arrive while the model is busy with another."""
    model = Arithmetic()

    async def run():
        async with MicroBatcher(model, model.signatures, **{"max_wait": 0.0, **options}) as batcher:
            model.gate.clear()
            first = asyncio.create_task(batcher("serving_default", {"y": rows(0)}, 1))
            await asyncio.sleep(0)
            while batcher.waiting:
                await asyncio.sleep(0.001)
            tasks = [asyncio.create_task(batcher(name, inputs, len(inputs["y"]))) for name, inputs in requests]
            await asyncio.sleep(0)
            model.gate.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await first
            return results

    return asyncio.run(run()), model.batches[1:]


def test_requests_of_one_signature_share_a_batch_up_to_its_size():
    requests = [("serving_default", {"y": rows(*range(k, k + 3))}) for k in range(5)]
    answers, batches = answered(requests, max_batch=8)
    assert batches == [("serving_default", 6), ("serving_default", 6), ("serving_default", 3)]
    for (_, inputs), answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer["x"], 2 * inputs["y"])


def test_each_gets_its_own_steps_and_shared_inputs_keep_batches_apart():
    requests = [("refine", {"y": rows(k), "steps": np.array([k], "int32")}) for k in range(3)]
    requests += [("shared", {"y": rows(k), "steps": np.array(k // 2, "int32")}) for k in range(4)]
    answers, batches = answered(requests, max_batch=8)
    assert batches == [("refine", 3), ("shared", 2), ("shared", 2)]
    expected = [rows(2 * k) for k in range(3)] + [rows(k + k // 2) for k in range(4)]
    for answer, value in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer["x"], value)


def test_a_request_that_fails_fails_alone():
    answers, batches = answered([("serving_default", {"y": rows(value)}) for value in (1, 13, 2)], max_batch=4)
    assert batches == [("serving_default", size) for size in (3, 1, 1, 1)]
    assert isinstance(answers[1], ArithmeticError)
    np.testing.assert_array_equal(answers[0]["x"], rows(2))
    np.testing.assert_array_equal(answers[2]["x"], rows(4))


def test_a_full_queue_refuses_and_forgets_nothing_that_it_took():
    requests = [("serving_default", {"y": rows(value, value)}) for value in range(4)]
    answers, _ = answered(requests, max_batch=4, max_queue=4)
    assert [isinstance(answer, QueueFull) for answer in answers] == [False, False, True, True]
    assert str(answers[2]).startswith("Expected at most 4 examples waiting.\nReceived 2 more than the 4")


def test_a_request_waits_where_the_one_before_had_company():
    model = Arithmetic()

    async def run():
        clock = asyncio.get_running_loop().time
        async with MicroBatcher(model, model.signatures, max_wait=1.0) as batcher:
            seconds = []
            for companions in (1, 2, 1, 1):
                start = clock()
                await asyncio.gather(
                    *(batcher("serving_default", {"y": rows(value)}, 1) for value in range(companions))
                )
                seconds.append(clock() - start)
            return seconds

    alone, together, after_company, alone_again = asyncio.run(run())
    # The first of the pair starts at once, or with the other: who is in time says the event loop.
    assert model.batches == [("serving_default", size) for size in (1, 2, 1, 1)]
    assert after_company >= 1.0 > max(alone, together, alone_again)


def test_closing_answers_what_was_accepted():
    model = Arithmetic()

    async def run():
        async with MicroBatcher(model, model.signatures, max_wait=0.0) as batcher:
            model.gate.clear()
            tasks = [asyncio.create_task(batcher("serving_default", {"y": rows(k)}, 1)) for k in range(3)]
            await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.05, model.gate.set)
        return [await task for task in tasks]

    for k, answer in enumerate(asyncio.run(run())):
        np.testing.assert_array_equal(answer["x"], rows(2 * k))


def test_a_client_that_goes_away_takes_no_other_with_it():
    model = Arithmetic()

    async def run():
        async with MicroBatcher(model, model.signatures, max_wait=0.0) as batcher:
            gone, stays = (asyncio.create_task(batcher("serving_default", {"y": rows(k)}, 1)) for k in (1, 2))
            await asyncio.sleep(0)
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
            return await stays

    np.testing.assert_array_equal(asyncio.run(run())["x"], rows(4))
    assert model.batches == [("serving_default", 1)]


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"max_queue": 3, "max_batch": 4}, {"max_wait": -1.0}])
def test_impossible_sizes_are_refused(options):
    with pytest.raises(ValueError, match=r"(?s)^Expected .*\nReceived "):
        MicroBatcher(Arithmetic(), Arithmetic.signatures, **options)
