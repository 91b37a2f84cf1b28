"""Cores and memory as the operating system states them, in files of the test's own making."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from command import write

from q3e_local import machine

GB = 10**9


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Linux machine of 8 CPUs on 4 cores with 16 GB, 10 GB of them free, and no cgroup limit."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "none")
    monkeypatch.setattr(machine, "_CPUS", tmp_path / "cpu")
    monkeypatch.setattr(machine, "_allowed_cpus", lambda: list(range(8)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GB, available=10 * GB))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    siblings = {f"cpu{cpu}/topology/thread_siblings_list": f"{cpu % 4},{cpu % 4 + 4}\n" for cpu in range(8)}
    write(tmp_path / "cpu", siblings)
    return tmp_path


# Cores


def test_logical_cpus_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(machine, "_allowed_cpus", lambda: [0, 1, 2, 3, 4, 5])
    monkeypatch.setattr(machine, "_cgroup_quota", lambda: None)
    assert machine.logical_cpus() == 6
    monkeypatch.setattr(machine, "_cgroup_quota", lambda: 2.5)
    assert machine.logical_cpus() == 3


@pytest.mark.parametrize(
    ("cpus", "n_cores"), [(range(8), 4), ([0], 1), ([0, 4], 1), ([0, 1], 2), ([1, 2, 5], 2), ([4, 5, 6, 7], 4)]
)
def test_hyper_threads_of_one_core_count_once_among_the_allowed_cpus(system, monkeypatch, cpus, n_cores):
    monkeypatch.setattr(machine, "_allowed_cpus", lambda: list(cpus))
    assert machine.physical_cores() == n_cores


@pytest.mark.parametrize(
    ("files", "n_cores"),
    [
        ({"cpu.max": "max 100000\n"}, 4),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),  # one and a half: two threads use it up
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "800000 100000\n"}, 4),
        ({"cpu.max": "nonsense\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, 4),
    ],
)
def test_a_cgroup_quota_lowers_the_cores(system, files, n_cores):
    write(system / "cgroup", files)
    assert machine.physical_cores() == n_cores


def test_without_sibling_lists_cpus_count_up_to_the_known_cores(system, monkeypatch):
    monkeypatch.setattr(machine, "_CPUS", system / "nothing")
    assert machine.physical_cores() == 4
    monkeypatch.setattr(machine, "_allowed_cpus", lambda: [0, 1])
    assert machine.physical_cores() == 2


@pytest.mark.parametrize(
    ("performance", "physical", "logical", "n_cores"), [(6, 10, 10, 6), (0, 4, 8, 4), (0, None, 8, 8)]
)
def test_without_affinity_the_fast_cores_count_or_all(system, monkeypatch, performance, physical, logical, n_cores):
    monkeypatch.setattr(machine, "_allowed_cpus", lambda: None)
    monkeypatch.setattr(machine, "_sysctl", lambda name, value: type(value)(performance))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: physical)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: logical)
    assert machine.physical_cores() == n_cores


# Memory


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        ({}, 16, 10),
        ({"memory.max": "max\n"}, 16, 10),
        ({"memory.max": f"{4 * GB}\n", "memory.current": f"{GB}\n"}, 4, 3),
        # Page cache counts against the limit, but is given up when needed.
        (
            {
                "memory.max": f"{4 * GB}\n",
                "memory.current": f"{3 * GB}\n",
                "memory.stat": f"inactive_file {2 * GB}\n",
            },
            4,
            3,
        ),
        ({"memory.max": f"{4 * GB}\n", "memory.current": f"{5 * GB}\n"}, 4, 0),
        ({"memory.max": f"{64 * GB}\n", "memory.current": f"{GB}\n"}, 16, 10),
        ({"memory/memory.limit_in_bytes": f"{4 * GB}\n", "memory/memory.usage_in_bytes": f"{GB}\n"}, 4, 3),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 16, 10),  # v1's way to say: no limit
    ],
)
def test_a_cgroup_limit_lowers_the_memory(system, files, total, available):
    write(system / "cgroup", files)
    assert machine.total_memory() == total * GB
    assert machine.available_memory() == available * GB


# This machine


@pytest.mark.parametrize(
    ("limit", "usable"), [("max", 16 * GB - 2**30), (str(4 * GB), 4 * GB), (str(64 * GB), 16 * GB - 2**30)]
)
def test_a_program_can_have_a_cgroups_limit_whole_and_of_a_machine_what_the_system_leaves(system, limit, usable):
    write(system / "cgroup", {"memory.max": f"{limit}\n", "memory.current": f"{3 * GB}\n"})
    assert machine.usable_memory() == usable


def test_this_machine_has_at_least_a_core_and_less_free_than_total_memory():
    assert 1 <= machine.physical_cores() <= (psutil.cpu_count() or 1)
    assert 0 < machine.available_memory() <= machine.total_memory()


def test_the_limits_of_nested_groups_hold(system, monkeypatch):
    groups = system / "self-cgroup"
    groups.write_text("0::/user.slice/app.scope\n", encoding="utf-8")
    monkeypatch.setattr(machine, "_OWN_CGROUPS", groups)
    write(
        system / "cgroup",
        {
            "user.slice/memory.max": "4000000000",
            "user.slice/memory.current": "1000000000",
            "user.slice/app.scope/memory.max": "max",
            "user.slice/app.scope/cpu.max": "150000 100000",
            "user.slice/cpu.max": "max 100000",
        },
    )
    assert (machine.total_memory(), machine.available_memory()) == (4_000_000_000, 3_000_000_000)
    assert machine.physical_cores() == 2


# Name


def test_the_cpu_has_a_name_wherever_it_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPU_INFO", file)
    file.write_text("processor\t: 0\nmodel name\t: Some  CPU @ 3 GHz\nprocessor\t: 1\n")
    assert machine.cpu_name() == "Some CPU @ 3 GHz"
    file.write_text("processor\t: 0\n")  # ARM names no model here
    assert machine.cpu_name()
    file.unlink()
    assert machine.cpu_name()


# GPUs


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of PCI devices")
def test_who_made_the_gpus_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_PCI", tmp_path)
    assert machine.gpu_makers() == []
    devices = {
        "0000:00:02.0": ("0x030000", "0x8086"),  # a graphics unit of Intel's
        "0000:01:00.0": ("0x030200", "0x10de"),  # a card of NVIDIA's without a display
        "0000:01:00.1": ("0x040300", "0x10de"),  # and its sound
        "0000:02:00.0": ("0x030000", "0x10de"),  # a second card
        "0000:03:00.0": ("0x020000", "0x1002"),  # a network of AMD's
        "0000:04:00.0": ("0x030000", "0x1234"),  # the display of a virtual machine
    }
    write(tmp_path, {f"{at}/class": f"{kind}\n" for at, (kind, _) in devices.items()})
    write(tmp_path, {f"{at}/vendor": f"{vendor}\n" for at, (_, vendor) in devices.items()})
    (tmp_path / "0000:05:00.0").mkdir()  # that says nothing of itself
    assert machine.gpu_makers() == ["Intel", "NVIDIA"]
