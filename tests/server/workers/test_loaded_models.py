"""Models: loaded once and on first use, kept for keep_alive, unloaded to make room, never while in use."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gpus import device
from workers import FakeWorker

from q3e_local.embedding.prompts import Prompts
from q3e_local.errors import ModelFileError
from q3e_local.llama.settings.placement import Placement
from q3e_local.models.installed import Located
from q3e_local.server.errors import QueueFullError, StoppingError
from q3e_local.server.workers.loaded_models import Models
from q3e_local.server.workers.room import Needed, Take

A, B, C = (Located(name, Path(f"{name}.gguf"), Prompts()) for name in ("a", "b", "c"))


class Gpu:
    """A GPU of 200 bytes. `models` are those that it may have: how many layers, and the bytes that each layer takes.

    `off_gpu` are the bytes of the machine's memory that each other layer takes. `asked` are the models for which it
    was asked what is free.
    """

    def __init__(self, models: dict[str, tuple[int, int]]) -> None:
        self.models, self.answers = models, True
        self.off_gpu = 0
        self.workers: list[FakeWorker] = []
        self.asked: list[str] = []

    @property
    def free(self) -> int:
        return 200 - sum(worker.placement.n_bytes for worker in self.workers if not worker.closed)

    async def forecast(self, located: Located) -> Forecast:
        self.asked.append(located.name)
        return Forecast(*self.models.get(located.name, (0, 1)), self.free, not self.answers, self.off_gpu)

    def load(self, worker: FakeWorker) -> None:
        n_layers, each = self.models.get(worker.path.stem, (0, 1))
        if n := min(n_layers, self.free // each):
            worker.placement, worker.on_gpu = Placement(n_layers, n, (device(),), (n,), (n * each,)), True
            worker.n_bytes += n * each
            self.workers.append(worker)


@dataclass(frozen=True)
class Forecast:
    n_layers: int
    each: int
    free: int
    leaves_gpus: bool
    off_gpu: int

    def needed(self, given_back: Iterable[Take]) -> Needed:
        free = self.free + sum(share for _, share in given_back)
        n = min(self.n_layers, free // self.each)
        return Needed(100 + self.off_gpu * (self.n_layers - n), n, n < self.n_layers)


class Worker(FakeWorker):
    """A fake with its layers on a GPU, as far as they fit."""

    def __init__(self, located: Located, gpu: Gpu) -> None:
        super().__init__(located)
        self._gpu = gpu

    def load(self) -> None:
        super().load()
        self._gpu.load(self)


class Site:
    """Models on fake workers, each of 100 bytes of RAM; `made` are the workers in the order they were made."""

    def __init__(self, available: int = 1000, gpu: dict[str, tuple[int, int]] | None = None, **options: Any) -> None:
        self.made: list[FakeWorker] = []
        self.prepare: Callable[[FakeWorker], None] = lambda worker: None
        self.gpu = Gpu(gpu or {})
        self.available = available
        self.models = Models(
            self._make,
            self.gpu.forecast,
            available_bytes=lambda: self.available,
            **{"keep_alive_s": 300.0, "max_loaded": 3, "n_waiting_max": 10} | options,
        )

    def _make(self, located: Located) -> FakeWorker:
        worker = Worker(located, self.gpu)
        self.prepare(worker)
        self.made.append(worker)
        return worker

    async def __aenter__(self) -> Site:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.models.close(1)

    async def use(self, located: Located, keep_alive_s: float | None = None) -> None:
        async with self.models.use(located, keep_alive_s):
            pass

    def names(self) -> list[str]:
        return [model.name for model in self.models.loaded()]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.002)


async def test_many_first_requests_load_once() -> None:
    async with Site() as site:
        await asyncio.gather(*(site.use(A) for _ in range(10)))
        assert [worker.n_loaded for worker in site.made] == [1]
        assert site.models.n_loads == 1
        await site.models.close(1)
        assert site.made[0].closed


async def test_only_so_many_requests_wait_for_a_load() -> None:
    async with Site(n_waiting_max=4) as site:
        site.prepare = lambda worker: worker.go_on.clear()
        tasks = [asyncio.create_task(site.use(A)) for _ in range(6)]
        await site.until(lambda: tasks[4].done() and tasks[5].done())
        site.made[0].go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 4 + [QueueFullError] * 2


async def test_a_failed_load_fails_all_that_wait_and_the_next_request_loads_again() -> None:
    async with Site() as site:

        def broken(worker: FakeWorker) -> None:
            worker.failure = ModelFileError("a.gguf is broken") if not site.made else None

        site.prepare = broken
        results = await asyncio.gather(*(site.use(A) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["a.gguf is broken"] * 3
        assert site.names() == []
        await site.until(lambda: site.made[0].closed)
        await site.use(A)
        assert site.names() == ["a"]


async def test_a_request_that_goes_away_leaves_the_load_to_the_others() -> None:
    async with Site() as site:
        site.prepare = lambda worker: worker.go_on.clear()
        first, second = asyncio.create_task(site.use(A)), asyncio.create_task(site.use(A))
        await site.until(lambda: bool(site.made) and site.made[0].began.is_set())
        first.cancel()
        await asyncio.sleep(0)
        site.made[0].go_on.set()
        await second
        assert site.names() == ["a"]
        with pytest.raises(asyncio.CancelledError):
            await first


@pytest.mark.parametrize(
    ("keep_alives", "left_s"),
    [([], 300), ([None], 300), ([60], 60), ([60, None], 60), ([60, 10], 10), ([-1], None), ([-1, None], None),
     ([float("inf")], None), ([60, -5.0], None), ([-1, 60], 60)],
)  # fmt: skip
async def test_the_last_keep_alive_counts(keep_alives: list[float | None], left_s: float | None) -> None:
    async with Site() as site:
        await site.use(A)
        for keep_alive_s in keep_alives:
            await site.use(A, keep_alive_s)
        (model,) = site.models.loaded()
        if left_s is None:
            assert model.expires_at is None
        else:
            assert left_s - 20 < model.expires_at - time.time() <= left_s


async def test_zero_unloads_when_the_request_ends_and_not_before() -> None:
    async with Site() as site:
        async with site.models.use(A, 0):
            assert site.names() == ["a"]
            await site.use(A)
            assert not site.made[0].closed
        await site.until(lambda: site.made[0].closed)
        assert site.names() == []
        await site.use(A)  # loaded again, with the default keep_alive
        assert len(site.made) == 2
        assert site.names() == ["a"]


async def test_a_model_that_was_stopped_at_work_is_gone_once_its_process_has_ended() -> None:
    ending, ended = threading.Event(), threading.Event()

    def close(worker: FakeWorker) -> None:
        ending.set()
        assert ended.wait(60)
        FakeWorker.close(worker)

    async with Site() as site:
        site.prepare = lambda worker: setattr(worker, "close", lambda: close(worker))
        async with site.models.use(A):
            await site.models.unload("a")
            assert not await site.models.gone("a", 0)
        await site.until(ending.is_set)
        assert not site.models.has("a")  # a request that comes now loads the model again
        assert not await site.models.gone("a", 0)
        waiting = asyncio.ensure_future(site.models.gone("a", 60))
        ended.set()
        assert await waiting
        assert site.made[0].closed
        assert await site.models.gone("a", 0)


async def test_the_timer_unloads_and_starts_anew_after_each_request() -> None:
    async with Site(keep_alive_s=0.05) as site:
        await site.use(A)
        async with site.models.use(A):
            await asyncio.sleep(0.15)  # longer than keep_alive
            assert site.names() == ["a"]
        await site.until(lambda: site.made[0].closed)
        assert len(site.made) == 1


async def test_unloading_by_name() -> None:
    async with Site() as site:
        await site.models.unload("a")  # not loaded: fine
        await site.use(A)
        await site.models.unload("a")
        assert site.made[0].closed
        assert site.names() == []
        async with site.models.use(A) as model:
            await site.models.unload("a")
            assert not site.made[1].closed
            assert (await model.queue.decode([[1, 256]])).shape == (1, 64)
        await site.until(lambda: site.made[1].closed)


async def test_a_load_nobody_waits_for_any_more_can_be_unloaded() -> None:
    async with Site() as site:
        site.prepare = lambda worker: worker.go_on.clear()
        waits = asyncio.create_task(site.use(A))
        behind = asyncio.create_task(site.use(B))  # waits for its turn to load
        await site.until(lambda: len(site.made) == 2 and site.made[0].began.is_set())
        for task in (waits, behind):
            task.cancel()
        await asyncio.gather(waits, behind, return_exceptions=True)
        await site.models.unload("b")
        await site.models.unload("a")
        assert all(worker.closed for worker in site.made)
        site.prepare = lambda worker: None
        await site.use(A)
        assert site.names() == ["a"]


async def test_the_longest_unused_makes_room_for_a_new_one() -> None:
    async with Site(max_loaded=2) as site:
        for located in (A, B, A, C):
            await site.use(located)
        assert set(site.names()) == {"a", "c"}
        assert [worker.closed for worker in site.made] == [False, True, False]


async def test_models_at_work_are_not_unloaded_to_make_room() -> None:
    async with Site(max_loaded=1) as site:
        async with site.models.use(A):
            with pytest.raises(QueueFullError, match=r"no room for b.*--max-loaded is 1") as refused:
                await site.use(B)
            assert refused.value.retry_after_s >= 1
            assert site.names() == ["a"]
        await site.use(B)
        assert site.names() == ["b"]


async def test_a_model_whose_process_died_is_not_in_memory_and_makes_room_first() -> None:
    async with Site(max_loaded=2) as site:
        for located in (A, B):
            await site.use(located)
        site.made[1].is_running = False
        assert site.names() == ["a"]
        await site.use(C)
        assert set(site.names()) == {"a", "c"}


async def test_loads_and_unloads_are_logged_with_their_reasons(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "q3e_local.server")

    async with Site(max_loaded=1, keep_alive_s=0.01) as site:
        await site.use(A)
        await site.until(lambda: site.made[0].closed)
        await site.use(A, 60)
        await site.use(B, 60)
        await site.models.unload("b")
        await site.use(A, 0)
        await site.models.close(1)
        lines = [re.sub(r"\d+\.\d\d s", "N s", record.getMessage()) for record in caplog.records]
        assert lines == [
            "loaded a in N s: its first use",
            "unloaded a: unused for N s",
            "loaded a in N s: it was unloaded before (unused for N s)",
            "unloaded a: to make room for b",
            "loaded b in N s: its first use",
            "unloaded b: as asked",
            "loaded a in N s: it was unloaded before (to make room for b)",
            "unloaded a: not to be kept",
        ]


async def test_memory_makes_room_as_well() -> None:
    async with Site(available=250) as site:
        for located in (A, B, C):  # 100 bytes each: two fit
            await site.use(located)
        assert set(site.names()) == {"b", "c"}
        async with site.models.use(B), site.models.use(C):
            with pytest.raises(QueueFullError, match="are needed"):
                await site.use(A)


async def test_a_model_that_is_not_used_leaves_the_gpu_to_one_that_does_not_fit_beside_it() -> None:
    async with Site(gpu={"a": (15, 10), "b": (15, 10)}) as site:
        await site.use(C)  # on the CPU, and so in nobody's way
        await site.use(A)
        async with site.models.use(A):
            await site.use(B)  # which gets a part of the GPU
            assert site.made[2].placement.n_on_gpu == 5
            assert set(site.names()) == {"a", "b", "c"}
        await site.models.unload("b")
        await site.use(B)
        assert site.made[3].placement.all_on_gpu
        assert set(site.names()) == {"b", "c"}


async def test_gpus_are_asked_once_for_each_model_that_is_loaded() -> None:
    """A process was started for it before each model that was unloaded, and after the last."""
    async with Site(gpu={"a": (5, 10), "b": (5, 10), "c": (20, 10)}) as site:
        for located in (A, B, C, C):
            await site.use(located)
        assert (site.names(), site.gpu.asked) == (["c"], ["a", "b", "c"])


async def test_only_as_many_models_leave_the_gpu_as_must_and_the_longest_unused_first() -> None:
    async with Site(gpu={"a": (5, 10), "b": (5, 10), "c": (15, 10)}) as site:
        for located in (A, B, A, C):
            await site.use(located)
        assert set(site.names()) == {"a", "c"}
    async with Site(gpu={"a": (2, 10), "b": (18, 10), "c": (18, 10)}) as site:
        for located in (A, B, C):  # the longest unused one would not be enough, and is not in the way
            await site.use(located)
        assert set(site.names()) == {"a", "c"}


async def test_no_model_leaves_the_gpu_for_one_that_gets_no_more_of_it_by_that() -> None:
    """All that were not used left it, and the new one went to the CPU all the same."""
    async with Site(gpu={"a": (10, 10), "b": (2, 10), "c": (3, 210)}) as site:
        for located in (A, B, C):
            await site.use(located)
        assert set(site.names()) == {"a", "b", "c"}
        assert not site.made[2].on_gpu


async def test_a_model_is_loaded_for_the_cpu_where_no_gpu_answers() -> None:
    async with Site(gpu={"a": (10, 10)}) as site:
        await site.use(A)
        site.gpu.answers = False
        await site.use(B)
        assert [worker.leaves_gpus for worker in site.made] == [False, True]


async def test_a_model_that_left_the_gpu_counts_with_the_memory_that_it_takes_now() -> None:
    async with Site(available=320, gpu={"a": (10, 10)}) as site:
        await site.use(A)
        (a,) = site.made
        a.placement, a.n_bytes = a.placement.on_cpu("for want of GPU memory"), 200
        await site.use(B)
        assert set(site.names()) == {"a", "b"}
        await site.use(C)  # beside b alone
        assert set(site.names()) == {"b", "c"}


async def test_a_model_that_leaves_the_gpu_saves_the_next_one_memory_of_the_machine() -> None:
    """The next one was refused as if its layers would be in the machine's memory then, too."""
    async with Site(available=210, gpu={"a": (15, 10), "c": (15, 10)}) as site:
        site.gpu.off_gpu = 20
        await site.use(A)
        async with site.models.use(B):
            await site.use(C)  # 5 of its layers would fit beside a, and the others take 200 bytes
            assert set(site.names()) == {"b", "c"}
            assert site.made[2].placement.all_on_gpu


