"""What tests of commands share that embed many times: a folder of their own, and the demo model, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import demo


@pytest.fixture
def demo_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the test runs in. Every command finds the model loaded, and uses no cache."""
    embedder = demo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_MODEL", "demo")
    monkeypatch.setenv("Q3E_CACHE", "off")
    monkeypatch.setattr(embedder, "close", lambda: None)
    monkeypatch.setattr("q3e_local.load", lambda model, **options: embedder)
    return tmp_path
