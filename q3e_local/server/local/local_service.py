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
from q3e_local.embedding.preparing import Fitted, Preparation
from q3e_local.embedding.prompts import Kind
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.errors import BadVectorError, InvalidTextError, ModelError, OptionError
from q3e_local.gguf.model_file import inspect
from q3e_local.llama.settings import kept, memory
from q3e_local.server.local import tokenizing
from q3e_local.server.served_names import ServedNames
from q3e_local.server.service import Described, LoadedModel, ServiceRequest, ServiceResult, Stopped
from q3e_local.server.settings import ServerSettings
from q3e_local.server.workers.loaded_models import Model, Models
from q3e_local.server.workers.worker import FailedLoads, Worker, WorkerEngine
from q3e_local.vectors import Vectors

# Numbers above which cutting and scaling would hold up the event loop.
_LARGE = 1_000_000
# Characters of a text that is looked up in the cache: normalizing a longer text would hold up all requests.
_LOOKED_UP_MAX = 1_000_000
_CLOSE_S = 5.0
_PULLS_MAX = 4  # at once; others wait


class LocalService:
    """Serves models of this machine, each in a process of its own. Use it on one event loop, and close it."""

    def __init__(
        self,
        settings: ServerSettings,
        config: EngineConfig | None = None,
        make_worker: Callable[[Path], Worker] | None = None,
    ) -> None:
        engine_config, failed = config or EngineConfig(self_tuning=True), FailedLoads()
        self._names = ServedNames(settings)
        self._cache = open_cache(settings.cache)
        # No request waits until its vectors are in the cache.
        self._keeping = ThreadPoolExecutor(1, thread_name_prefix="q3e-cache")
        self._n_cached_texts = 0  # that were not computed
        # Apart from the threads that all requests share: a hub that is silent holds each pull's thread for long.
        self._pulling = ThreadPoolExecutor(_PULLS_MAX, thread_name_prefix="q3e-pull")
        self._models = Models(
            make_worker or (lambda path: WorkerEngine(path, engine_config, failed=failed)),
            lambda path: needed_bytes(path, engine_config),
            keep_alive_s=settings.keep_alive_s,
            max_loaded=settings.max_loaded,
            n_waiting_max=settings.max_queue,
        )

    async def embed(self, request: ServiceRequest) -> ServiceResult:
        """Load the model if need be, then embed. Cancelling the call gives its place in the queue back.

        A `max_tokens` above the model's own limit limits nothing. Raises what loading raises, OptionError,
        TextError with the place of the input, and the errors of server.errors.
        """
        began = time.perf_counter()
        named = await asyncio.to_thread(self._names.resolve, request.model)
        async with self._models.use(named.located, request.keep_alive_s) as model:
            load_s = time.perf_counter() - began
            preparation = model.prepare(_options(request, model), named.defaults)
            lookup = Lookup(preparation, self._cache)
            texts = await self._looked_up(preparation, lookup, request.inputs)
            known = {place: text.known for place, text in texts.items() if isinstance(text.known, Embedded)}
            places = [place for place in range(len(request.inputs)) if place not in known]
            model.queue.check(len(places))
            fitted = await tokenizing.fitted(model, preparation, [(place, request.inputs[place]) for place in places])
            pooled = await self._decoded(model, places, fitted, preparation.terms.dim)
        rows = [row for row, place in enumerate(places) if place in texts]
        if rows:
            keys = [(texts[places[row]].digest, fitted[row]) for row in rows]
            self._keeping.submit(lookup.keep, pooled[rows], keys)
        computed, bad = await _finished(pooled, preparation.terms.dim)
        if bad:
            row = min(bad)
            raise BadVectorError(bad[row].message, places[row])
        vectors, counts = _merged(known, places, computed, fitted)
        return ServiceResult(
            vectors=vectors,
            prompt_tokens=tuple(n_tokens for n_tokens, _ in counts),
            truncated=tuple(truncated for _, truncated in counts),
            model=model.name,
            space=preparation.terms.space,
            load_s=load_s,
            total_s=time.perf_counter() - began,
        )

    async def describe(self, request: ServiceRequest) -> Described:
        """Load the model if need be, and hold the request's options to it as `embed` does. Reads no inputs."""
        named = await asyncio.to_thread(self._names.resolve, request.model)
        async with self._models.use(named.located, request.keep_alive_s) as model:
            worker = model.worker
            return Described(
                model.name, worker.digest, worker.n_embd, worker.n_ctx_max, tuple(worker.added_tokens),
                model.prepare(_options(request, model), named.defaults).terms,
            )  # fmt: skip

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        """Load without embedding."""
        named = await asyncio.to_thread(self._names.resolve, model)
        async with self._models.use(named.located, keep_alive_s):
            pass

    async def unload(self, model: str) -> None:
        """Free a model's memory, at once or when the last request that uses it ends. Does not wait for that end."""
        try:
            name = await self._full_name(model)
        except ModelError:  # what is no model takes no memory
            return
        await self._models.unload(name)

    async def stop(self, model: str, wait_s: float) -> Stopped:
        """Unload, and wait up to `wait_s` until it is out of memory. Raises ModelError for what is no model."""
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
        """Ids as the model sees them: normalized, special-token text parsed.

        With a `kind`, the instruction that `embed` puts before a text of this kind is before it here too.
        """
        named = await asyncio.to_thread(self._names.resolve, model)
        async with self._models.use(named.located) as used:
            prefix = "" if kind is None else used.prepare(EmbedRequest((), kind), named.defaults).terms.prefix
            ids = await tokenizing.whole(used, text, prefix)
            return [*ids, used.worker.eos_id] if add_end_token else ids

    async def count_tokens(self, model: str, texts: tuple[str, ...]) -> list[int]:
        """How many ids `tokenize` gives for each text without an end token. Raises TextError with its place."""
        named = await asyncio.to_thread(self._names.resolve, model)
        async with self._models.use(named.located) as used:
            return await tokenizing.counts(used, texts)

    async def detokenize(self, model: str, ids: list[int]) -> str:
        """The text of these ids, special tokens written out. Raises OptionError for an id that no token has."""
        async with self._of_vocabulary(model, ids) as used:
            return await tokenizing.text_of(used, ids)

    async def pieces(self, model: str, ids: list[int]) -> list[bytes]:
        """The bytes of each of these ids, special tokens written out. Raises OptionError as `detokenize`."""
        async with self._of_vocabulary(model, ids) as used:
            return await used.call(used.worker.pieces, ids)

    @asynccontextmanager
    async def _of_vocabulary(self, model: str, ids: list[int]) -> AsyncIterator[Model]:
        named = await asyncio.to_thread(self._names.resolve, model)
        async with self._models.use(named.located) as used:
            wrong = tokenizing.foreign(ids, used.worker.n_vocab)
            if wrong is not None:
                raise OptionError(f"token id {wrong} is not in the vocabulary of {used.worker.n_vocab}")
            yield used

    def loaded(self) -> list[LoadedModel]:
        """What is in memory, longest remaining time first."""
        return self._models.loaded()

    async def pull(self, name: str, progress: Callable[[Any], None]) -> None:
        """Bring a model here, as `q3e-local pull`; `progress` gets pull.Step from another thread.

        Cancelling stops it at the next step; what came so far is kept for the next time.
        """
        gone = threading.Event()

        def report(step: object) -> None:
            if gone.is_set():
                raise _GoneError
            progress(step)

        def bring() -> None:
            from q3e_local.models import pull as pulling  # the network is loaded when it is needed

            with suppress(_GoneError):
                pulling.pull(*self._names.to_pull(name), progress=report)

        try:
            await asyncio.get_running_loop().run_in_executor(self._pulling, bring)
        finally:
            gone.set()

    def counters(self) -> dict[str, float]:
        """What was counted since the start, over all models."""
        of_all = self._models.counters.values()
        return {
            "n_batches": sum(each.batches for each in of_all),
            "n_computed_texts": sum(each.texts for each in of_all),
            "n_computed_tokens": sum(each.tokens for each in of_all),
            "n_cached_texts": self._n_cached_texts,
            "n_shared_texts": sum(each.shared for each in of_all),
            "n_failed_texts": sum(each.failed for each in of_all),
            "n_refused": sum(each.refused for each in of_all),
            "decode_seconds": sum(each.seconds for each in of_all),
            "n_queued": sum(each.waiting for each in of_all),
            "n_loads": self._models.n_loads,
            "n_worker_restarts": self._models.n_restarts,
            "n_worker_deaths": self._models.n_deaths,
        }

    async def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Finish what runs within `timeout_s`, refuse the rest, and free all memory."""
        await self._models.close(timeout_s)
        await asyncio.to_thread(self._keeping.shutdown)
        if self._cache is not None:
            await asyncio.to_thread(self._cache.close)

    async def _looked_up(
        self, preparation: Preparation, lookup: Lookup, inputs: Sequence[tokenizing.Input]
    ) -> Mapping[int, ReadyText]:
        """The inputs that a cache may have, by their places: none without a cache.

        Raises BadVectorError for a text whose vector is cut to zeros. Leaves what is no text to the tokenizing.
        """
        if self._cache is None:
            return {}
        texts = [(n, text) for n, text in enumerate(inputs) if isinstance(text, str) and len(text) <= _LOOKED_UP_MAX]
        found = await asyncio.to_thread(lookup.all, ready_texts(preparation, texts))
        for text in found:
            if isinstance(text.known, BadVectorError):
                raise text.known
        self._n_cached_texts += sum(isinstance(text.known, Embedded) for text in found)
        return {text.place: text for text in found if not isinstance(text.known, InvalidTextError)}

    async def _decoded(self, model: Model, places: list[int], fitted: list[Fitted], dim: int) -> Vectors:
        """What the model answers to the inputs at these places, at the model's own dim if a cache will have it."""
        ids, n_shared = [text.ids for text in fitted], [text.n_prefix for text in fitted]
        n_prefix = await asyncio.to_thread(prefixes, ids, n_shared) if len(ids) > 1 else n_shared
        try:
            return await model.queue.decode(ids, dim if self._cache is None else None, n_prefix)
        except BadVectorError as error:
            raise BadVectorError(error.message, places[error.index]) from None


def needed_bytes(path: Path, config: EngineConfig) -> int:
    """Memory to load this file and to begin with. Raises ModelError for a file that cannot run."""
    info = inspect(path)
    chosen = kept.planned(info.digest, config)
    return memory.needed_bytes(info, chosen, config.n_seq_max, config.tap)


class _GoneError(Exception):
    """Nobody waits for this pull any more."""


async def _finished(pooled: Vectors, dim: int) -> tuple[Vectors, dict[int, BadVectorError]]:
    """Cut and scaled rows, as `finished`; on a thread where they are many."""
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
    """The request as the library has it, without its inputs."""
    limit = None if request.max_tokens is None else min(request.max_tokens, model.worker.n_ctx_max)
    return EmbedRequest((), request.kind, request.task, request.instruction, request.dim, request.truncate, limit)