async def test_what_models_at_work_keep_costs_no_other_model_its_memory() -> None:
    """The one that was not used was unloaded, and then there was no room all the same."""
    async with Site(available=250) as site:
        await site.use(B)
        async with site.models.use(A):
            site.available = 90
            with pytest.raises(
                QueueFullError, match=r"^no room for c beside the models at work: 0\.00 GB are needed"
            ):
                await site.use(C)
            assert set(site.names()) == {"a", "b"}


async def test_a_model_alone_may_try_whatever_the_memory() -> None:
    async with Site(available=1) as site:
        await site.use(A)
        assert site.names() == ["a"]


async def test_a_name_that_means_another_file_now_gets_that() -> None:
    async with Site() as site:
        await site.use(A)
        await site.use(Located("a", Path("other.gguf"), Prompts()))
        await site.until(lambda: site.made[0].closed)
        assert site.made[1].path == Path("other.gguf")
        assert site.names() == ["a"]


async def test_a_model_whose_file_turned_bad_is_looked_at_again_by_the_next_request() -> None:
    async with Site() as site:
        with pytest.raises(ModelFileError):
            async with site.models.use(A):
                raise ModelFileError("another file")
        await site.until(lambda: site.made[0].closed)
        await site.use(A)
        assert len(site.made) == 2


async def test_closing_ends_loads_and_refuses_new_requests() -> None:
    async with Site() as site:
        await site.use(B)
        site.prepare = lambda worker: worker.go_on.clear()
        loading, waiting = asyncio.create_task(site.use(A)), asyncio.create_task(site.use(C))
        await site.until(lambda: len(site.made) == 3 and site.made[1].began.is_set())
        await site.models.close(1)
        results = await asyncio.gather(loading, waiting, return_exceptions=True)
        assert all(isinstance(result, Exception) for result in results), results
        assert all(worker.closed for worker in site.made)
        with pytest.raises(StoppingError):
            await site.use(A)


async def test_counters_outlive_the_model() -> None:
    async with Site() as site:
        for _ in range(2):
            async with site.models.use(A, 0) as model:
                await model.queue.decode([[1, 256], [2, 256]])
            await site.until(lambda: site.made[-1].closed)
        assert site.models.counters["a"].texts == 4
