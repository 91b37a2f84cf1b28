"""`Service` on this machine: names to models, texts to ids, batches to vectors.

All dialects embed through `LocalService.embed`. It takes the steps of the library's `TextStream.run`, but its batches
are made by a queue, which merges the texts of all requests.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from q3e_local.cache.choose import open_cache
from q3e_local.embedding.batching import prefixes
from q3e_local.embedding.engine import EngineConfig
from q3e_local.embedding.lookup import Lookup, ReadyText, finished, ready_texts
from q3e_local.embedding.preparing import Defaults, Fitted, Preparation
from q3e_local.embedding.prompts import Kind
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.errors import BadVectorError, InvalidTextError, ModelError, OptionError
from q3e_local.gguf.model_file import inspect
from q3e_local.llama.settings import kept, memory
from q3e_local.server.local import tokenizing
from q3e_local.server.served_names import ServedNames
from q3e_local.server.service import Described, LoadedModel, ServiceRequest, ServiceResult, Stopped
from q3e_local.server.settings import ServerSettings
from q3e_local.server.workers.loaded_models import Models
from q3e_local.server.workers.model import Model
from q3e_local.server.workers.worker import FailedLoads, WorkerEngine
from q3e_local.vectors import Vectors

# Numbers above which cutting and scaling would hold up the event loop.
_LARGE = 1_000_000
# Characters of a text that is looked up in the cache: normalizing a longer text would hold up all requests.
_LOOKED_UP_MAX = 1_000_000
_CLOSE_S = 5.0
_PULLS_MAX = 4  # at once; others wait


class LocalService:
    """Serves models of this machine, each in a process of its own. Use it on one event loop, and close it.

    The methods are those of RunningService.
    """

    def __init__(
        self,
        settings: ServerSettings,
        config: EngineConfig | None = None,
        make_worker: Callable[[Path], WorkerEngine] | None = None,
    ) -> None:
        engine_config, failed = config or EngineConfig(self_tuning=True), FailedLoads()
        self._names = ServedNames(settings)
        self._cache = open_cache(settings.cache)
        # A thread, so that no request waits until its vectors are in the cache.
        self._keeping = ThreadPoolExecutor(1, thread_name_prefix="q3e-cache")
        self._n_cached_texts = 0  # that were not computed
        # Not the threads that all requests share: a hub that is silent holds each pull's thread for long.
        self._pulling = ThreadPoolExecutor(_PULLS_MAX, thread_name_prefix="q3e-pull")
        self._models = Models(
            make_worker or (lambda path: WorkerEngine(path, engine_config, failed=failed)),
            lambda path: needed_bytes(path, engine_config),
            keep_alive_s=settings.keep_alive_s,
            max_loaded=settings.max_loaded,
            n_waiting_max=settings.max_queue,
        )

    async def embed(self, request: ServiceRequest) -> ServiceResult:
        began = time.perf_counter()
        async with self._using(request.model, request.keep_alive_s) as (model, defaults):
            load_s = time.perf_counter() - began
            preparation = model.prepare(_options(request, model), defaults)
            lookup = Lookup(preparation, self._cache)
            texts = await self._looked_up(preparation, lookup, request.inputs)
            known = {place: text.known for place, text in texts.items() if isinstance(text.known, Embedded)}
            places = [place for place in range(len(request.inputs)) if place not in known]
            model.queue.check(len(places))
            fitted = await tokenizing.fitted(model, preparation, [(place, request.inputs[place]) for place in places])
            pooled = await self._decoded(model, places, fitted, preparation.resolved.dim)
        rows = [row for row, place in enumerate(places) if place in texts]
        if rows:
            keys = [(texts[places[row]].digest, fitted[row]) for row in rows]
            self._keeping.submit(lookup.keep, pooled[rows], keys)
        computed, bad = await _finished(pooled, preparation.resolved.dim)
        if bad:
            row = min(bad)
            raise BadVectorError(bad[row].message, places[row])
        vectors, counts = _merged(known, places, computed, fitted)
        return ServiceResult(
            vectors=vectors,
            prompt_tokens=tuple(n_tokens for n_tokens, _ in counts),
            truncated=tuple(truncated for _, truncated in counts),
            model=model.name,
            space=preparation.resolved.space,
            load_s=load_s,
        )

    async def describe(self, request: ServiceRequest) -> Described:
        async with self._using(request.model, request.keep_alive_s) as (model, defaults):
            worker, resolved = model.worker, model.prepare(_options(request, model), defaults).resolved
            return Described(
                model.name, worker.digest, worker.n_embd, worker.n_ctx_max, tuple(worker.added_tokens), resolved
            )

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        async with self._using(model, keep_alive_s):
            pass

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
        async with self._using(model) as (used, defaults):
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

    def loaded(self) -> list[LoadedModel]:
        return self._models.loaded()

    @asynccontextmanager
    async def _using(self, name: str, keep_alive_s: float | None = None) -> AsyncIterator[tuple[Model, Defaults]]:
        """The model that a client's name means, loaded if need be, and what the name means for a text."""
        named = await asyncio.to_thread(self._names.resolve, name)
        async with self._models.use(named.located, keep_alive_s) as model:
            yield model, named.defaults

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
            "n_cached_texts": self._n_cached_texts,
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
        await self._models.close(timeout_s)
        await asyncio.to_thread(self._keeping.shutdown)
        if self._cache is not None:
            await asyncio.to_thread(self._cache.close)

    async def _looked_up(
        self, preparation: Preparation, lookup: Lookup, inputs: Sequence[tokenizing.Input]
    ) -> Mapping[int, ReadyText]:
        """The inputs that a cache may have, by their places: none without a cache.

        Raises BadVectorError for a text whose vector is cut to zeros. Leaves out an input that is not text.
        """
        if self._cache is None:
            return {}
        texts = [(n, text) for n, text in enumerate(inputs) if isinstance(text, str) and len(text) <= _LOOKED_UP_MAX]
        ready = await asyncio.to_thread(lookup.all, ready_texts(preparation, texts))
        for text in ready:
            if isinstance(text.known, BadVectorError):
                raise text.known
        self._n_cached_texts += sum(isinstance(text.known, Embedded) for text in ready)
        return {text.place: text for text in ready if not isinstance(text.known, InvalidTextError)}

    async def _decoded(self, model: Model, places: list[int], fitted: list[Fitted], dim: int) -> Vectors:
        """The vectors of the inputs at these places, not yet cut where a cache will keep them."""
        ids, n_shared = [text.ids for text in fitted], [text.n_prefix for text in fitted]
        n_prefix = await asyncio.to_thread(prefixes, ids, n_shared) if len(ids) > 1 else n_shared
        try:
            return await model.queue.decode(ids, dim if self._cache is None else None, n_prefix)
        except BadVectorError as error:
            raise BadVectorError(error.message, places[error.index]) from None


