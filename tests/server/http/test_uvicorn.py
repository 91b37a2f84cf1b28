"""What the server overrides and reads of uvicorn's own is there, in the versions that pyproject.toml takes."""

from __future__ import annotations

import asyncio
import inspect
import re
import tomllib

import uvicorn
from paths import ROOT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from q3e_local.server import run
from q3e_local.server.http.connection import Connection

TRIED = ("0.40", "0.54")  # the oldest and the newest
OURS = {"awaits_request", "raise_failure"}


def overridden(ours: type, theirs: type) -> list[str]:
    """Public methods of our class; each must be one of theirs, or known as new."""
    public = [name for name, value in vars(ours).items() if not name.startswith("_") and callable(value)]
    assert [name for name in public if not hasattr(theirs, name)] == [name for name in public if name in OURS]
    return [name for name in public if name not in OURS]


def test_every_method_that_is_overridden_is_still_there_and_takes_the_same() -> None:
    n_overridden = 0
    for ours, theirs in ((Connection, HttpToolsProtocol), (run._Server, uvicorn.Server)):
        for name in overridden(ours, theirs):
            taken, given = (list(inspect.signature(getattr(each, name)).parameters) for each in (ours, theirs))
            assert taken == given, f"{theirs.__name__}.{name}"
            n_overridden += 1
    assert n_overridden == 11


def test_what_is_read_of_a_server_is_still_there() -> None:
    async def app(scope, receive, send) -> None:
        pass

    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    assert (server.should_exit, server.force_exit) == (False, False)
    assert isinstance(server.server_state, ServerState)
    assert server.server_state.connections == set()
    assert callable(HttpToolsProtocol.shutdown)
    assert list(inspect.signature(HttpToolsProtocol).parameters)[:3] == ["config", "server_state", "app_state"]

    async def started() -> None:
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([])
        assert (server.servers, server.lifespan.state) == ([], {})
        connection = HttpToolsProtocol(server.config, server.server_state, {})
        assert connection.transport is None
        assert connection.loop is asyncio.get_running_loop()

    asyncio.run(started())


def test_only_versions_that_were_tried_are_taken() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (pinned,) = [each for each in project["project"]["dependencies"] if each.startswith("uvicorn")]
    oldest, newest = re.fullmatch(r"uvicorn>=([0-9.]+),<([0-9.]+)", pinned).groups()
    major, minor = TRIED[1].split(".")
    assert (oldest, newest) == (TRIED[0], f"{major}.{int(minor) + 1}")
