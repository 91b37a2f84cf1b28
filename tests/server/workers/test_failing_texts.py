"""BatchQueue: a text that fails, or kills the model's process, fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from batches import Gated, Stage, expected, ids, settled
from fake import FakeEngine

from q3e_local.errors import BadVectorError, EngineError
from q3e_local.server.errors import WorkerDiedError
from q3e_local.server.workers.batch_queue import BatchQueue


@pytest.mark.parametrize("bad_at", [0, 1, 3])
async def test_a_bad_text_fails_its_own_request_alone_and_names_its_place(bad_at: int) -> None:
    stage = Stage(n_batch=200, n_seq_max=50, bad="BAD")
    await stage.occupy()
    await stage.ask(*("a BAD one" if n == bad_at else f"t{n}" for n in range(4)))
    await stage.ask("good", "better")
    _, failed, good = await stage.end()
    assert isinstance(failed, BadVectorError)
    assert failed.index == bad_at
    assert good[:, :3].tolist() == [expected("good"), expected("better")]


@pytest.mark.parametrize(
    "error",
    [WorkerDiedError("killed"), EngineError("no"), RuntimeError("a mistake of ours"), BadVectorError("odd", 9)],
)
async def test_a_failed_batch_fails_its_texts_and_the_next_one_is_decoded(error: Exception) -> None:
    stage = Stage()
    await stage.occupy()
    await stage.ask("first")
    await stage.ask("behind")
    stage.engine.error = error
    results = await stage.end()
    assert type(results[0]) is type(results[1]) is type(error)
    assert results[2][0, :3].tolist() == expected("behind")
    assert stage.queue.counters.failed == isinstance(error, BadVectorError)


class Mortal(Gated):
    """Dies of every text with `kill` in it."""

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        vectors = super().decode(sequences, n_prefix)
        if any(b"kill" in bytes(sequence[:-1]) for sequence in sequences):
            raise WorkerDiedError("the process of fake was ended by SIGABRT")
        return vectors


async def test_of_a_batch_that_kills_the_process_only_the_culprit_fails() -> None:
    stage = Stage(engine=Mortal(n_batch=200, n_seq_max=50))
    await stage.occupy()
    requests = (["a"], ["b kill"], ["c"], ["d", "e"])
    for texts in requests:
        await stage.ask(*texts)
    _, *results = await stage.end()
    assert isinstance(results.pop(1), WorkerDiedError)
    for rows, texts in zip(results, (["a"], ["c"], ["d", "e"]), strict=True):
        assert rows[:, :3].tolist() == [expected(text) for text in texts]
    assert stage.batches[1:] == [["a", "b kill", "c", "d", "e"], ["a"], ["b kill"], ["c"], ["d"], ["e"]]
    assert (stage.queue.counters.failed, stage.queue.counters.waiting) == (0, 0)


async def test_a_model_that_dies_of_everything_is_not_tried_for_ever() -> None:
    stage = Stage(engine=Mortal(n_batch=1000, n_seq_max=50))
    await stage.occupy()
    for n in range(20):
        await stage.ask(f"kill {n}")
    _, *results = await stage.end()
    assert [type(result) for result in results] == [WorkerDiedError] * 20
    assert len(stage.batches) == 5  # `first`, then all texts, then three texts by themselves
    assert stage.queue.counters.failed == 0  # the texts are sound, for all that is known


async def test_a_text_of_a_cancelled_request_is_not_tried_again() -> None:
    stage = Stage(engine=Mortal(n_batch=200, n_seq_max=50))
    stage.requests = [asyncio.create_task(stage.queue.decode([ids(text)])) for text in ("kill", "gone", "stays")]
    await stage.engine.arrived()
    stage.requests[1].cancel()
    await settled()
    results = await stage.end()
    assert stage.batches[1:] == [["kill"], ["stays"]]
    assert results[2][0, :3].tolist() == expected("stays")


class DiesOfBoth(FakeEngine):
    """Dies first when a long text and a short one are computed at once, and then of the culprit alone."""

    def __init__(self, culprit: str) -> None:
        super().__init__(n_batch=32, n_seq_max=8)
        self.culprit = culprit.encode()
        self.both, self.met = threading.Barrier(2), False

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        if not self.met:
            self.both.wait(20)
            self.met = True
            raise WorkerDiedError("it died")
        if self.culprit in bytes(sequences[0][:-1]):
            raise WorkerDiedError("it died again")
        return super().decode(sequences)


@pytest.mark.parametrize("culprit", [0, 1])
async def test_a_long_text_and_the_short_ones_beside_it_are_told_apart(culprit: int) -> None:
    texts = ("L" * 100, "S")
    queue = BatchQueue(DiesOfBoth(texts[culprit]), 100)
    results = await asyncio.gather(*(queue.decode([ids(text)]) for text in texts), return_exceptions=True)
    await queue.close(5)
    assert [type(result) for result in results] == [
        WorkerDiedError if place == culprit else np.ndarray for place in range(2)
    ]
