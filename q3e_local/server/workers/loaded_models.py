"""Which models are in memory, and for how long: `Models`.

Loads a model on its first use, unloads it after keep_alive or to make room for another model. Knows how to load and
close workers, and which prompts their models have; nothing of the names of clients.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from q3e_local import machine
from q3e_local.errors import ModelError, WrongKindError
from q3e_local.models.installed import Located
from q3e_local.server.errors import QueueFullError, StoppingError
from q3e_local.server.service import LoadedModel
from q3e_local.server.workers.batch_queue import BatchQueue
from q3e_local.server.workers.counters import Counters
from q3e_local.server.workers.entry import Entry
from q3e_local.server.workers.model import Model
from q3e_local.server.workers.room import Forecast, Take, in_the_way, lack
from q3e_local.server.workers.worker import WorkerEngine

logger = logging.getLogger(__name__)

_RETRY_S = 5  # when all room is taken by models at work


class Models:
    """The models of a server. Call everything on the server's event loop."""

    def __init__(
        self,
        make_worker: Callable[[Located], WorkerEngine],
        forecast: Callable[[Located], Awaitable[Forecast]],
        *,
        keep_alive_s: float,
        max_loaded: int,
        n_waiting_max: int,
        available_bytes: Callable[[], int] = machine.available_memory,
    ) -> None:
        self._make_worker, self._forecast, self._available = make_worker, forecast, available_bytes
        self._keep_alive_s, self._max_loaded, self._n_waiting_max = keep_alive_s, max_loaded, n_waiting_max
        self._entries: dict[str, Entry] = {}
        self._closing: set[Entry] = set()  # no longer in `_entries`, and not yet gone
        self._one_at_a_time = asyncio.Lock()
        self._stopping = False
        self.counters: dict[str, Counters] = {}  # by model; kept when the model is unloaded
        self.n_loads = 0
        self._n_restarts = self._n_deaths = 0  # of workers that are gone
        self._unloaded: dict[str, str] = {}  # why, by model

    @property
    def n_restarts(self) -> int:
        """How often a worker's process was started again after it had died."""
        return self._n_restarts + sum(entry.worker.n_restarts for entry in self._entries.values())

    @property
    def n_deaths(self) -> int:
        """How often a worker's process ended although nobody had closed the worker."""
        return self._n_deaths + sum(entry.worker.n_deaths for entry in self._entries.values())

    @asynccontextmanager
    async def use(self, located: Located, keep_alive_s: float | None = None) -> AsyncIterator[Model]:
        """The model, loaded if need be, and kept at least until the block ends.

        `keep_alive_s` holds from now on; None leaves the model's as it is. Raises what loading raises, and
        QueueFullError when models at work take all the room, or too many requests wait for this model.
        """
        if self._stopping:
            raise StoppingError
        entry = self._entry(located)
        if not entry.loading.done() and entry.n_users >= self._n_waiting_max:  # they are not in the model's queue yet
            raise QueueFullError(f"{entry.n_users} requests wait for {entry.name} already; try again in 1 s", 1)
        if keep_alive_s is not None:
            entry.keep_alive_s = keep_alive_s
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        entry.n_users += 1
        try:
            # A request that is cancelled does not stop the load: others may wait for it.
            yield await asyncio.shield(entry.loading)
        except ModelError as error:
            # Its file is broken, or another file now: the next request looks again. A request that wants another kind
            # of model says nothing against the file.
            if not (isinstance(error, WrongKindError) and entry.is_loaded):
                self._forget(entry)
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if entry.loading.cancelled() and task is not None and not task.cancelling():
                raise StoppingError from None
            raise
        finally:
            entry.n_users -= 1
            self._rest(entry)

    async def unload(self, name: str) -> None:
        """Free a model's memory. A model in use is freed when its last request ends; this call does not wait then."""
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.keep_alive_s = 0
        if entry.n_users == 0:
            await asyncio.shield(self._close(entry, "as asked"))

    def has(self, name: str) -> bool:
        """Whether a model is in memory, or on its way there."""
        return name in self._entries

    async def gone(self, name: str, wait_s: float) -> bool:
        """Wait, at most `wait_s`, until a model that is being unloaded is out of memory; whether it is."""
        leaving = [entry for entry in (*self._entries.values(), *self._closing) if entry.name == name]
        try:
            async with asyncio.timeout(wait_s):
                for entry in leaving:
                    await entry.gone.wait()
        except TimeoutError:
            return False
        return True

    def loaded(self) -> list[LoadedModel]:
        """The models in memory, longest remaining time first; a model in use has all of its time left.

        A model whose process has died is missing until it is loaded again.
        """
        now, clock = time.time(), asyncio.get_running_loop().time()
        models = []
        for entry in self._entries.values():
            if entry.is_loaded and entry.worker.is_running:
                left = entry.keep_alive_s if entry.timer is None else entry.timer.when() - clock
                expires_at = None if entry.for_ever else now + left
                worker = entry.worker
                models.append(
                    LoadedModel(
                        name=entry.name,
                        kind=worker.kind,
                        size_bytes=worker.n_bytes,
                        n_ctx=worker.n_ctx_max,
                        expires_at=expires_at,
                        placement=worker.placement,
                        kernels=worker.kernels,
                    )
                )
        return sorted(
            models, key=lambda model: math.inf if model.expires_at is None else model.expires_at, reverse=True
        )

    async def look(self, timeout_s: float) -> None:
        """Ask GPUs for the memory that they have free now; one that does not answer in time keeps its last figure."""
        workers = [entry.worker for entry in self._entries.values() if entry.is_loaded and entry.worker.on_gpu]
        looks = [asyncio.create_task(asyncio.to_thread(worker.look)) for worker in workers]
        if looks:
            await asyncio.wait(looks, timeout=timeout_s)

    async def close(self, timeout_s: float) -> None:
        """Finish what takes at most `timeout_s`, refuse the rest, and free all memory."""
        self._stopping = True
        for entry in list(self._entries.values()):
            self._close(entry, "the server stops", timeout_s)
        while self._closing:
            await self._all_closed()

    def _entry(self, located: Located) -> Entry:
        entry = self._entries.get(located.name)
        if entry is not None and (entry.located.path, entry.located.kind) != (located.path, located.kind):
            self._forget(entry)  # the name means another file now, or the user says another thing of it
            self._rest(entry)
            entry = None
        if entry is None:
            worker = self._make_worker(located)
            entry = self._entries[located.name] = Entry(located, worker, self._keep_alive_s)
            loop = asyncio.get_running_loop()
            entry.loading = loop.create_task(self._load(entry), name=f"load {located.name}")
        return entry

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.name) is entry:
            del self._entries[entry.name]

    def _rest(self, entry: Entry) -> None:
        """Start a model's timer when no request uses the model any more."""
        if entry.n_users or entry.closing:
            return
        loop = asyncio.get_running_loop()
        entry.used_at = loop.time()
        if self._entries.get(entry.name) is not entry:
            self._close(entry, "its file changed or cannot be loaded")
        elif entry.keep_alive_s == 0:
            self._close(entry, "not to be kept")
        elif not entry.for_ever:
            why = f"unused for {entry.keep_alive_s:g} s"
            entry.timer = loop.call_later(entry.keep_alive_s, self._close, entry, why)

    def _close(self, entry: Entry, why: str, timeout_s: float = 0.0) -> asyncio.Task[None]:
        """Begin to unload a model; a request that comes now loads the model again."""
        self._forget(entry)
        if entry.timer is not None:
            entry.timer.cancel()
        if entry.closing is None:
            entry.closing = asyncio.get_running_loop().create_task(
                self._closed(entry, why, timeout_s), name=f"unload {entry.name}"
            )
            self._closing.add(entry)
            entry.closing.add_done_callback(lambda _: self._is_gone(entry))
        return entry.closing

    def _is_gone(self, entry: Entry) -> None:
        self._closing.discard(entry)
        entry.gone.set()

    async def _all_closed(self) -> None:
        await asyncio.gather(*(entry.gone.wait() for entry in self._closing))

    async def _closed(self, entry: Entry, why: str, timeout_s: float) -> None:
        if entry.is_loaded:
            await entry.loading.result().queue.close(timeout_s)
        await asyncio.to_thread(entry.worker.close)
        entry.loading.cancel()  # of a load that waits for its turn; closing the worker ended any other load
        await asyncio.wait([entry.loading])
        if entry.is_loaded:
            await entry.loading.result().queue.close(0)
            logger.info("unloaded %s: %s", entry.name, why)
            self._unloaded[entry.name] = why
        self._n_restarts += entry.worker.n_restarts
        self._n_deaths += entry.worker.n_deaths

    async def _load(self, entry: Entry) -> Model:
        began = time.monotonic()
        try:
            async with self._one_at_a_time:
                await self._make_room(entry)
                entry.takes_room = True
                await asyncio.to_thread(entry.worker.load)
        except BaseException:
            self._forget(entry)
            raise
        self.n_loads += 1
        before = self._unloaded.get(entry.name)
        why = f"it was unloaded before ({before})" if before else "its first use"
        logger.info("loaded %s in %.2f s: %s", entry.name, time.monotonic() - began, why)
        counters = self.counters.setdefault(entry.name, Counters())
        queue = BatchQueue(entry.worker, self._n_waiting_max, counters)
        located = entry.located
        return Model(entry.name, entry.worker, located.prompts, queue, located.rerank_prompts)

    async def _make_room(self, entry: Entry) -> None:
        """Unload models that no request uses until there is room for this model; none in vain.

        GPUs are asked once, which starts a process; what models give back of them meanwhile is reckoned.
        """
        while True:
            await self._all_closed()
            forecast = await self._forecast(entry.located)
            if not self._closing:
                break
        if forecast.leaves_gpus:
            entry.worker.leave_gpus()
        given_back: list[Take] = []
        while leaving := self._leaving(entry, forecast, given_back):
            for other in leaving:
                given_back += other.taken
                self._close(other, f"to make room for {entry.name}")
            await self._all_closed()

    def _leaving(self, entry: Entry, forecast: Forecast, given_back: list[Take]) -> list[Entry]:
        """Who must go first to make room for this model. Raises QueueFullError where that would not be enough."""
        needed = forecast.needed(given_back)
        entry.planned_bytes = needed.ram_bytes
        others = [other for other in self._entries.values() if other.takes_room]
        unused = sorted(
            (other for other in others if other.n_users == 0),
            key=lambda other: (other.worker.is_running, other.used_at),
        )
        available = self._available()
        if lack(needed, [other.ram_bytes for other in others], self._max_loaded, available) is None:
            # Where others are at work, a part of the layers goes to the CPU.
            return in_the_way(forecast, given_back, unused, lambda other: other.taken) if needed.is_short else []
        at_work = [other.ram_bytes for other in others if other.n_users]
        # The most that the system and its GPUs can get back: with more layers on a GPU this model needs less memory
        # of the machine.
        available += sum(other.ram_bytes for other in unused)
        least = forecast.needed([*given_back, *(take for other in unused for take in other.taken)])
        if why := lack(least, at_work, self._max_loaded, available):
            raise QueueFullError(
                f"no room for {entry.name} beside the models at work: {why}; try again in {_RETRY_S} s", _RETRY_S
            )
        return unused[:1]
