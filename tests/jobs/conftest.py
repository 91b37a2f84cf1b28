"""Where the jobs' commands run: an empty folder for each test, the demo model, no cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in {"Q3E_MODEL": "demo", "Q3E_CACHE": "off", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path
