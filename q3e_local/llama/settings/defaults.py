"""Which settings a model runs with on this machine, and why: given by hand, tuned here, or a default.

Arithmetic on what is known: loads nothing and measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from q3e_local.embedding.engine import EngineConfig

N_BATCH = 512
# A GPU wants more at once; but each text of a batch also attends over the masked cells of the other texts.
N_BATCH_ON_GPU = 1024
# Weights are unpacked once for all tokens of a batch, and products in tiles take little longer than that.
N_BATCH_IN_TILES = 1024
IN_TILES = "amx"  # of our variants

# Where a GPU has all layers, the CPU only looks up the row of each token. A batch of N_BATCH_ON_GPU takes one core 3
# to 9 ms (rows of 4B and 8B, on an Intel Xeon): more threads would all wake up for a part of a millisecond.
N_THREADS_BESIDE_GPU = 4

TUNABLE = ("n_threads", "n_batch")

Source = Literal["given", "tuned", "tried", "default"]


@dataclass(frozen=True)
class Host:
    """What defaults depend on, beside the model."""

    n_cores: int  # physical ones that this process may use
    on_gpu: bool = False
    all_on_gpu: bool = False  # and no layer is left to the CPU
    kernels: str | None = None  # our variant that computes on the CPU; None: llama.cpp's own, or not known yet


@dataclass(frozen=True)
class Tuned:
    """The settings that were fastest on this machine, and the day of the latest tuning; None was not measured."""

    n_threads: int | None
    n_batch: int | None
    day: str
    n_gpu_layers: int | None = None  # 0: the CPU was faster than this GPU


@dataclass(frozen=True)
class Reason:
    """Where a setting comes from: options, `q3e-local tune`, trials in real work, or the default."""

    source: Source
    text: str


@dataclass(frozen=True)
class Settings:
    """How the model runs, and the reason for each of TUNABLE."""

    n_threads: int
    n_batch: int
    reasons: Mapping[str, Reason]

    def changed(self, name: str, value: int, reason: Reason) -> Settings:
        """The same settings but for this value."""
        changes: dict[str, Any] = {name: value}
        return replace(self, **changes, reasons={**self.reasons, name: reason})

    def explained(self, name: str) -> str:
        """A setting in a line, such as `n_batch 512 (default)`."""
        return f"{name} {getattr(self, name)} ({self.reasons[name].text})"


def settle(config: EngineConfig, host: Host, tuned: Tuned | None = None) -> Settings:
    """Each setting as the config gives it, or else as it was tuned, or else the default."""
    settings = defaults(host)
    for name in TUNABLE:
        by_config, by_tuning = getattr(config, name), getattr(tuned, name, None)
        if by_config is not None:
            settings = settings.changed(name, by_config, Reason("given", "given"))
        elif tuned is not None and by_tuning is not None:
            settings = settings.changed(name, by_tuning, Reason("tuned", f"tuned on {tuned.day}"))
    return settings


def defaults(host: Host) -> Settings:
    """The settings that are good on such a machine."""
    n_batch, text = N_BATCH, "default"
    if host.on_gpu:
        n_batch, text = N_BATCH_ON_GPU, "default on a GPU"
    elif host.kernels == IN_TILES:
        n_batch, text = N_BATCH_IN_TILES, "default with AMX"
    n_threads, why = host.n_cores, "physical cores"
    if host.all_on_gpu and host.n_cores > N_THREADS_BESIDE_GPU:
        n_threads, why = N_THREADS_BESIDE_GPU, "enough beside a GPU that has all layers"
    return Settings(n_threads, n_batch, {"n_threads": Reason("default", why), "n_batch": Reason("default", text)})


def other_threads(n_cores: int, n_cpus: int) -> list[int]:
    """Numbers of threads that may be faster than the physical cores: all hyper-threads, or the fast half of cores."""
    hyper_threads = [n_cpus] if n_cpus > n_cores else []
    return hyper_threads + ([n_cores // 2] if n_cores >= 4 else [])
