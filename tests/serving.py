"""Fixtures for tests of the wire: one real server for a module, its fake service fresh for each test."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fake_service import FakeService, served


@pytest.fixture(scope="module")
def _running() -> Iterator[tuple[FakeService, httpx.Client]]:
    service = FakeService()
    with served(service, max_items=50) as client:
        yield service, client


@pytest.fixture
def fake(_running: tuple[FakeService, httpx.Client]) -> FakeService:
    """The service behind the server; 50 items are the limit of a request."""
    _running[0].reset()
    return _running[0]


@pytest.fixture
def http(_running: tuple[FakeService, httpx.Client], fake: FakeService) -> httpx.Client:
    """A client that has the server's address."""
    return _running[1]


@pytest.fixture
def address(http: httpx.Client) -> str:
    """The server's address, for a client of another make."""
    return str(http.base_url).rstrip("/")