def needed_bytes(path: Path, config: EngineConfig) -> int:
    """Memory to load this file and to compute the first batch. Raises ModelError for a file that cannot run."""
    info = inspect(path)
    chosen = kept.planned(info.digest, config)
    return memory.needed_bytes(info, chosen, config.n_seq_max, config.tap)


class _GoneError(Exception):
    """Nobody waits for this pull any more."""


def _hold_to_vocabulary(ids: list[int], model: Model) -> None:
    n_vocab = model.worker.n_vocab
    wrong = tokenizing.foreign(ids, n_vocab)
    if wrong is not None:
        raise OptionError(f"token id {wrong} is not in the vocabulary of {n_vocab}")


async def _finished(pooled: Vectors, dim: int) -> tuple[Vectors, dict[int, BadVectorError]]:
    """As `finished`, on a thread where the rows are many."""
    return await asyncio.to_thread(finished, pooled, dim) if pooled.size > _LARGE else finished(pooled, dim)


def _merged(
    known: Mapping[int, Embedded], places: list[int], computed: Vectors, fitted: list[Fitted]
) -> tuple[Vectors, list[tuple[int, bool]]]:
    """All vectors, with their token counts and whether they were cut, in the order of the inputs."""
    counts = {place: (len(text.ids), text.truncated) for place, text in zip(places, fitted, strict=True)}
    vectors = computed
    if known:
        vectors = np.empty((len(places) + len(known), computed.shape[1]), np.float32)
        vectors[places] = computed
        for place, embedded in known.items():
            vectors[place] = embedded.vector
            counts[place] = (embedded.prompt_tokens, embedded.truncated)
    return vectors, [counts[place] for place in range(len(counts))]


def _options(request: ServiceRequest, model: Model) -> EmbedRequest:
    """The library's request, without inputs. A `max_tokens` above the model's limit limits nothing."""
    limit = None if request.max_tokens is None else min(request.max_tokens, model.worker.n_ctx_max)
    return EmbedRequest((), request.kind, request.task, request.instruction, request.dim, request.truncate, limit)
