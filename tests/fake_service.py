"""A service that a reader can predict by eye, for tests of the wire, and a real server around it.

Knows the Service protocol, and nothing of engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import uvicorn
from waiting import until

from q3e_local.embedding.preparing import ResolvedOptions
from q3e_local.embedding.prompts import Kind
from q3e_local.errors import InvalidTextError, OptionError, TextTooLongError, UnknownModelError, WrongKindError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.llama.kernels.choice import Kernels
from q3e_local.llama.settings.placement import Placement
from q3e_local.server.app import create_app
from q3e_local.server.http.metrics import Metrics
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.service import (
    Described,
    LoadedModel,
    RankResult,
    RankServiceRequest,
    RunningService,
    ServiceRequest,
    ServiceResult,
    Stopped,
)
from q3e_local.server.settings import ServerSettings
from q3e_local.vectors import finish

if TYPE_CHECKING:  # server_process.py, which is started often, imports this module
    import httpx

    from q3e_local.models.pull import Step

N_EMBD, N_CTX, END = 256, 100, 256  # the native size of the demo model, which is really here
KERNELS = Kernels("avx2", "the fastest that this CPU runs", faster=("buy a faster one",))
MODELS = {"demo": None, "demo-query": "query", "judge": None}
RERANKER = "judge"  # the only one of them that ranks, and it embeds nothing


class FakeService:
    """Bytes are tokens; the vector is (last id before the end, number of ids, 1 for a query, 1, 0, …) cut and scaled.

    A document's logit is the number of times that it has the query, less 1; its tokens are the bytes of both and 1.
    `fail` is raised by every call that needs the model; `requests` remembers what came. A text "wait" waits
    until it is cancelled. `tokenize` puts "Q:" before a text of the kind "query".
    """

    n_embd, n_ctx, dim_min, digest = N_EMBD, N_CTX, 1, "fake"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As new."""
        self.fail: Exception | None = None
        self.requests: list[Any] = []
        self.in_memory: dict[str, float | None] = {}
        self.unloaded: list[str] = []
        self.pulled: list[str] = []
        self.cancelled = threading.Event()
        self.steps: list[Step] = []
        self.placement, self.n_looks = Placement(1), 0
        self.warmed: list[tuple[str, bool]] = []

    async def rank(self, request: RankServiceRequest) -> RankResult:
        self.requests.append(request)
        await self.load(request.model, request.keep_alive_s)
        if base(request.model) != RERANKER:
            raise WrongKindError(f"{request.model} is an embedding model: it ranks nothing")
        if "wait" in request.documents:
            await self.wait()
        limit = min(self.n_ctx, request.max_tokens or self.n_ctx)
        n_query = len(request.query.encode()) + 1
        if n_query >= limit:
            raise OptionError(f"the query has {n_query} tokens, the limit is {limit}; shorten the query", "query")
        n_document = min(limit - n_query, request.max_document_tokens or limit)
        logits, n_tokens, truncated = [], [], []
        for place, document in enumerate(request.documents):
            n_bytes = len(document.encode())
            if n_bytes > n_document and not request.truncate:
                raise TextTooLongError(f"has {n_bytes} tokens, the limit is {n_document}; truncate it", place)
            logits.append(float(document[:n_document].count(request.query) - 1))
            n_tokens.append(n_query + min(n_bytes, n_document))
            truncated.append(n_bytes > n_document)
        if request.keep_alive_s == 0:
            await self.unload(request.model)
        return RankResult(tuple(logits), tuple(n_tokens), tuple(truncated), RERANKER, 0.001)

    async def embed(self, request: ServiceRequest) -> ServiceResult:
        self.requests.append(request)
        await self.load(request.model, request.keep_alive_s)
        if base(request.model) == RERANKER:
            raise WrongKindError(f"{request.model} is a reranker: it makes no vectors")
        if "wait" in request.inputs:
            await self.wait()
        resolved = self.resolve(request)
        pooled = np.zeros((len(request.inputs), self.n_embd), np.float32)
        n_tokens, truncated = [], []
        for i, text in enumerate(request.inputs):
            ids = list(text.encode()) if isinstance(text, str) else list(text)
            if any(each > END for each in ids):
                raise InvalidTextError(f"token id {max(ids)} is not in the vocabulary of {END + 1}", i)
            ids = ids[:-1] if ids[-1:] == [END] else ids
            n_ids = len(ids) + 1
            if n_ids > resolved.limit and not request.truncate:
                raise TextTooLongError(
                    f"has {n_ids} tokens, the limit is {resolved.limit}; truncate it or split it", i
                )
            ids = ids[: resolved.limit - 1]
            pooled[i, :4] = self.row(ids[-1] if ids else 0, len(ids) + 1, resolved.space.endswith("query"))
            n_tokens.append(len(ids) + 1)
            truncated.append(n_ids > resolved.limit)
        vectors = finish(pooled, request.dim)
        if request.keep_alive_s == 0:
            await self.unload(request.model)
        return ServiceResult(vectors, tuple(n_tokens), tuple(truncated), "demo", resolved.space, 0.001)

    def row(self, last: int, n_ids: int, is_query: bool) -> tuple[float, ...]:
        return last, n_ids, is_query, 1

    async def wait(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            self.cancelled.set()

    def resolve(self, request: ServiceRequest) -> ResolvedOptions:
        dim = self.n_embd if request.dim is None else request.dim
        if not self.dim_min <= dim <= self.n_embd:
            raise OptionError(f"dim must be between {self.dim_min} and {self.n_embd} for demo, got {dim}", "dim")
        kind = request.kind or MODELS[base(request.model)]
        space = f"q3e1-{self.digest}-{dim}-{'query' if kind == 'query' else 'plain'}"
        return ResolvedOptions("", dim, min(self.n_ctx, request.max_tokens or self.n_ctx), request.truncate, space)

    async def check(self, model: str, kind: ModelKind) -> None:
        if base(model) not in MODELS:
            raise UnknownModelError(f"there is no model {model!r}")
        if _kind(name_of(model)) != kind:
            raise WrongKindError(f"{model} is not of the kind {kind}")

    async def describe(self, request: ServiceRequest) -> Described:
        self.requests.append(request)
        await self.load(request.model, request.keep_alive_s)
        return Described("demo", "fa" * 32, self.n_embd, self.n_ctx, ("<|endoftext|>",), self.resolve(request))

    async def count_tokens(self, model: str, texts: tuple[str, ...]) -> list[int]:
        await self.load(model, None)
        return [len(text.encode()) for text in texts]

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        if self.fail is not None:
            raise self.fail
        if base(model) not in MODELS:
            raise UnknownModelError(f"there is no model {model!r}")
        self.in_memory[name_of(model)] = keep_alive_s

    async def warm_up(self, model: str) -> None:
        self.warmed.append((model, name_of(model) in self.in_memory))

    async def unload(self, model: str) -> None:
        self.unloaded.append(model)
        self.in_memory.pop(name_of(model), None)

    async def stop(self, model: str, wait_s: float) -> Stopped:
        if base(model) not in MODELS:
            raise UnknownModelError(f"there is no model {model!r}")
        was_loaded = name_of(model) in self.in_memory
        await self.unload(model)
        return Stopped(name_of(model), was_loaded, True)

    async def tokenize(self, model: str, text: str, *, add_end_token: bool, kind: Kind | None = None) -> list[int]:
        await self.load(model, None)
        return [*(b"Q:" if kind == "query" else b""), *text.encode(), *([END] if add_end_token else [])]

    async def detokenize(self, model: str, ids: list[int]) -> str:
        return b"".join(await self.pieces(model, ids)).decode("utf-8", "replace")

    async def pieces(self, model: str, ids: list[int]) -> list[bytes]:
        await self.load(model, None)
        if any(each > END for each in ids):
            raise OptionError(f"token id {max(ids)} is not in the vocabulary of {END + 1}")
        return [b"<|endoftext|>" if each == END else bytes([each]) for each in ids]

    async def close(self) -> None:
        """Nothing to free."""

    def counters(self) -> dict[str, float]:
        return {}

    async def look(self) -> None:
        self.n_looks += 1

    def loaded(self) -> list[LoadedModel]:
        now = time.time()
        expires = {name: now + 300 if keep is None else now + keep for name, keep in self.in_memory.items()}
        return [
            LoadedModel(name, _kind(name), 12_345, self.n_ctx, None if at < now else at, self.placement, KERNELS)
            for name, at in expires.items()
        ]

    async def pull(self, name: str, progress: Callable[[Any], None]) -> None:
        if self.fail is not None:
            raise self.fail
        if name not in MODELS and not name.startswith("qwen3"):
            raise UnknownModelError(f"there is no model {name!r}")
        self.pulled.append(name)
        try:
            await asyncio.to_thread(lambda: [progress(step) for step in self.steps])
            await asyncio.sleep(60 if name == "qwen3-embedding:8b" else 0)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@contextlib.contextmanager
def served(service: RunningService, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a real server on a free port of loopback; it stops at the end, and the service with it."""
    import httpx

    chosen = ServerSettings(**settings)
    indexes = Indexes(chosen)
    app = create_app(service, chosen, indexes, Metrics(service, indexes))
    server = uvicorn.Server(uvicorn.Config(app, port=0, ws="none", log_level="error", lifespan="off"))

    async def serve() -> None:
        await server.serve()
        await service.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended at its start"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = server.force_exit = True
        thread.join(60)
        indexes.close()


def vector(last: int, n_ids: int, is_query: int = 0, dim: int = N_EMBD) -> list[float]:
    """What the fake answers for a text."""
    row = np.zeros((1, N_EMBD), np.float32)
    row[0, :4] = last, n_ids, is_query, 1
    return [float(each) for each in finish(row, dim)[0]]


def base(model: str) -> str:
    """A client's name without Ollama's usual tag."""
    return model.removesuffix(":latest")


def name_of(model: str) -> str:
    """The full name of the model that a client's name means."""
    return RERANKER if base(model) == RERANKER else "demo"


def _kind(name: str) -> ModelKind:
    return "reranker" if name == RERANKER else "embedder"


def ask_and_leave(address: str, path: str, fake: FakeService, body: dict[str, Any] | None = None) -> None:
    """Send a request that the service would work on for a minute, and hang up once it does."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("POST", path, json.dumps(body or {"model": "demo", "input": "wait"}))
    until(lambda: fake.requests)
    connection.close()
