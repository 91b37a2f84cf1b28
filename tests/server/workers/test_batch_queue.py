"""BatchQueue on the fake engine: right vectors, fair turns, places given back, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from fake import FakeEngine

from q3e_local.errors import BadVectorError, EngineError
from q3e_local.server.errors import QueueFullError, StoppingError, WorkerDiedError
from q3e_local.server.workers.batch_queue import BatchQueue

EOS = FakeEngine.eos_id


def ids(text: str) -> tuple[int, ...]:
    return (*text.encode(), EOS)


def within(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it; a test that hangs fails."""

    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await coroutine

    return asyncio.run(bounded())


class Gated(FakeEngine):
    """A fake whose vector tells the text (first id, number of ids, sum of ids), and that waits to be let on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.error: Exception | None = None
        self.is_open = False

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        self.began.release()
        if not self.is_open:
            assert self.gate.acquire(timeout=20)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        vectors = super().decode(sequences, n_prefix)
        for row, given in zip(vectors, sequences, strict=True):
            row[:3] = given[0], len(given), sum(given)
        return vectors

    def open(self) -> None:
        self.is_open = True
        self.gate.release()

    async def step(self, n: int = 1) -> None:
        """Let `n` decodes through, and wait until the next one stands at the gate."""
        self.gate.release(n)
        for _ in range(n):
            await self.arrived()

    async def arrived(self) -> None:
        assert await asyncio.to_thread(self.began.acquire, timeout=20)


def expected(given: Sequence[int]) -> list[float]:
    return [given[0], len(given), sum(given)]


async def settled() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


def texts_of(engine: FakeEngine) -> list[list[str]]:
    """The batches it was given, as texts."""
    return [[bytes(given[:-1]).decode() for given in batch] for batch in engine.batches]


async def waiting_behind(engine: Gated, queue: BatchQueue) -> asyncio.Task[Any]:
    """A first text that occupies the engine, so that what comes next waits."""
    first = asyncio.create_task(queue.decode([ids("first")]))
    await engine.arrived()
    return first


async def ended(queue: BatchQueue, engine: Gated, *tasks: asyncio.Task[Any]) -> list[Any]:
    engine.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await queue.close(10)
    return results


def test_two_hundred_requests_at_once_get_each_its_own_vectors_in_order() -> None:
    async def scenario() -> None:
        engine = Gated(n_batch=64, n_seq_max=8)
        engine.is_open = True
        queue = BatchQueue(engine, n_waiting_max=100_000)
        chance = random.Random(1)
        requests = [
            [
                (*(chance.randrange(256) for _ in range(chance.choice([1, 3, 20, 63, 64, 65, 200]))), EOS)
                for _ in range(chance.choice([1, 1, 2, 10, 40]))
            ]
            for _ in range(200)
        ]
        answers = await asyncio.gather(*(queue.decode(request) for request in requests))
        for request, rows in zip(requests, answers, strict=True):
            assert rows[:, :3].tolist() == [expected(given) for given in request]
        for batch in engine.batches:
            assert len(batch) == 1 or (sum(map(len, batch)) <= 64 and len(batch) <= 8)
        assert queue.counters.waiting == 0
        assert queue.counters.texts + queue.counters.shared == sum(map(len, requests))
        assert queue.counters.batches == len(engine.batches)
        await queue.close(10)

    within(scenario())


def test_a_cut_vector_has_the_asked_for_dim() -> None:
    async def scenario() -> None:
        engine = Gated()
        engine.is_open = True
        queue = BatchQueue(engine, 10)
        one, other = await asyncio.gather(queue.decode([ids("a")], 2), queue.decode([ids("a")], 40))
        assert one.shape == (1, 2)
        assert other.shape == (1, 40)
        assert (await queue.decode([], 7)).shape == (0, 7)
        await queue.close(1)

    within(scenario())


def test_texts_that_wait_are_merged_into_full_batches() -> None:
    async def scenario() -> None:
        engine = Gated(n_batch=32, n_seq_max=4)
        queue = BatchQueue(engine, 100)
        tasks = [await waiting_behind(engine, queue)]
        tasks += [asyncio.create_task(queue.decode([ids(f"t{n}")])) for n in range(8)]
        await settled()
        assert queue.counters.waiting == 8
        await ended(queue, engine, *tasks)
        assert [len(batch) for batch in engine.batches] == [1, 4, 4]

    within(scenario())


def test_one_question_is_answered_in_the_next_batch_though_ten_thousand_texts_wait() -> None:
    async def scenario() -> None:
        engine = Gated(n_batch=32, n_seq_max=8)
        queue = BatchQueue(engine, 100)
        large = asyncio.create_task(queue.decode([ids(f"text {n}") for n in range(10_000)]))
        await engine.arrived()
        question = asyncio.create_task(queue.decode([ids("why?")]))
        await settled()
        await engine.step(2)
        await settled()
        assert question.done()
        assert not large.done()
        assert "why?" in texts_of(engine)[1]
        large.cancel()
        await ended(queue, engine, large)

    within(scenario())


def test_two_large_requests_share_each_batch() -> None:
    async def scenario() -> None:
        engine = Gated(n_batch=1000, n_seq_max=8)
        queue = BatchQueue(engine, 1000)
        tasks = [await waiting_behind(engine, queue)]
        for name in "ab":
            tasks.append(asyncio.create_task(queue.decode([ids(f"{name}{n}") for n in range(40)])))
        await settled()
        await ended(queue, engine, *tasks)
        for batch in texts_of(engine)[1:]:
            assert sorted(text[0] for text in batch) == ["a"] * 4 + ["b"] * 4

    within(scenario())


class LongGated(FakeEngine):
    """Texts longer than a batch wait to be let on, one by one; short ones do not."""

    def __init__(self) -> None:
        super().__init__(n_batch=32, n_seq_max=8)
        self.gate, self.n_long = threading.Semaphore(0), 0

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        if len(sequences[0]) > self.n_batch:
            self.n_long += 1
            assert self.gate.acquire(timeout=20)
        return super().decode(sequences, n_prefix)


def test_short_texts_do_not_wait_for_a_long_one_and_long_ones_come_one_by_one() -> None:
    async def scenario() -> None:
        engine = LongGated()
        queue = BatchQueue(engine, 1000)
        long = [asyncio.create_task(queue.decode([ids(letter * 100)])) for letter in "LMN"]
        await settled()
        for n in range(4):  # each is answered while a long one is under way
            assert (await queue.decode([ids(f"short {n}")])).shape == (1, engine.n_embd)
            assert engine.n_long == 1
        for n in range(3):
            assert not long[n].done()
            engine.gate.release()
            await long[n]
            await queue.decode([ids(f"after {n}")])
        await queue.close(5)
        assert engine.n_long == 3

    within(scenario())


def test_a_long_text_is_not_starved_by_short_ones() -> None:
    async def scenario() -> None:
        engine = Gated(n_batch=32, n_seq_max=4)
        queue = BatchQueue(engine, 10_000)
        many = asyncio.create_task(queue.decode([ids(f"{n}") for n in range(400)]))
        await engine.arrived()
        long = asyncio.create_task(queue.decode([ids("L" * 100)]))
        await settled()
        await engine.step(3)
        await settled()
        assert long.done()
        many.cancel()
        await ended(queue, engine, many)

    within(scenario())


def test_a_text_that_nearly_fills_a_batch_is_not_passed_over_for_ever() -> None:
    async def scenario() -> None:
        engine = Gated(n_batch=32, n_seq_max=8)
        queue = BatchQueue(engine, 10_000)
        many = asyncio.create_task(queue.decode([ids(f"small {n}") for n in range(400)]))
        await engine.arrived()
        wide = asyncio.create_task(queue.decode([ids("w" * 31)]))
        await settled()
        await engine.step(3)
        await settled()
        assert wide.done()
        many.cancel()
        await ended(queue, engine, many)

    within(scenario())


def test_identical_texts_in_flight_are_decoded_once() -> None:
    async def scenario() -> None:
        engine = Gated()
        queue = BatchQueue(engine, 100)
        tasks = [await waiting_behind(engine, queue)]
        tasks += [asyncio.create_task(queue.decode([ids("same"), ids("same")])) for _ in range(3)]
        tasks.append(asyncio.create_task(queue.decode([ids("first")])))  # of the batch that runs
        await settled()
        results = await ended(queue, engine, *tasks)
        assert texts_of(engine) == [["first"], ["same"]]
        for rows in results[1:4]:
            assert rows[:, :3].tolist() == [expected(ids("same"))] * 2
        assert queue.counters.shared == 6

    within(scenario())


def test_a_text_shared_with_a_large_request_comes_at_the_small_ones_turn() -> None:
    async def scenario() -> None:
        engine = Gated(n_batch=32, n_seq_max=4)
        queue = BatchQueue(engine, 1000)
        large = asyncio.create_task(queue.decode([ids(f"{n}") for n in range(400)]))
        await engine.arrived()
        small = asyncio.create_task(queue.decode([ids("399")]))
        await settled()
        await engine.step(2)
        await settled()
        assert small.done()
        assert (await ended(queue, engine, large))[0][399, :3].tolist() == expected(ids("399"))
        assert sum(batch.count("399") for batch in texts_of(engine)) == 1

    within(scenario())


def test_a_cancelled_request_gives_its_places_back_and_is_not_decoded() -> None:
    async def scenario() -> None:
        engine = Gated()
        queue = BatchQueue(engine, 3)
        first = await waiting_behind(engine, queue)
        gone = asyncio.create_task(queue.decode([ids("gone"), ids("both"), ids("gone too")]))
        await settled()
        with pytest.raises(QueueFullError):
            await queue.decode([ids("late"), ids("later"), ids("latest")])
        gone.cancel()
        await settled()
        assert queue.counters.waiting == 0
        both = asyncio.create_task(queue.decode([ids("both")]))
        await settled()
        results = await ended(queue, engine, first, gone, both)
        assert isinstance(results[1], asyncio.CancelledError)
        assert texts_of(engine) == [["first"], ["both"]]

    within(scenario())


def test_a_text_that_another_request_still_wants_survives_the_cancelled_one() -> None:
    async def scenario() -> None:
        engine = Gated()
        queue = BatchQueue(engine, 10)
        first = await waiting_behind(engine, queue)
        gone = asyncio.create_task(queue.decode([ids("shared"), ids("own")]))
        await settled()
        stays = asyncio.create_task(queue.decode([ids("shared")]))
        await settled()
        gone.cancel()
        await settled()
        results = await ended(queue, engine, first, gone, stays)
        assert results[2][0, :3].tolist() == expected(ids("shared"))
        assert texts_of(engine) == [["first"], ["shared"]]

    within(scenario())


def test_a_request_cancelled_while_its_batch_runs_leaves_the_queue_whole() -> None:
    async def scenario() -> None:
        engine = Gated()
        queue = BatchQueue(engine, 10)
        first = await waiting_behind(engine, queue)
        first.cancel()
        await settled()
        again = asyncio.create_task(queue.decode([ids("first"), ids("next")]))
        await settled()
        results = await ended(queue, engine, first, again)
        assert results[1][:, :3].tolist() == [expected(ids("first")), expected(ids("next"))]
        assert texts_of(engine) == [["first"], ["next"]]

    within(scenario())


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def scenario() -> None:
        engine = Gated()
        queue = BatchQueue(engine, 5)
        tasks = [await waiting_behind(engine, queue)]
        tasks += [asyncio.create_task(queue.decode([ids(f"t{n}")])) for n in range(5)]
        await settled()
        with pytest.raises(QueueFullError, match=r"5 texts wait already.*the limit is 5") as refused:
            await queue.decode([ids("one more")])
        assert 1 <= refused.value.retry_after_s <= 60
        assert queue.counters.refused == 1
        results = await ended(queue, engine, *tasks)
        assert [len(rows) for rows in results] == [1] * 6

    within(scenario())


def test_a_large_request_does_not_close_the_queue_to_small_ones_but_to_large_ones() -> None:
    async def scenario() -> None:
        engine = Gated()
        queue = BatchQueue(engine, 50)
        tasks = [await waiting_behind(engine, queue)]
        tasks.append(asyncio.create_task(queue.decode([ids(f"{n}") for n in range(200)])))  # into an empty queue
        await settled()
        tasks.append(asyncio.create_task(queue.decode([ids("small")])))
        await settled()
        assert not tasks[-1].done()
        with pytest.raises(QueueFullError):
            await queue.decode([ids(f"x{n}") for n in range(40)])
        await ended(queue, engine, *tasks)

    within(scenario())


@pytest.mark.parametrize("bad_at", [0, 1, 3])
def test_a_bad_text_fails_its_own_request_alone_and_names_its_place(bad_at: int) -> None:
    async def scenario() -> None:
        engine = Gated(n_batch=200, n_seq_max=50, bad="BAD")
        queue = BatchQueue(engine, 100)
        tasks = [await waiting_behind(engine, queue)]
        texts = [ids(f"t{n}") for n in range(4)]
        texts[bad_at] = ids("a BAD one")
        tasks.append(asyncio.create_task(queue.decode(texts)))
        tasks.append(asyncio.create_task(queue.decode([ids("good"), ids("better")])))
        await settled()
        _, failed, good = await ended(queue, engine, *tasks)
        assert isinstance(failed, BadVectorError)
        assert failed.index == bad_at
        assert good[:, :3].tolist() == [expected(ids("good")), expected(ids("better"))]

    within(scenario())


@pytest.mark.parametrize(
    "error",
    [WorkerDiedError("killed"), EngineError("no"), RuntimeError("a mistake of ours"), BadVectorError("odd", 9)],
)
def test_a_failed_batch_fails_its_texts_and_the_next_one_is_decoded(error: Exception) -> None:
    async def scenario() -> None:
        engine = Gated()
        queue = BatchQueue(engine, 100)
        first = await waiting_behind(engine, queue)
        twin = asyncio.create_task(queue.decode([ids("first")]))
        behind = asyncio.create_task(queue.decode([ids("behind")]))
        await settled()
        engine.error = error
        results = await ended(queue, engine, first, twin, behind)
        assert type(results[0]) is type(error)
        assert type(results[1]) is type(error)
        assert results[2][0, :3].tolist() == expected(ids("behind"))
        assert queue.counters.failed == isinstance(error, BadVectorError)

    within(scenario())


class Mortal(Gated):
    """Dies of every text with `kill` in it."""

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        vectors = super().decode(sequences, n_prefix)
        if any(b"kill" in bytes(given[:-1]) for given in sequences):
            raise WorkerDiedError("the process of fake was ended by SIGABRT")
        return vectors


def test_of_a_batch_that_kills_the_process_only_the_culprit_fails() -> None:
    async def scenario() -> None:
        engine = Mortal(n_batch=200, n_seq_max=50)
        queue = BatchQueue(engine, 100)
        tasks = [await waiting_behind(engine, queue)]
        tasks += [asyncio.create_task(queue.decode([ids(text)])) for text in ("a", "b kill", "c")]
        tasks.append(asyncio.create_task(queue.decode([ids("d"), ids("e")])))
        await settled()
        _, *results = await ended(queue, engine, *tasks)
        assert isinstance(results[1], WorkerDiedError)
        for place, texts in ((0, "a"), (2, "c"), (3, "de")):
            assert results[place][:, :3].tolist() == [expected(ids(text)) for text in texts]
        assert texts_of(engine)[1:] == [["a", "b kill", "c", "d", "e"], ["a"], ["b kill"], ["c"], ["d"], ["e"]]
        assert (queue.counters.failed, queue.counters.waiting) == (0, 0)

    within(scenario())


def test_a_model_that_dies_of_everything_is_not_tried_for_ever() -> None:
    async def scenario() -> None:
        engine = Mortal(n_batch=1000, n_seq_max=50)
        queue = BatchQueue(engine, 100)
        tasks = [await waiting_behind(engine, queue)]
        tasks += [asyncio.create_task(queue.decode([ids(f"kill {n}")])) for n in range(20)]
        await settled()
        _, *results = await ended(queue, engine, *tasks)
        assert [type(result) for result in results] == [WorkerDiedError] * 20
        assert len(engine.batches) == 5  # the first one, all, three by themselves
        assert queue.counters.failed == 0  # the texts are sound, for all that is known

    within(scenario())


def test_what_nobody_wants_any_more_is_not_tried_again() -> None:
    async def scenario() -> None:
        engine = Mortal(n_batch=200, n_seq_max=50)
        queue = BatchQueue(engine, 100)
        tasks = [asyncio.create_task(queue.decode([ids(text)])) for text in ("kill", "gone", "stays")]
        await engine.arrived()
        tasks[1].cancel()
        await settled()
        results = await ended(queue, engine, *tasks)
        assert texts_of(engine)[1:] == [["kill"], ["stays"]]
        assert results[2][0, :3].tolist() == expected(ids("stays"))

    within(scenario())


def test_a_long_text_and_the_short_ones_beside_it_are_told_apart() -> None:
    class Both(LongGated):
        """The process dies under the long text, and so under what is beside it."""

        def __init__(self, culprit: str) -> None:
            super().__init__()
            self.culprit, self.died = culprit.encode(), threading.Event()
            self.both = threading.Barrier(2)
            self.met = False

        def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
            if not self.met:
                self.both.wait(20)
                self.met = True
                raise WorkerDiedError("it died")
            if self.culprit in bytes(sequences[0][:-1]):
                raise WorkerDiedError("it died again")
            return FakeEngine.decode(self, sequences)

    async def scenario(culprit: str) -> list[Any]:
        engine = Both(culprit)
        queue = BatchQueue(engine, 100)
        texts = ("L" * 100, "S")
        tasks = [asyncio.create_task(queue.decode([ids(text)])) for text in texts]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await queue.close(5)
        return results

    long, short = within(scenario("L" * 100))
    assert (type(long), type(short)) == (WorkerDiedError, np.ndarray)
    long, short = within(scenario("S"))
    assert (type(long), type(short)) == (np.ndarray, WorkerDiedError)


def test_closing_finishes_what_is_here_and_refuses_what_comes() -> None:
    async def scenario() -> None:
        engine = Gated(n_seq_max=1)
        queue = BatchQueue(engine, 100)
        tasks = [await waiting_behind(engine, queue)]
        tasks.append(asyncio.create_task(queue.decode([ids("waits"), ids("waits too")])))
        await settled()
        closing = asyncio.create_task(queue.close(20))
        await settled()
        with pytest.raises(StoppingError):
            await queue.decode([ids("late")])
        engine.open()
        results = await asyncio.gather(*tasks)
        await closing
        assert [len(rows) for rows in results] == [1, 2]

    within(scenario())


def test_closing_fails_what_is_not_done_in_time() -> None:
    async def scenario() -> None:
        engine = Gated()
        queue = BatchQueue(engine, 100)
        tasks = [await waiting_behind(engine, queue)]
        tasks.append(asyncio.create_task(queue.decode([ids("waits")])))
        await settled()
        await queue.close(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [StoppingError] * 2
        assert queue.counters.waiting == 0
        engine.open()

    within(scenario())


def test_others_have_their_turn_while_millions_of_ids_are_lined_up() -> None:
    async def run() -> None:
        engine = Gated(n_batch=64)
        queue = BatchQueue(engine, n_waiting_max=100)
        large = asyncio.ensure_future(queue.decode([[number] * 300_000 for number in range(10)]))
        n_turns = 0
        while queue.counters.waiting < 10:
            await asyncio.sleep(0)
            n_turns += 1
        assert n_turns >= 10
        await engine.arrived()
        large.cancel()
        await asyncio.wait([large])
        assert queue.counters.waiting == 0
        engine.open()
        await queue.close(20)

    within(run())


def test_closing_while_ids_are_lined_up_refuses_them_and_leaves_nothing() -> None:
    async def run() -> None:
        queue = BatchQueue(Gated(), n_waiting_max=100)
        large = asyncio.ensure_future(queue.decode([[number] * 300_000 for number in range(10)]))
        while not queue.counters.waiting:
            await asyncio.sleep(0)
        assert queue.counters.waiting == 1
        await queue.close(20)
        with pytest.raises(StoppingError, match="shutting down"):
            await large
        assert queue.counters.waiting == 0
        assert not queue._in_flight

    within(run())


def test_it_wakes_for_texts_that_come_after_a_rest() -> None:
    async def scenario() -> None:
        engine = Gated()
        engine.is_open = True
        queue = BatchQueue(engine, 100)
        for n in range(3):
            assert (await queue.decode([ids(f"{n}")]))[0, 0] == ord(f"{n}")
            await settled()
        await queue.close(1)

    within(scenario())


def test_queries_of_several_clients_with_one_instruction_come_together() -> None:
    async def scenario() -> None:
        engine = Gated(n_batch=32, n_seq_max=8)
        queue = BatchQueue(engine, 1000)
        first = asyncio.create_task(queue.decode([ids("first")]))
        await settled()
        prompt = "Instruct: find it"  # 17 tokens: two such queries of 20 would not fit into 32
        asked = [asyncio.create_task(queue.decode([ids(f"{prompt} {name}")], None, [17])) for name in "abcd"]
        other = asyncio.create_task(queue.decode([ids("0123456789 0123456789")]))
        await settled()
        engine.open()
        await asyncio.gather(first, other, *asked)
        assert [len(batch) for batch in engine.batches] == [1, 4, 1]
        assert engine.prefixes[1] == [17] * 4
        await queue.close(1)

    asyncio.run(scenario())
