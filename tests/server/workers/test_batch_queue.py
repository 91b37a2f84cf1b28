"""BatchQueue: each request gets its own vectors, places are given back, and an end loses nothing."""

from __future__ import annotations

import asyncio
import random

import pytest
from batches import EOS, Stage, expected, ids, settled

from q3e_local.server.errors import QueueFullError, StoppingError


async def test_two_hundred_requests_at_once_get_each_its_own_vectors_in_order() -> None:
    stage = Stage(100_000, n_batch=64, n_seq_max=8)
    stage.engine.open()
    queue, chance = stage.queue, random.Random(1)
    requests = [
        [
            (*(chance.randrange(256) for _ in range(chance.choice([1, 3, 20, 63, 64, 65, 200]))), EOS)
            for _ in range(chance.choice([1, 1, 2, 10, 40]))
        ]
        for _ in range(200)
    ]
    answers = await asyncio.gather(*(queue.decode(request) for request in requests))
    for request, rows in zip(requests, answers, strict=True):
        assert rows[:, :3].tolist() == [expected(sequence) for sequence in request]
    for batch in stage.engine.batches:
        assert len(batch) == 1 or (sum(map(len, batch)) <= 64 and len(batch) <= 8)
    assert queue.counters.waiting == 0
    assert queue.counters.texts + queue.counters.shared == sum(map(len, requests))
    assert queue.counters.batches == len(stage.engine.batches)
    await stage.end()


async def test_a_cut_vector_has_the_dim_of_its_request() -> None:
    stage = Stage()
    stage.engine.open()
    short, long = await asyncio.gather(stage.queue.decode([ids("a")], 2), stage.queue.decode([ids("a")], 40))
    assert (short.shape, long.shape) == ((1, 2), (1, 40))
    assert (await stage.queue.decode([], 7)).shape == (0, 7)
    await stage.end()


async def test_identical_texts_in_flight_are_decoded_once() -> None:
    stage = Stage()
    await stage.occupy()
    for _ in range(3):
        await stage.ask("same", "same")
    await stage.ask("first")  # of the batch that runs
    results = await stage.end()
    assert stage.batches == [["first"], ["same"]]
    for rows in results[1:4]:
        assert rows[:, :3].tolist() == [expected("same")] * 2
    assert stage.queue.counters.shared == 6


async def test_a_cancelled_request_gives_its_places_back_and_is_not_decoded() -> None:
    stage = Stage(3)
    await stage.occupy()
    gone = await stage.ask("gone", "both", "gone too")
    with pytest.raises(QueueFullError):
        await stage.queue.decode([ids("late"), ids("later"), ids("latest")])
    gone.cancel()
    await settled()
    assert stage.queue.counters.waiting == 0
    await stage.ask("both")
    assert isinstance((await stage.end())[1], asyncio.CancelledError)
    assert stage.batches == [["first"], ["both"]]


async def test_a_text_that_another_request_still_wants_survives_the_cancelled_one() -> None:
    stage = Stage()
    await stage.occupy()
    gone = await stage.ask("shared", "unshared")
    await stage.ask("shared")
    gone.cancel()
    await settled()
    assert (await stage.end())[2][0, :3].tolist() == expected("shared")
    assert stage.batches == [["first"], ["shared"]]


async def test_a_request_cancelled_while_its_batch_runs_leaves_the_queue_whole() -> None:
    stage = Stage()
    (await stage.occupy()).cancel()
    await settled()
    await stage.ask("first", "next")
    assert (await stage.end())[1][:, :3].tolist() == [expected("first"), expected("next")]
    assert stage.batches == [["first"], ["next"]]


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    stage = Stage(5)
    await stage.occupy()
    for n in range(5):
        await stage.ask(f"t{n}")
    with pytest.raises(QueueFullError, match=r"5 texts wait already.*the limit is 5") as refused:
        await stage.queue.decode([ids("one more")])
    assert 1 <= refused.value.retry_after_s <= 60
    assert stage.queue.counters.refused == 1
    assert [len(rows) for rows in await stage.end()] == [1] * 6


async def test_a_large_request_does_not_close_the_queue_to_small_ones_but_to_large_ones() -> None:
    stage = Stage(50)
    await stage.occupy()
    await stage.ask(*(f"{n}" for n in range(200)))  # into an empty queue
    assert not (await stage.ask("small")).done()
    with pytest.raises(QueueFullError):
        await stage.queue.decode([ids(f"x{n}") for n in range(40)])
    await stage.end()


async def test_closing_finishes_texts_that_wait_and_refuses_new_ones() -> None:
    stage = Stage(n_seq_max=1)
    await stage.occupy()
    await stage.ask("waits", "waits too")
    closing = asyncio.create_task(stage.queue.close(20))
    await settled()
    with pytest.raises(StoppingError):
        await stage.queue.decode([ids("late")])
    assert [len(rows) for rows in await stage.end()] == [1, 2]
    await closing


async def test_closing_fails_texts_that_are_not_done_in_time() -> None:
    stage = Stage()
    await stage.occupy()
    await stage.ask("waits")
    await stage.queue.close(0)
    assert [type(result) for result in await stage.end()] == [StoppingError] * 2
    assert stage.queue.counters.waiting == 0


async def test_closing_while_ids_are_lined_up_refuses_them_and_leaves_nothing() -> None:
    queue = Stage().queue
    large = asyncio.ensure_future(queue.decode([[number] * 300_000 for number in range(10)]))
    while not queue.counters.waiting:
        await asyncio.sleep(0)
    assert queue.counters.waiting == 1
    await queue.close(20)
    with pytest.raises(StoppingError, match="shutting down"):
        await large
    assert queue.counters.waiting == 0
    assert not queue._in_flight  # ids that stay would fill the memory, and show nowhere else
