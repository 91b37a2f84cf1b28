"""Where this program keeps things of its own: platform folders, or all of them below `Q3E_HOME`.

Knows names of folders only; creates none.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_APP = "q3e-local"


def data_folder() -> Path:
    """Models made or downloaded here, and what is known of imported ones."""
    return _below_home("data") or platformdirs.user_data_path(_APP, appauthor=False)


def config_folder() -> Path:
    """What the user writes: cards and names (`config.toml`) of their own, a service's keys (`serve.env`)."""
    return _below_home("config") or platformdirs.user_config_path(_APP, appauthor=False)


def state_folder() -> Path:
    """What can be found out again: which files were checked, what was tuned, what llama.cpp can do; and locks."""
    return _below_home("state") or platformdirs.user_state_path(_APP, appauthor=False)


def cache_folder() -> Path:
    """What saves work and may be deleted at any time: vectors that were computed before."""
    return _below_home("cache") or platformdirs.user_cache_path(_APP, appauthor=False)


def _below_home(name: str) -> Path | None:
    home = os.environ.get("Q3E_HOME")
    return Path(home).expanduser() / name if home else None
