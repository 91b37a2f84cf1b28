"""What the server uses of uvicorn is there, in the versions that pyproject.toml takes."""

from __future__ import annotations

import asyncio
import inspect
import re
import tomllib

import httptools
import pytest
import uvicorn
from paths import ROOT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from q3e_local.server.http.connection import Connection

TRIED = ("0.32.1", "0.54")  # the oldest and the newest
# The methods that httptools.HttpRequestParser calls of the object that it is made with.
OF_THE_PARSER = {"on_message_begin", "on_url", "on_header", "on_headers_complete"}


def test_a_connection_overrides_callbacks_of_asyncio_and_of_the_parser_alone() -> None:
    public = {name: value for name, value in vars(Connection).items() if not name.startswith("_") and callable(value)}
    assert len(public) == 8
    assert set(public) <= OF_THE_PARSER | set(dir(asyncio.Protocol))
    for name, ours in public.items():
        overridden = getattr(HttpToolsProtocol, name)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(overridden).parameters)


async def never_called(scope, receive, send) -> None:
    raise AssertionError


@pytest.fixture
def config() -> uvicorn.Config:
    config = uvicorn.Config(never_called, lifespan="off", log_config=None)
    config.load()
    return config


async def test_the_parser_of_a_connection_calls_the_connection(config: uvicorn.Config) -> None:
    """uvicorn's class hands itself to the parser: if it handed over another object, no override would be called."""
    state = uvicorn.Server(config).server_state
    connection = Connection(config=config, server_state=state, app_state={})
    connection.parser.feed_data(b"GET / HTTP/1.1\r\nhost: b\r\n")
    with pytest.raises(httptools.HttpParserError):
        connection.parser.feed_data(b"x: " + b"y" * 70_000 + b"\r\nz: 1\r\n")


async def test_a_server_has_the_steps_that_are_called(config: uvicorn.Config) -> None:
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([])
    assert (server.servers, server.server_state.connections) == ([], set())
    server.should_exit = server.force_exit = True
    await asyncio.wait_for(server.main_loop(), 10)
    await asyncio.wait_for(server.shutdown([]), 10)


def test_the_oldest_version_that_is_taken_was_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (pinned,) = [each for each in project["project"]["dependencies"] if each.startswith("uvicorn")]
    (oldest,) = re.fullmatch(r"uvicorn>=([0-9.]+),<1", pinned).groups()
    assert oldest == TRIED[0]
