"""llama-server's command lines: its defaults, and the best flags, found by trying.

Flags are tried one kind after the other, each on the best of those before. Sizes follow the text: llama-server
refuses a text that is longer than its physical batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comparison.workloads import WORKLOADS, Workload

# Workloads that share flags, and the one they are tried on.
TRIED_ON = {"short": "clients-64", "batch": "128", "long": "2048"}
_CLASSES = {"16": "short", "queries": "short", "128": "batch", "512": "batch", "2048": "long", "8192": "long"}


@dataclass(frozen=True)
class Choice:
    """Flags of each kind. `n_batch` 0 and `n_parallel` 0 are llama-server's own, 512 and 4 that share one cache."""

    compute: tuple[str, ...] = ("--no-repack", "-fa", "on")
    n_batch: int = 0
    n_parallel: int = 0
    unified: bool = True
    cache: tuple[str, ...] = ()

    def flags(self, n_tokens: int) -> list[str]:
        """For texts of `n_tokens`."""
        found = list(self.compute)
        if self.n_batch or n_tokens > 512:
            n_batch = str(max(self.n_batch, n_tokens))
            found += ["-b", n_batch, "-ub", n_batch]
        if self.n_parallel:
            found += ["-np", str(self.n_parallel), *(["-kvu"] if self.unified and self.n_parallel > 1 else [])]
        # Cells for all that is at work at once; its own default is the model's 32,768, gigabytes of them.
        n_at_once = self.n_parallel or (4 if n_tokens <= 512 else 2)
        n_ctx = max(2048, n_at_once * -(-n_tokens // 256) * 256)
        return [*found, "-c", str(n_ctx), *self.cache]


KINDS: dict[str, tuple[list[dict[str, Any]], ...]] = {
    "short": (
        [{"compute": one} for one in (("-fa", "on"), ("--no-repack", "-fa", "off"))],
        [{"n_batch": 256}, {"n_batch": 1024}],
        [{"n_parallel": 1}, {"n_parallel": 16}, {"n_parallel": 16, "unified": False}, {"n_parallel": 64}],
        [{"cache": ("--cache-ram", "0")}, {"cache": ("--cache-ram", "0", "--no-cache-prompt")}],
    ),
    "batch": (
        [{"compute": one} for one in (("-fa", "on"), ("--no-repack", "-fa", "off"))],
        [{"n_batch": 1024}, {"n_batch": 2048}],
        [{"n_parallel": 1}, {"n_parallel": 8}, {"n_parallel": 8, "unified": False}],
        [{"cache": ("--cache-ram", "0")}, {"cache": ("--cache-ram", "0", "--no-cache-prompt")}],
    ),
    "long": (
        [
            {"compute": one}
            for one in (
                ("-fa", "on"),
                ("--no-repack", "-fa", "off"),
                ("--no-repack", "-fa", "off", "-ctk", "bf16", "-ctv", "bf16"),
            )
        ],
        [{"n_parallel": 1}],
        [{"cache": ("--cache-ram", "0", "--no-cache-prompt")}],
    ),
}


def class_of(workload: Workload) -> str:
    return "short" if workload.n_clients else _CLASSES[workload.name]


def defaults(server: Path, model: Path, n_tokens: int) -> list[str]:
    """As its own documentation says to embed, with batches raised where a text would be refused."""
    raised = ["-b", str(n_tokens), "-ub", str(n_tokens)] if n_tokens > 512 else []
    return [str(server), "-m", str(model), "--embedding", "--pooling", "last", *raised]


def best(server: Path, model: Path, n_tokens: int, choice: Choice) -> list[str]:
    return [str(server), "-m", str(model), "--embedding", "--pooling", "last", *choice.flags(n_tokens)]


def search(name: str, speed: Callable[[Choice], float]) -> tuple[Choice, list[dict[str, Any]]]:
    """The best choice for a class of workloads, and all that was tried; `speed` is texts a second, 0 if it fails."""
    n_tokens = WORKLOADS[TRIED_ON[name]].n_tokens
    winner = Choice()
    fastest = speed(winner)
    tries = [{"flags": winner.flags(n_tokens), "texts_per_s": fastest}]
    for kind in KINDS[name]:
        found = _kind(winner, fastest, kind, speed, tries, n_tokens)
        winner, fastest = found
    return winner, tries


def _kind(
    winner: Choice,
    fastest: float,
    changes: Sequence[dict[str, Any]],
    speed: Callable[[Choice], float],
    tries: list[dict[str, Any]],
    n_tokens: int,
) -> tuple[Choice, float]:
    before = winner
    for change in changes:
        choice = replace(before, **change)
        got = speed(choice)
        tries.append({"flags": choice.flags(n_tokens), "texts_per_s": got})
        if got > fastest:
            winner, fastest = choice, got
    return winner, fastest
