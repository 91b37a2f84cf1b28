"""Which settings a model runs with on this machine, and why: given by hand, tuned here, or a default.

Arithmetic on what is known: loads nothing and measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from q3e_local.batching import N_TILE
from q3e_local.engine import EngineConfig, KvType

N_BATCH = 512
# A GPU wants more at once; but a text attends over the masked cells of all others in its batch.
N_BATCH_ON_GPU = 1024

LONG = ("long_flash_attention", "long_kv_type", "long_batch")  # of texts longer than a batch
TUNABLE = ("n_threads", "n_batch", "flash_attention", *LONG)
# The long texts' own settings that are as for batches unless told otherwise.
_AS_FOR_BATCHES = {"long_flash_attention": "flash_attention", "long_batch": "n_batch"}
# How the attention of long texts is computed: two settings that are tried together.
LONG_ATTENTION: dict[str, dict[str, Value]] = {
    "flash f16": {"long_flash_attention": True, "long_kv_type": "f16"},
    "plain f16": {"long_flash_attention": False, "long_kv_type": "f16"},
    "plain bf16": {"long_flash_attention": False, "long_kv_type": "bf16"},
}

Value = int | str
Source = Literal["given", "tuned", "tried", "default"]


@dataclass(frozen=True)
class Host:
    """What defaults depend on, beside the model."""

    n_cores: int  # physical ones that this process may use
    on_gpu: bool = False
    features: frozenset[str] = frozenset()  # of this CPU, that this build of llama.cpp uses: AVX2, AVX512, …


@dataclass(frozen=True)
class Tuned:
    """What was found fastest on this machine, and the last day something was; None was not measured."""

    n_threads: int | None
    n_batch: int | None
    flash_attention: bool | None
    day: str
    long_flash_attention: bool | None = None
    long_kv_type: KvType | None = None
    long_batch: int | None = None


@dataclass(frozen=True)
class Reason:
    """Where a setting comes from: options, `q3e-local tune`, trials in real work, or the default."""

    source: Source
    text: str


@dataclass(frozen=True)
class Settings:
    """How the model runs, and for each of TUNABLE why so."""

    n_threads: int
    n_batch: int
    flash_attention: bool
    long_flash_attention: bool
    long_kv_type: KvType
    long_batch: int
    reasons: Mapping[str, Reason]

    def changed(self, name: str, value: Value, reason: Reason) -> Settings:
        """The same with one of them another."""
        changes: dict[str, Any] = {name: value}
        return replace(self, **changes, reasons={**self.reasons, name: reason})

    @property
    def long_attention(self) -> str:
        """One of LONG_ATTENTION, or `flash bf16`."""
        return f"{'flash' if self.long_flash_attention else 'plain'} {self.long_kv_type}"

    def explained(self, name: str) -> str:
        """One of them in a line, such as `n_batch 512 (default)`."""
        return f"{name} {shown(getattr(self, name))} ({self.reasons[name].text})"


def shown(value: Value) -> str:
    """A setting's value as people read it."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def settle(config: EngineConfig, host: Host, tuned: Tuned | None = None) -> Settings:
    """What is given stands; what is not is as tuned, or else what is known to be good here."""
    settings = defaults(host)
    for name in TUNABLE:
        given, found = getattr(config, name), getattr(tuned, name, None)
        batches = _AS_FOR_BATCHES.get(name, "")
        if given is not None:
            settings = settings.changed(name, given, Reason("given", "given"))
        elif batches and (found is None or getattr(config, batches) is not None):
            settings = _as_for_batches(settings, name, batches)
        elif tuned is not None and found is not None:
            settings = settings.changed(name, found, Reason("tuned", f"tuned on {tuned.day}"))
    return _f16_for_flash(settings)


def defaults(host: Host) -> Settings:
    """What is known to be good on such a machine."""
    texts = {"n_threads": "physical cores", "n_batch": "default", "flash_attention": "default"}
    n_batch = N_BATCH
    if host.on_gpu:
        n_batch = N_BATCH_ON_GPU
        texts |= {"n_batch": "default on a GPU", "flash_attention": "default, where the GPU has it"}
    texts |= dict.fromkeys(_AS_FOR_BATCHES, "as for batches") | {"long_kv_type": "default"}
    reasons = {name: Reason("default", text) for name, text in texts.items()}
    return Settings(host.n_cores, n_batch, True, True, "f16", n_batch, reasons)


def sparing(settings: Settings) -> Settings:
    """Settings that take less memory for long texts; what is given stands."""
    less: dict[str, Value] = {"long_flash_attention": True, "long_batch": min(settings.long_batch, N_BATCH)}
    for name, value in less.items():
        if value != getattr(settings, name) and settings.reasons[name].source != "given":
            settings = settings.changed(name, value, Reason("default", "for want of memory"))
    return _f16_for_flash(settings)


def tried(settings: Settings, setting: str, value: Value, reason: Reason) -> Settings:
    """The same with one setting another, and those of long texts that go with it; or with both of LONG_ATTENTION."""
    if setting == "long_attention":
        for name, one in LONG_ATTENTION[str(value)].items():
            settings = settings.changed(name, one, reason)
        return settings
    settings = settings.changed(setting, value, reason)
    for name, batches in _AS_FOR_BATCHES.items():
        if batches == setting:
            settings = _as_for_batches(settings, name, batches)
    return settings


def other_threads(n_cores: int, n_cpus: int) -> list[int]:
    """Numbers of threads that may be faster than the physical cores: all hyper-threads, or the fast half of cores."""
    hyper_threads = [n_cpus] if n_cpus > n_cores else []
    return hyper_threads + ([n_cores // 2] if n_cores >= 4 else [])


def _as_for_batches(settings: Settings, name: str, batches: str) -> Settings:
    value = getattr(settings, batches)
    value = max(value, N_TILE) if name == "long_batch" else value
    return settings.changed(name, value, Reason(settings.reasons[batches].source, "as for batches"))


def _f16_for_flash(settings: Settings) -> Settings:
    """Flash attention is slow with bf16 on a CPU, so that what was tuned without it does not count."""
    is_given = settings.reasons["long_kv_type"].source == "given"
    if settings.long_flash_attention and settings.long_kv_type == "bf16" and not is_given:
        return settings.changed("long_kv_type", "f16", Reason("default", "default"))
    return settings
