"""`Service` on this machine: names to models, texts to ids, batches to vectors.

All dialects embed through `LocalService.embed` and rank through `LocalService.rank`; `pipeline` has the steps from an
input to its numbers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from q3e_local.cache.choose import open_cache
from q3e_local.embedding.engine import EngineConfig
from q3e_local.embedding.preparing import Defaults
from q3e_local.embedding.prompts import Kind
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import ModelError, OptionError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models.installed import Located
from q3e_local.models.kinds import check_file, check_kind
from q3e_local.models.names import Named
from q3e_local.reranking.preparing import RankRequest
from q3e_local.server.local import tokenizing
from q3e_local.server.local.forecasts import Forecasts
from q3e_local.server.local.pipeline import Pipeline
from q3e_local.server.served_names import ServedNames
from q3e_local.server.service import (
    Described,
    LoadedModel,
    RankResult,
    RankServiceRequest,
    ServiceRequest,
    ServiceResult,
    Stopped,
)
from q3e_local.server.settings import ServerSettings
from q3e_local.server.workers.child import open_llama
from q3e_local.server.workers.failed_loads import FailedLoads
from q3e_local.server.workers.loaded_models import Models
from q3e_local.server.workers.model import Model
from q3e_local.server.workers.warming import warm_up
from q3e_local.server.workers.worker import WorkerEngine

_CLOSE_S = 5.0
_LOOK_S = 1.0  # at devices, which answer at once unless a long text is computed
_PULLS_MAX = 4  # at once; others wait


class LocalService:
    """Serves models of this machine, each in a process of its own. Use it on one event loop, and close it.

    The methods are those of RunningService.
    """

    def __init__(
        self,
        settings: ServerSettings,
        config: EngineConfig | None = None,
        make_worker: Callable[[Located], WorkerEngine] | None = None,
    ) -> None:
        engine_config, failed = config or EngineConfig(self_tuning=True), FailedLoads()

        def worker(located: Located) -> WorkerEngine:
            # A card was proved when it was written.
            unproved = located.name if located.card is None else None
            opens = partial(open_llama, kind=located.kind, unproved=unproved)
            return WorkerEngine(located.path, engine_config, open_engine=opens, failed=failed)

        self._names = ServedNames(settings)
        self._pipeline = Pipeline(open_cache(settings.cache) if engine_config.may_cache else None)
        # Not the threads that all requests share: a hub that is silent holds each pull's thread for long.
        self._pulling = ThreadPoolExecutor(_PULLS_MAX, thread_name_prefix="q3e-pull")
        self._forecasts = Forecasts(engine_config)
        self._models = Models(
            make_worker or worker,
            self._forecasts.soon,
            keep_alive_s=settings.keep_alive_s,
            max_loaded=settings.max_loaded,
            n_waiting_max=settings.max_queue,
        )

    async def embed(self, request: ServiceRequest) -> ServiceResult:
        began = time.perf_counter()
        async with self._using(request.model, request.keep_alive_s, "embedder") as (model, defaults):
            load_s = time.perf_counter() - began
            preparation = model.prepare(_options(request, model), defaults)
            vectors, counts = await self._pipeline.run(model, preparation, request.inputs)
        return ServiceResult(
            vectors=vectors,
            prompt_tokens=tuple(n_tokens for n_tokens, _ in counts),
            truncated=tuple(truncated for _, truncated in counts),
            model=model.name,
            space=preparation.resolved.space,
            load_s=load_s,
        )

    async def rank(self, request: RankServiceRequest) -> RankResult:
        began = time.perf_counter()
        async with self._using(request.model, request.keep_alive_s, "reranker") as (model, defaults):
            load_s = time.perf_counter() - began
            preparation = await model.call(model.prepare_pairs, _rank_options(request, model, defaults))
            logits, counts = await self._pipeline.run(model, preparation, request.documents)
        return RankResult(
            logits=tuple(logits[:, 0].tolist()),
            prompt_tokens=tuple(n_tokens for n_tokens, _ in counts),
            truncated=tuple(truncated for _, truncated in counts),
            model=model.name,
            load_s=load_s,
        )

    async def check(self, model: str, kind: ModelKind) -> None:
        await self._named(model, kind)

    async def describe(self, request: ServiceRequest) -> Described:
        async with self._using(request.model, request.keep_alive_s, "embedder") as (model, defaults):
            worker, resolved = model.worker, model.prepare(_options(request, model), defaults).resolved
            return Described(
                model.name, worker.digest, worker.n_embd, worker.n_ctx_max, tuple(worker.added_tokens), resolved
            )

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        async with self._using(model, keep_alive_s):
            pass

    async def warm_up(self, model: str) -> None:
        async with self._using(model) as (used, _):
            await asyncio.to_thread(warm_up, used.worker, used.name)

    async def unload(self, model: str) -> None:
        with suppress(ModelError):  # a name that is no model's takes no memory
            await self._models.unload(await self._full_name(model))

    async def stop(self, model: str, wait_s: float) -> Stopped:
        name = await self._full_name(model)
        was_loaded = self._models.has(name)
        await self._models.unload(name)
        return Stopped(name, was_loaded, await self._models.gone(name, wait_s))

    async def _full_name(self, model: str) -> str:
        """The name of a model that is here, or still in memory although its file is gone. Raises ModelError."""
        try:
            return (await asyncio.to_thread(self._names.resolve, model)).located.name
        except ModelError:
            name = model.strip().lower()
            if not self._models.has(name):
                raise
            return name

    async def tokenize(self, model: str, text: str, *, add_end_token: bool, kind: Kind | None = None) -> list[int]:
        async with self._using(model, kind="embedder" if kind else None) as (used, defaults):
            prefix = "" if kind is None else used.prepare(EmbedRequest((), kind), defaults).resolved.prefix
            ids = await tokenizing.whole(used, text, prefix)
            return [*ids, used.worker.eos_id] if add_end_token else ids

    async def count_tokens(self, model: str, texts: tuple[str, ...]) -> list[int]:
        async with self._using(model) as (used, _):
            return await tokenizing.counts(used, texts)

    async def detokenize(self, model: str, ids: list[int]) -> str:
        async with self._using(model) as (used, _):
            _hold_to_vocabulary(ids, used)
            return await tokenizing.text_of(used, ids)

    async def pieces(self, model: str, ids: list[int]) -> list[bytes]:
        async with self._using(model) as (used, _):
            _hold_to_vocabulary(ids, used)
            return await used.call(used.worker.pieces, ids)

    async def look(self) -> None:
        await self._models.look(_LOOK_S)

    def loaded(self) -> list[LoadedModel]:
        return self._models.loaded()

    @asynccontextmanager
    async def _using(
        self, name: str, keep_alive_s: float | None = None, kind: ModelKind | None = None
    ) -> AsyncIterator[tuple[Model, Defaults]]:
        """The model that a client's name means, loaded if need be, and what the name means for a text.

        Raises WrongKindError for a model of another kind, before it is loaded.
        """
        named = await self._named(name, kind)
        async with self._models.use(named.located, keep_alive_s) as model:
            if kind is not None:
                check_kind(named.located, model.worker.kind, kind)
            yield model, named.defaults

    async def _named(self, name: str, kind: ModelKind | None) -> Named:
        """What a client's name means. Raises WrongKindError for a model of another kind that is not in memory."""
        named = await asyncio.to_thread(self._names.resolve, name)
        if kind is not None and not self._models.has(named.located.name):
            await asyncio.to_thread(check_file, named.located, kind)
        return named

    async def pull(self, name: str, progress: Callable[[Any], None]) -> None:
        # Cancelling stops the pull at its next step. What came so far is kept for the next pull.
        gone = threading.Event()

        def report(step: object) -> None:
            if gone.is_set():
                raise _GoneError
            progress(step)

        def bring() -> None:
            from q3e_local.models import pull as pulling  # brings the network's modules in

            with suppress(_GoneError):
                pulling.pull(*self._names.to_pull(name), progress=report)

        try:
            await asyncio.get_running_loop().run_in_executor(self._pulling, bring)
        finally:
            gone.set()

    def counters(self) -> dict[str, float]:
        def total(name: str) -> float:
            return float(sum(getattr(counters, name) for counters in self._models.counters.values()))

        return {
            "n_batches": total("batches"),
            "n_computed_texts": total("texts"),
            "n_computed_tokens": total("tokens"),
            "n_cached_texts": self._pipeline.n_cached_texts,
            "n_shared_texts": total("shared"),
            "n_failed_texts": total("failed"),
            "n_refused": total("refused"),
            "decode_seconds": total("seconds"),
            "n_queued": total("waiting"),
            "n_loads": self._models.n_loads,
            "n_worker_restarts": self._models.n_restarts,
            "n_worker_deaths": self._models.n_deaths,
        }

    async def close(self, timeout_s: float = _CLOSE_S) -> None:
        self._forecasts.close()
        await self._models.close(timeout_s)
        await self._pipeline.close()


class _GoneError(Exception):
    """Nobody waits for this pull any more."""


def _hold_to_vocabulary(ids: list[int], model: Model) -> None:
    n_vocab = model.worker.n_vocab
    wrong = tokenizing.foreign(ids, n_vocab)
    if wrong is not None:
        raise OptionError(f"token id {wrong} is not in the vocabulary of {n_vocab}")


def _options(request: ServiceRequest, model: Model) -> EmbedRequest:
    """The library's request, without inputs. A `max_tokens` above the model's limit limits nothing."""
    limit = None if request.max_tokens is None else min(request.max_tokens, model.worker.n_ctx_max)
    return EmbedRequest((), request.kind, request.task, request.instruction, request.dim, request.truncate, limit)


def _rank_options(request: RankServiceRequest, model: Model, defaults: Defaults) -> RankRequest:
    """The library's request, without documents. A `max_tokens` above the model's limit limits nothing."""
    limit = None if request.max_tokens is None else min(request.max_tokens, model.worker.n_ctx_max)
    said = (request.task, request.instruction, request.truncate, limit, request.max_document_tokens)
    return RankRequest(request.query, (), *said).filled(defaults)
