"""What this process may use of the machine, cores and memory, and what it has used.

Knows the operating system, nothing of models.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
_PCI = Path("/sys/bus/pci/devices")
# PCI's numbers of those who make GPUs, https://pci-ids.ucw.cz
_GPU_MAKERS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_SYSTEM_BYTES = 1 << 30  # about what an operating system takes while no program is open


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once: affinity and cgroup quota respected. At least 1."""
    allowed = _allowed_cpus()
    if allowed is not None:
        return _within_quota(_distinct_cores(allowed))
    # The slow cores of Apple's would make every step wait.
    n_fast = int(_sysctl(b"hw.perflevel0.physicalcpu", ctypes.c_int(0)).value)
    return _within_quota(n_fast or psutil.cpu_count(logical=False) or os.cpu_count() or 1)


def logical_cpus() -> int:
    """CPUs this process may use, each hyper-thread counted: affinity and cgroup quota respected. At least 1."""
    allowed = _allowed_cpus()
    return _within_quota((os.cpu_count() or 1) if allowed is None else len(allowed))


def available_memory() -> int:
    """Bytes that can be taken without swapping, cgroup limits respected."""
    available = int(psutil.virtual_memory().available)
    group = _cgroup_memory()
    return available if group is None else max(0, min(available, group[0] - group[1]))


def total_memory() -> int:
    """Bytes of memory in all, cgroup limits respected."""
    total = int(psutil.virtual_memory().total)
    group = _cgroup_memory()
    return total if group is None else min(total, group[0])


def usable_memory() -> int:
    """Bytes for a program while no other is open: all memory without the system's, or a cgroup's limit."""
    usable = max(0, int(psutil.virtual_memory().total) - _SYSTEM_BYTES)
    group = _cgroup_memory()
    return usable if group is None else min(usable, group[0])


def peak_memory() -> int:
    """Bytes of memory this process held at most, pages of mapped files included."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def activity(pid: int) -> tuple[float, int] | None:
    """Seconds of CPU time that a process has used, and the bytes it has read and written; None where that is hidden.

    The bytes include those of mapped files that were read from a disk on Linux; macOS counts pages read instead.
    """
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        if hasattr(process, "io_counters"):
            counted = process.io_counters()
            n_bytes = counted.read_bytes + counted.write_bytes
        else:
            n_bytes = getattr(process.memory_info(), "pageins", 0)
    except (psutil.Error, OSError):
        return None
    return times.user + times.system, n_bytes


def cpu_name() -> str:
    """What the maker calls this CPU, or its architecture."""
    if sys.platform == "linux":
        try:
            lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            key, _, name = line.partition(":")
            if key.strip() == "model name" and name.strip():
                return " ".join(name.split())
    brand: bytes = _sysctl(b"machdep.cpu.brand_string", ctypes.create_string_buffer(256)).value
    return brand.decode("utf-8", "replace") or platform.processor() or platform.machine()


def gpu_makers() -> list[str]:
    """Who made the GPUs of this machine: NVIDIA, AMD, Intel or Apple. Empty also where the system does not say it."""
    if sys.platform == "darwin":
        return ["Apple"] if platform.machine() == "arm64" else []
    if sys.platform == "win32":  # which has NVIDIA's library where its driver is installed
        library = Path(os.environ.get("SYSTEMROOT", "C:\\Windows"), "System32", "nvcuda.dll")
        return ["NVIDIA"] if library.exists() else []
    makers = []
    for device in sorted(_PCI.glob("*")):
        try:
            kind, vendor = ((device / name).read_text(encoding="ascii").strip() for name in ("class", "vendor"))
        except OSError:
            continue
        if kind.startswith("0x03") and vendor in _GPU_MAKERS:  # PCI's class of display controllers
            makers.append(_GPU_MAKERS[vendor])
    return list(dict.fromkeys(makers))


def _sysctl(name: bytes, value: Any) -> Any:
    """Fill this C value with what macOS says under a name; elsewhere, and where it has no such name, leave it."""
    if sys.platform == "darwin":
        size = ctypes.c_size_t(ctypes.sizeof(value))
        ctypes.CDLL(None).sysctlbyname(name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return value


def _allowed_cpus() -> list[int] | None:
    try:
        return list(psutil.Process().cpu_affinity())
    except (AttributeError, OSError):  # macOS has no affinity
        return None


def _distinct_cores(cpus: list[int]) -> int:
    """Hyper-threads of a core share a sibling list. Without that file each CPU counts, up to the known cores."""
    cores = set()
    for cpu in cpus:
        try:
            cores.add((_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip())
        except OSError:
            return min(len(cpus), psutil.cpu_count(logical=False) or len(cpus))
    return len(cores)


def _within_quota(n_cpus: int) -> int:
    quota = _cgroup_quota()
    return max(1, n_cpus if quota is None else min(n_cpus, math.ceil(quota)))


def _cgroup_quota() -> float | None:
    """CPUs' worth of time per second, the least of any group this process is in."""
    quotas = []
    for folder in _cgroups("cpu"):
        try:
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        except (OSError, ValueError):
            quota, period = str(_number(folder / "cpu.cfs_quota_us")), str(_number(folder / "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroup_memory() -> tuple[int, int] | None:
    """Limit and use in bytes of the group that leaves least, or None where nothing limits."""
    limits = []
    for folder in _cgroups("memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        # cgroup v1 writes "no limit" as a number near 2**63.
        if limit is not None and limit < 2**60:
            limits.append((limit, _used(folder)))
    return min(limits, key=lambda group: group[0] - group[1], default=None)


def _used(folder: Path) -> int:
    """Bytes that count against a limit, without page cache, which the system drops when memory is short."""
    used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
    try:
        fields = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return used
    return used - int(fields.get("inactive_file", 0))


def _cgroups(controller: str) -> list[Path]:
    """The folders of this process's groups, v2 and v1, from its own up to the root of each hierarchy."""
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    folders = [_CGROUP, _CGROUP / controller]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUP / controller if controllers else _CGROUP
        innermost = PurePosixPath(path.lstrip("/"))
        folders += [root / group for group in (innermost, *innermost.parents)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.lstrip("-").isdigit() else None
