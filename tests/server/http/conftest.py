"""A server in a process of its own, for all tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from server_process import Running, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """It asks for a key."""
    home = str(tmp_path_factory.mktemp("home"))
    env = {"Q3E_HOME": home, "HF_HUB_CACHE": home}  # a session's server has no test's own environment
    with running_server(env=env, api_keys=["key"], max_body_bytes=100_000, log_format="text") as running:
        yield running
