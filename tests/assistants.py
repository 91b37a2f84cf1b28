"""Assistants of tests: the SDK's own client, on the tools in this process or on a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fake_service import FakeService
from mcp import Client, types

from q3e_local.server.assistants.protocol import protocol_server
from q3e_local.server.assistants.tools import Tools
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.settings import ServerSettings


@asynccontextmanager
async def assistant(*indexes: Path, service: FakeService | None = None, mode: str = "auto") -> AsyncIterator[Client]:
    """A client of the tools on these indexes, and on a service that is a fake unless another is given."""
    settings = ServerSettings(indexes=tuple(map(str, indexes)))
    with Indexes(settings) as opened:
        server = protocol_server(Tools(service or FakeService(), opened, settings))
        async with Client(server, mode=mode) as client:
            yield client


async def data(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured part of an answer, which the client has held to the tool's schema."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, said(result)
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """The sentence of an error."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is None
    return said(result)


def said(result: types.CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text
