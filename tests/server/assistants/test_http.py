"""/mcp of a server, by the SDK's own client: the same tools, behind the same keys and guards."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from assistants import data, refused
from fake_service import FakeService, served
from mcp import Client
from served_indexes import NOTES
from server_process import KEY, running_server
from servers import served_locally

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def _running(folder: Path) -> Iterator[tuple[str, FakeService]]:
    service = FakeService()
    with served(service, indexes=(str(folder / "notes.q3e"),)) as http:
        yield f"{http.base_url}/mcp".replace("//mcp", "/mcp"), service


@pytest.fixture
def fake(_running: tuple[str, FakeService]) -> FakeService:
    _running[1].reset()
    return _running[1]


@pytest.fixture
def url(_running: tuple[str, FakeService], fake: FakeService) -> str:
    return _running[0]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_old_and_new_clients_have_the_tools(url: str, mode: Any) -> None:
    async with Client(url, mode=mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search", "get", "list_indexes"]
        hits = (await data(client, "search", query="oak", mode="words"))["hits"]
        assert [hit["id"] for hit in hits] == ["oak"]
        assert "is not in this index" in await refused(client, "get", file="/etc/passwd")


async def test_a_client_that_leaves_frees_its_place(url: str, fake: FakeService) -> None:
    async with Client(url) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.call_tool("search", {"query": "wait"}), 0.5)
    assert await asyncio.to_thread(fake.cancelled.wait, 10)


async def test_what_is_being_done_is_told_over_http(url: str) -> None:
    heard: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with Client(url) as client:
        await client.call_tool("search", {"query": "oak"}, progress_callback=hear)
    assert heard == ["loading demo and searching notes"]


async def test_questions_find_by_meaning_on_the_real_service(folder: Path) -> None:
    with served_locally(indexes=(str(folder / "notes.q3e"),), models=("demo-reranker",)) as http:
        async with Client(f"{http.base_url}/mcp".replace("//mcp", "/mcp")) as client:
            found = await data(client, "search", query="what may the kitchen cost?", limit=2, rerank=3)
    assert found["reranker"] == "demo-reranker"
    assert found["hits"][0]["id"] in NOTES
    assert all(hit["rerank"] is not None for hit in found["hits"])


def test_keys_hosts_and_origins_are_those_of_the_server(folder: Path) -> None:
    with running_server(indexes=[str(folder / "notes.q3e")], api_keys=["key"]) as server:
        url = f"{server.url}/mcp"
        with httpx.Client(trust_env=False, headers=ACCEPT) as http:

            def status(method: str = "POST", **headers: str) -> int:
                return http.request(method, url, json=CALL, headers=headers).status_code

            assert status() == 401
            assert status(Authorization="Bearer other") == 401
            assert status(**KEY) == 200
            assert status(**KEY, Host="evil.example") == 403
            assert status(**KEY, Origin="https://evil.example") == 403
            assert status("GET", **KEY) == 405


def test_without_the_sdk_a_request_is_told_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setattr("q3e_local.server.assistants.find_spec", lambda name: None)
    with served(FakeService(), indexes=(str(folder / "notes.q3e"),)) as http:
        answer = http.post("/mcp", json=CALL, headers=ACCEPT)
    assert answer.status_code == 501
    assert "pip install 'q3e-local[mcp]'" in answer.json()["error"]
