"""LocalService on fake workers: inputs, limits, names, pulls, and requests that wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake import FakeEngine, seen
from workers import FakeWorker
from world import World

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import (
    InvalidTextError,
    ModelFileError,
    ModelNotHereError,
    OptionError,
    TextTooLongError,
    UnknownModelError,
)
from q3e_local.models.installed import Located
from q3e_local.server.errors import QueueFullError
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.service import ServiceRequest as Request
from q3e_local.server.service import ServiceResult
from q3e_local.server.settings import ServerSettings

EOS = FakeEngine.eos_id
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@asynccontextmanager
async def serving(make: Any = FakeWorker, **settings: Any) -> AsyncIterator[LocalService]:
    """A service, by default on fake workers."""
    service = LocalService(ServerSettings(**settings), EngineConfig(n_threads=1), make)
    try:
        yield service
    finally:
        await service.close()


async def embed(
    *inputs: Any, model: str = "demo", make: Any = FakeWorker, settings: Any = None, **request: Any
) -> ServiceResult:
    async with serving(make, **(settings or {})) as service:
        return await service.embed(Request(model, inputs, **request))


async def test_token_ids_get_the_end_token_and_the_instruction() -> None:
    plain, ended, empty = (await embed((1, 2, 3), (1, 2, 3, EOS), ())).vectors
    assert seen(plain) == seen(ended) == (EOS, 4)
    assert seen(empty) == (EOS, 1)
    result = await embed((1, 2), "ab", kind="query")
    n_prefix = len(f"Instruct: {INSTRUCTION}\nQuery:")
    assert result.prompt_tokens == (n_prefix + 3, n_prefix + 3)


async def test_texts_and_ids_come_back_in_order_from_any_slice() -> None:
    inputs = ["a" * 40_000, (98, 99), "c" * 90_000, "d", (101,), "f" * 120_000, "g"]
    result = await embed(*inputs)
    firsts = [each[0] if isinstance(each, tuple) else ord(each[0]) for each in inputs]
    assert [round(float(row[3] / row[2])) for row in result.vectors] == firsts
    assert result.truncated == (True, False, True, False, False, True, False)


@pytest.mark.parametrize(
    ("inputs", "request_", "error", "message"),
    [
        (("ok", "x" * 2000), {"truncate": False}, TextTooLongError, "text 1: has 2001 tokens, the limit is 1000"),
        ((tuple(range(200)),), {"truncate": False, "max_tokens": 9}, TextTooLongError, "text 0: has 201 tokens"),
        (("ok", "\ud800"), {}, InvalidTextError, "text 1: character 0 is the lone surrogate"),
        (("ok",), {"dim": 65}, OptionError, "dim must be between 32 and 64 for demo, got 65"),
        (("ok",), {"max_tokens": 0}, OptionError, "max_tokens must be between 1 and 1000"),
        (("ok",), {"task": "cooking"}, OptionError, "unknown task 'cooking'"),
        (("ok",), {"task": "sts", "instruction": "x"}, OptionError, "not both"),
        (("ok",), {"instruction": " "}, OptionError, "the instruction is empty"),
        (("ok",), {"model": ""}, UnknownModelError, "there is no model ''"),
        (("ok",), {"model": "qwen3-embedding:0.6b-query"}, ModelNotHereError, "q3e-local pull qwen3-embedding:0.6b"),
    ],
)
async def test_what_cannot_be_done_is_said_in_the_librarys_words(
    inputs: tuple[Any, ...], request_: dict[str, Any], error: type[Exception], message: str, world: World
) -> None:
    with pytest.raises(error) as failed:
        await embed(*inputs, **request_)
    assert message in str(failed.value)


async def test_loading_and_unloading_by_every_name() -> None:
    async with serving() as service:
        await service.load("demo-query", 60)
        (model,) = service.loaded()
        assert (model.name, model.n_ctx, model.placement.on_gpu) == ("demo", 1000, False)
        await service.unload("demo:latest")
        assert service.loaded() == []
        await service.unload("demo")
        await service.unload("nobody")
        assert (await service.embed(Request("demo", ()))).vectors.shape == (0, 64)
        assert service.counters()["n_loads"] == 2


async def test_a_full_queue_refuses_before_tokenizing() -> None:
    workers: list[Any] = []

    def make(located: Located) -> FakeWorker:
        workers.append(FakeWorker(located))
        return workers[-1]

    async with serving(make, max_queue=3) as service:
        began, go_on = threading.Event(), threading.Event()

        def held(sequences: Any, n_prefix: Any) -> Any:
            began.set()
            go_on.wait(20)
            return decode(sequences, n_prefix)

        await service.load("demo", None)
        (worker,) = workers
        decode, worker.decode = worker.decode, held
        tasks = [asyncio.create_task(service.embed(Request("demo", ("t0",))))]
        await asyncio.to_thread(began.wait, 20)
        tasks += [asyncio.create_task(service.embed(Request("demo", (f"t{n}",)))) for n in range(1, 4)]
        while service.counters()["n_queued"] < 3:
            await asyncio.sleep(0.002)
        n_tokenized = len(worker.texts)
        with pytest.raises(QueueFullError):
            await service.embed(Request("demo", ("one more",)))
        assert len(worker.texts) == n_tokenized
        go_on.set()
        assert [seen(result.vectors[0]) for result in await asyncio.gather(*tasks)] == [(EOS, 3)] * 4


async def test_each_request_for_a_file_that_is_no_model_fails(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF and then nothing of use")
    async with serving(None, models=(str(path),)) as service:
        for _ in range(3):
            with pytest.raises(ModelFileError):
                await service.embed(Request("bad", ("a",)))
        assert service.loaded() == []


async def test_a_pull_reports_its_steps_and_the_model_is_served(world: World) -> None:
    async with serving() as service:
        with pytest.raises(ModelNotHereError):
            await service.load("tiny:1b", None)
        steps: list[Any] = []
        await service.pull("tiny:1b", steps.append)
        assert steps
        await service.load("tiny:1b-query", None)
        with pytest.raises(UnknownModelError):
            await service.pull("nobody:1b", steps.append)


async def test_a_pull_that_nobody_waits_for_stops(world: World) -> None:
    async with serving() as service:
        began, go_on = threading.Event(), threading.Event()

        def progress(step: object) -> None:
            began.set()
            go_on.wait(20)

        task = asyncio.create_task(service.pull("tiny:1b", progress))
        await asyncio.to_thread(began.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()


@pytest.mark.parametrize(
    "call",
    [
        lambda service, text: service.embed(Request("demo", (text,))),
        lambda service, text: service.tokenize("demo", text, add_end_token=True),
        lambda service, text: service.count_tokens("demo", (text,)),
        lambda service, text: service.detokenize("demo", [97]),
        lambda service, text: service.pieces("demo", [97]),
        lambda service, text: service.pull("tiny:1b", lambda step: None),
    ],
    ids=["embed", "tokenize", "count_tokens", "detokenize", "pieces", "pull"],
)
async def test_requests_that_wait_for_a_worker_that_hangs_or_a_silent_hub_leave_threads_to_others(
    world: World, monkeypatch: pytest.MonkeyPatch, call: Callable[[LocalService, str], Coroutine[Any, Any, Any]]
) -> None:
    """Six of them held all threads of a machine of two cores: the whole server waited until the worker was ended."""
    began, answers = threading.Event(), threading.Event()

    def wait(*_: Any, **__: Any) -> None:
        began.set()
        assert answers.wait(30)

    def held(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (wait(), method(*arguments))[1]

    monkeypatch.setattr("q3e_local.models.pull.pull", wait)
    for name in ("tokenize_all", "tokenize", "detokenize", "pieces"):
        monkeypatch.setattr(FakeWorker, name, held(getattr(FakeWorker, name)))
    async with serving() as service:
        waiting = [asyncio.ensure_future(call(service, f"text {number}")) for number in range(50)]
        try:
            while not began.is_set():
                await asyncio.sleep(0.001)
            for _ in range(20):
                async with asyncio.timeout(10):
                    await service.describe(Request("demo", ()))
            assert not any(each.done() for each in waiting)
        finally:
            answers.set()
        await asyncio.gather(*waiting)


async def test_the_thread_of_a_models_words_ends_when_the_model_is_unloaded() -> None:
    before = set(threading.enumerate())
    async with serving() as service:
        await service.tokenize("demo", "text", add_end_token=True)
        (words,) = {thread for thread in threading.enumerate() if thread.name.startswith("q3e-words")} - before
        await service.stop("demo", 20)
        await asyncio.to_thread(words.join, 20)
        assert not words.is_alive()
