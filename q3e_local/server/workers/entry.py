"""A model of a server, from its first request until it is out of memory: `Entry`.

Knows who uses it, for how long it is kept and what it takes; loaded_models.py loads and unloads it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from q3e_local.models.installed import Located
from q3e_local.server.workers.model import Model
from q3e_local.server.workers.room import Take
from q3e_local.server.workers.worker import WorkerEngine

_FOREVER_S = 1e9


@dataclass(eq=False)
class Entry:
    """A model in memory or on its way there. A model in use has no timer."""

    located: Located
    worker: WorkerEngine
    keep_alive_s: float
    loading: asyncio.Task[Model] = field(init=False)
    takes_room: bool = False
    planned_bytes: int = 0  # of the machine's memory
    n_users: int = 0
    used_at: float = 0.0  # on the loop's clock
    timer: asyncio.TimerHandle | None = None
    closing: asyncio.Task[None] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return self.located.name

    @property
    def is_loaded(self) -> bool:
        return self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None

    @property
    def ram_bytes(self) -> int:
        """What it takes of the machine's memory: more than was planned, where a GPU refused memory since."""
        if not self.is_loaded:
            return self.planned_bytes
        placement = self.worker.placement
        return self.worker.n_bytes - (0 if placement.is_unified else placement.n_bytes)

    @property
    def taken(self) -> list[Take]:
        """What it has of GPUs."""
        return self.worker.placement.takes if self.is_loaded and self.worker.is_running else []

    @property
    def for_ever(self) -> bool:
        return self.keep_alive_s < 0 or self.keep_alive_s > _FOREVER_S
