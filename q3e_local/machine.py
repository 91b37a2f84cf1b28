"""What this process may use of the machine: cores and memory.

Knows the operating system, nothing of models.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once: affinity and cgroup quota respected. At least 1."""
    allowed = _allowed_cpus()
    if allowed is None:
        n_cores = _performance_cores() or psutil.cpu_count(logical=False) or os.cpu_count() or 1
    else:
        n_cores = _distinct_cores(allowed)
    quota = _cgroup_quota()
    return max(1, n_cores if quota is None else min(n_cores, math.ceil(quota)))


def available_memory() -> int:
    """Bytes that can be taken without swapping, the cgroup's limit respected."""
    available = int(psutil.virtual_memory().available)
    limit, used = _cgroup_number("memory.max", "memory/memory.limit_in_bytes"), _cgroup_used()
    return available if limit is None else max(0, min(available, limit - used))


def total_memory() -> int:
    """Bytes of memory in all, the cgroup's limit respected."""
    total = int(psutil.virtual_memory().total)
    limit = _cgroup_number("memory.max", "memory/memory.limit_in_bytes")
    return total if limit is None else min(total, limit)


def _allowed_cpus() -> list[int] | None:
    try:
        return list(psutil.Process().cpu_affinity())
    except (AttributeError, OSError):  # macOS has no affinity
        return None


def _distinct_cores(cpus: list[int]) -> int:
    """Hyper-threads of one core share a sibling list; without that file each CPU counts, up to the known cores."""
    cores = set()
    for cpu in cpus:
        try:
            cores.add((_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip())
        except OSError:
            return min(len(cpus), psutil.cpu_count(logical=False) or len(cpus))
    return len(cores)


def _performance_cores() -> int | None:
    """Apple's fast cores: the slow ones would make every step wait."""
    if sys.platform != "darwin":
        return None
    import ctypes

    count, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    sysctl = ctypes.CDLL(None).sysctlbyname
    failed = sysctl(b"hw.perflevel0.physicalcpu", ctypes.byref(count), ctypes.byref(size), None, ctypes.c_size_t(0))
    return None if failed else count.value


def _cgroup_quota() -> float | None:
    """CPUs' worth of time per second, from cgroup v2 or v1."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        quota_us = _cgroup_number(None, "cpu/cpu.cfs_quota_us")
        period_us = _cgroup_number(None, "cpu/cpu.cfs_period_us")
        return quota_us / period_us if quota_us and period_us and quota_us > 0 else None
    return None if quota == "max" else int(quota) / int(period)


def _cgroup_used() -> int:
    """Bytes counted against the limit that cannot simply be dropped: page cache can."""
    used = _cgroup_number("memory.current", "memory/memory.usage_in_bytes") or 0
    for name in ("memory.stat", "memory/memory.stat"):
        try:
            fields = dict(line.split() for line in (_CGROUP / name).read_text(encoding="ascii").splitlines())
        except (OSError, ValueError):
            continue
        return used - int(fields.get("inactive_file", 0))
    return used


def _cgroup_number(v2: str | None, v1: str) -> int | None:
    for name in (v2, v1):
        try:
            text = (_CGROUP / name).read_text(encoding="ascii").strip() if name else ""
        except OSError:
            continue
        if text.lstrip("-").isdigit():
            # cgroup v1 writes "no limit" as a number near 2**63
            return int(text) if int(text) < 2**60 else None
    return None
