"""What the tests of `doctor` share: a machine with room, whose native code is looked at in this process."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from findings import InThisProcess

from q3e_local import machine
from q3e_local.checks import doctor
from q3e_local.llama import binding


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory and disk enough, whatever the machine the tests run on has."""
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "q3e"))
    for name, n_bytes in {"total": 16e9, "usable": 15e9, "available": 8e9}.items():
        monkeypatch.setattr(machine, f"{name}_memory", lambda n_bytes=n_bytes: int(n_bytes))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(50e9)))
    monkeypatch.setattr(binding, "system_info", lambda: "CPU : AVX2 = 1")


@pytest.fixture
def quick(roomy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, and native code is looked at in this process."""
    monkeypatch.setattr(doctor, "Child", InThisProcess)
