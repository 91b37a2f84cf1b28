"""LocalService: the library's vectors through the server's one embed path, whatever the name, input or fault."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake import FakeEngine, seen
from faults import open_faulty
from server_process import workers_of
from workers import FakeWorker
from world import World

import q3e_local
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import (
    InvalidTextError,
    ModelFileError,
    ModelNotHereError,
    OptionError,
    TextTooLongError,
    UnknownModelError,
)
from q3e_local.models.own_names import Alias
from q3e_local.server.errors import QueueFullError, WorkerDiedError
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.service import ServiceRequest as Request
from q3e_local.server.service import ServiceResult
from q3e_local.server.settings import ServerSettings
from q3e_local.server.workers.worker import WorkerEngine

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


@pytest.fixture
def library() -> Iterator[Embedder]:
    """Fresh, as the server is: prefixes kept from other texts change the last digits."""
    with q3e_local.load("demo", n_threads=1) as embedder:
        yield embedder


@pytest.mark.parametrize(
    ("model", "request_", "library_"),
    [
        ("demo", {}, {}),
        ("DEMO:latest", {}, {}),
        ("demo:q8_0", {"dim": 64}, {"dim": 64}),
        ("demo-query", {}, {"kind": "query"}),
        ("demo-query:latest", {}, {"kind": "query"}),
        ("demo", {"kind": "query"}, {"kind": "query"}),
        ("demo-query", {"kind": "document"}, {}),
        ("demo-query", {"task": "code"}, {"kind": "query", "task": "code"}),
        ("demo", {"task": "sts"}, {"task": "sts"}),
        ("demo", {"instruction": "legal"}, {"instruction": "legal"}),
        ("legal", {}, {"kind": "query", "instruction": "legal", "dim": 48}),
        ("LEGAL:latest", {"dim": 100}, {"kind": "query", "instruction": "legal", "dim": 100}),
        ("legal", {"task": "code"}, {"kind": "query", "task": "code", "dim": 48}),
        ("legal", {"kind": "document"}, {"dim": 48}),
        ("other", {}, {}),
        ("asks", {}, {"kind": "query"}),
        ("demo", {"max_tokens": 5}, {"max_tokens": 5, "truncate": True}),
        ("demo", {"max_tokens": 10_000_000}, {}),
    ],
)
async def test_vectors_counts_and_space_are_the_librarys(
    library: Embedder, model: str, request_: dict[str, Any], library_: dict[str, Any]
) -> None:
    texts = ["What is the capital of China?", "e\u0301te\u0301 <think>\u0338 <|endoftext|>", "", "long words " * 300]
    aliases = {
        "legal": Alias("demo", instruction="legal", dim=48),
        "other": Alias("demo:latest"),
        "asks": Alias("demo-query"),
    }
    expected = library.embed(q3e_local.EmbedRequest(texts, **library_))
    result = await embed(*texts, model=model, make=None, settings={"aliases": aliases}, **request_)
    assert result.vectors.dtype == np.float32
    np.testing.assert_allclose(result.vectors, expected.vectors, atol=1e-5)
    assert result.prompt_tokens == expected.prompt_tokens
    assert result.truncated == expected.truncated
    assert (result.model, result.space) == ("demo", expected.space)
    assert result.load_s >= 0


async def test_token_ids_get_the_end_token_and_the_instruction() -> None:
    plain, ended, empty = (await embed((1, 2, 3), (1, 2, 3, EOS), ())).vectors
    assert seen(plain) == seen(ended) == (EOS, 4)
    assert seen(empty) == (EOS, 1)
    result = await embed((1, 2), "ab", kind="query")
    n_prefix = len(f"Instruct: {INSTRUCTION}\nQuery:")
    assert result.prompt_tokens == (n_prefix + 3, n_prefix + 3)


@pytest.mark.parametrize("wrong", [257, -1, 2**70])
async def test_token_ids_outside_the_vocabulary_are_refused_with_their_place(wrong: int) -> None:
    with pytest.raises(InvalidTextError, match=f"text 1: token id {wrong} is not in the vocabulary of 257"):
        await embed("fine", (1, wrong))


async def test_texts_and_ids_come_back_in_order_from_any_slice() -> None:
    inputs = ["a" * 40_000, (98, 99), "c" * 90_000, "d", (101,), "f" * 120_000, "g"]
    result = await embed(*inputs)
    firsts = [one[0] if isinstance(one, tuple) else ord(one[0]) for one in inputs]
    assert [round(float(row[3] / row[2])) for row in result.vectors] == firsts
    assert result.truncated == (True, False, True, False, False, True, False)


@pytest.mark.parametrize(
    ("inputs", "request_", "error", "message"),
    [
        (("ok", "x" * 2000), {"truncate": False}, TextTooLongError, "text 1: has 2001 tokens, the limit is 1000"),
        ((tuple(range(200)),), {"truncate": False, "max_tokens": 9}, TextTooLongError, "text 0: has 201 tokens"),
        (("ok", "\ud800"), {}, InvalidTextError, "text 1: character 0 is the lone surrogate"),
        (("ok",), {"dim": 31}, OptionError, "dim must be between 32 and 64 for demo, got 31"),
        (("ok",), {"dim": 65}, OptionError, "dim must be between 32 and 64 for demo, got 65"),
        (("ok",), {"max_tokens": 0}, OptionError, "max_tokens must be between 1 and 1000"),
        (("ok",), {"task": "cooking"}, OptionError, "unknown task 'cooking'"),
        (("ok",), {"task": "sts", "instruction": "x"}, OptionError, "not both"),
        (("ok",), {"instruction": " "}, OptionError, "the instruction is empty"),
        (("ok",), {"model": "gpt-4"}, UnknownModelError, "there is no model 'gpt-4'"),
        (("ok",), {"model": ""}, UnknownModelError, "there is no model ''"),
        (("ok",), {"model": "qwen3-embedding:0.6b-query"}, ModelNotHereError, "q3e-local pull qwen3-embedding:0.6b"),
    ],
)
async def test_what_cannot_be_done_is_told_in_the_librarys_words(
    inputs: tuple[Any, ...], request_: dict[str, Any], error: type[Exception], message: str, world: World
) -> None:
    with pytest.raises(error) as failed:
        await embed(*inputs, **request_)
    assert message in str(failed.value)


@pytest.mark.parametrize("given", ["{}", "./{name}", "{name}", "../{folder}/{name}", "~/{name}", "x/../../{name}"])
async def test_a_name_from_a_request_is_never_a_path(
    tiny_gguf: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    path = tmp_path / "secret.gguf"
    path.write_bytes(tiny_gguf("f16").read_bytes())
    (tmp_path / "secret").write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("secret.gguf", "secret"):
        with pytest.raises(UnknownModelError):
            await embed("a", model=given.format(path, name=name, folder=tmp_path.name))


async def test_a_file_that_the_server_was_started_with_has_its_name(
    tiny_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(tiny_gguf("f16").read_bytes())
    for name in ("mine", "mine-query", "mine:latest", "MINE"):
        assert (await embed("a", model=name, settings={"models": (str(path),)})).model == "mine"
    with pytest.raises(UnknownModelError, match=r"there is no model .* here; there are mine, demo"):
        await embed("a", model=str(path), settings={"models": (str(path),)})


async def test_loading_and_unloading_by_every_name() -> None:
    async with serving() as service:
        await service.load("demo-query", 60)
        (one,) = service.loaded()
        assert (one.name, one.n_ctx, one.on_gpu) == ("demo", 1000, False)
        await service.unload("demo:latest")
        assert service.loaded() == []
        await service.unload("demo")
        await service.unload("nobody")
        assert (await service.embed(Request("demo", ()))).vectors.shape == (0, 64)
        assert service.counters()["n_loads"] == 2


async def test_tokenizing_and_back() -> None:
    async with serving() as service:
        assert await service.tokenize("demo", "e\u0301", add_end_token=True) == [*"é".encode(), EOS]
        assert await service.tokenize("demo-query", "a", add_end_token=False) == [97]
        assert await service.detokenize("demo", [97, EOS]) == "a<end>"
        with pytest.raises(OptionError, match="token id 257 is not in the vocabulary of 257"):
            await service.detokenize("demo", [257])


async def test_a_full_queue_refuses_before_tokenizing() -> None:
    async with serving(max_queue=3) as service:
        began, go_on = threading.Event(), threading.Event()

        def held(sequences: Any, n_prefix: Any) -> Any:
            began.set()
            go_on.wait(20)
            return decode(sequences, n_prefix)

        await service.load("demo", None)
        async with service._models.use(service._names.resolve("demo").located) as model:
            worker: Any = model.worker
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


async def test_a_worker_that_dies_fails_what_it_was_at_and_is_back_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "faulty.gguf"
    path.write_text("fine", encoding="ascii")
    async with serving(lambda _: WorkerEngine(path, open_engine=open_faulty)) as service:
        assert seen((await service.embed(Request("demo", ("abc",)))).vectors[0]) == (EOS, 4)
        with pytest.raises(WorkerDiedError):
            await service.embed(Request("demo", ("exit",)))
        assert seen((await service.embed(Request("demo", ("abc",)))).vectors[0]) == (EOS, 4)
        for worker in workers_of(os.getpid()):
            worker.kill()
        assert seen((await service.embed(Request("demo", ("abcd",)))).vectors[0]) == (EOS, 5)
        assert service.counters()["n_worker_restarts"] == 2


async def test_unloading_ends_the_process() -> None:
    async with serving(None) as service:
        before = workers_of(os.getpid())
        await service.embed(Request("demo", ("abc",)))
        (worker,) = set(workers_of(os.getpid())) - set(before)
        await service.unload("demo")
        assert not worker.is_running()


async def test_a_file_that_is_no_model_is_told_to_each_request(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF and then nothing of use")
    async with serving(None, models=(str(path),)) as service:
        for _ in range(3):
            with pytest.raises(ModelFileError):
                await service.embed(Request("bad", ("a",)))
        assert service.loaded() == []


async def test_two_hundred_clients_at_once_get_each_their_own_vector() -> None:
    async with serving(max_queue=10_000) as service:

        async def client(n: int) -> None:
            text = chr(97 + n % 26) * (n + 1)
            result = await service.embed(Request("demo", (text, "z" * (n + 2))))
            assert seen(result.vectors[0]) == (EOS, n + 2)
            assert seen(result.vectors[1]) == (EOS, n + 3)
            assert round(float(result.vectors[0][3] / result.vectors[0][2])) == ord(text[0])

        await asyncio.gather(*(client(n) for n in range(200)))


async def test_pulling_tells_its_steps_and_the_model_is_served(world: World) -> None:
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
