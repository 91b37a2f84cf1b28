"""BatchQueue: requests take turns, batches are full, and no text is passed over for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from batches import Stage, expected, ids, settled
from fake import FakeEngine

from q3e_local.server.workers.batch_queue import BatchQueue


async def test_texts_that_wait_are_merged_into_full_batches() -> None:
    stage = Stage(n_batch=32, n_seq_max=4)
    await stage.occupy()
    for n in range(8):
        await stage.ask(f"t{n}")
    assert stage.queue.counters.waiting == 8
    await stage.end()
    assert [len(batch) for batch in stage.batches] == [1, 4, 4]


async def test_two_large_requests_share_each_batch() -> None:
    stage = Stage(n_batch=1000, n_seq_max=8)
    await stage.occupy()
    for name in "ab":
        await stage.ask(*(f"{name}{n}" for n in range(40)))
    await stage.end()
    for batch in stage.batches[1:]:
        assert sorted(text[0] for text in batch) == ["a"] * 4 + ["b"] * 4


@pytest.mark.parametrize(
    ("n_seq_max", "n_before", "text", "n_batches"),
    [
        (8, 10_000, "why?", 2),  # in the next batch, though a large request is there
        (4, 400, "L" * 100, 3),  # longer than a batch
        (8, 400, "w" * 31, 3),  # fits into a batch alone
        (4, 400, "399", 2),  # also a text of the large request: it is computed at the turn of the small request
    ],
)
async def test_a_small_request_does_not_wait_for_a_large_one(
    n_seq_max: int, n_before: int, text: str, n_batches: int
) -> None:
    stage = Stage(100, n_batch=32, n_seq_max=n_seq_max)
    large = await stage.occupy(*(f"{n}" for n in range(n_before)))
    small = await stage.ask(text)
    await stage.step(n_batches)
    assert small.done()
    assert not large.done()
    assert sum(batch.count(text) for batch in stage.batches) == 1
    large.cancel()
    assert (await stage.end())[1][0, :3].tolist() == expected(text)


class LongGated(FakeEngine):
    """Texts longer than a batch wait to be let on, one by one; short texts do not."""

    def __init__(self) -> None:
        super().__init__(n_batch=32, n_seq_max=8)
        self.gate, self.n_long = threading.Semaphore(0), 0

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        if len(sequences[0]) > self.n_batch:
            self.n_long += 1
            assert self.gate.acquire(timeout=20)
        return super().decode(sequences, n_prefix)


async def test_short_texts_do_not_wait_for_a_long_one_and_long_ones_come_one_by_one() -> None:
    engine = LongGated()
    queue = BatchQueue(engine, 1000)
    long = [asyncio.create_task(queue.decode([ids(letter * 100)])) for letter in "LMN"]
    await settled()
    for n in range(4):  # each is answered while a long text is computed
        assert (await queue.decode([ids(f"short {n}")])).shape == (1, engine.n_embd)
        assert engine.n_long == 1
    for n in range(3):
        assert not long[n].done()
        engine.gate.release()
        await long[n]
        await queue.decode([ids(f"after {n}")])
    await queue.close(5)
    assert engine.n_long == 3


async def test_queries_of_several_clients_with_one_instruction_come_together() -> None:
    stage = Stage(n_batch=32, n_seq_max=8)
    await stage.occupy()
    for name in "abcd":
        # The prompt has 17 tokens: two such queries of 20 would not fit into 32.
        await stage.ask(f"Instruct: find it {name}", n_prefix=17)
    await stage.ask("0123456789 0123456789")
    await stage.end()
    assert [len(batch) for batch in stage.batches] == [1, 4, 1]
    assert stage.engine.prefixes[1] == [17] * 4


async def test_others_have_their_turn_while_millions_of_ids_are_lined_up() -> None:
    stage = Stage(n_batch=64)
    large = asyncio.ensure_future(stage.queue.decode([[number] * 300_000 for number in range(10)]))
    n_turns = 0
    while stage.queue.counters.waiting < 10:
        await asyncio.sleep(0)
        n_turns += 1
    assert n_turns >= 10
    await stage.engine.arrived()
    large.cancel()
    await asyncio.wait([large])
    assert stage.queue.counters.waiting == 0
    await stage.end()
