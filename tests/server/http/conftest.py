"""A server in another process, for all tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from server_process import Running, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """It asks for a key."""
    home = str(tmp_path_factory.mktemp("home"))
    env = {"Q3E_HOME": home, "HF_HUB_CACHE": home}  # it starts before a test's environment is set
    with running_server(env=env, api_keys=["key"], max_body_bytes=100_000, log_format="text") as running:
        yield running
