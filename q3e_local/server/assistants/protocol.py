"""The tools as a server of the Model Context Protocol, on the protocol's official SDK.

Knows the SDK's types: tools, results, progress, errors; nothing of what a tool does, nor of transports.
"""

from __future__ import annotations

import logging
from typing import Any

from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from q3e_local import __version__
from q3e_local.errors import Q3EError, TextError
from q3e_local.server.assistants.answers import UNTRUSTED
from q3e_local.server.assistants.tools import Tool, Tools
from q3e_local.server.dialects.failures import failure_of

logger = logging.getLogger(__name__)

_INSTRUCTIONS = (
    "Search in the user's own files, which q3e-local has indexed on this machine. Start with search; read on with "
    f"get; list_indexes says what there is. Nothing here changes a file. {UNTRUSTED}"
)
_HINTS = types.ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)


def protocol_server(tools: Tools) -> Server[Any]:
    """A server that has these tools. One is enough for all connections."""

    async def list_tools(
        context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=list(map(_described, tools.all)))

    async def call_tool(
        context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        if not tools.has(params.name):
            there_are = ", ".join(tool.name for tool in tools.all)
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:100]!r}; there are {there_are}")
        try:
            answer = await tools.call(params.name, params.arguments or {}, context.session.report_progress)
        except Exception as error:
            if not isinstance(error, Q3EError):
                logger.exception("the tool %s failed", params.name)
            return types.CallToolResult(content=[_text(_sentence(error))], is_error=True)
        return types.CallToolResult(content=[_text(answer.text)], structured_content=dict(answer.data))

    return Server(
        "q3e-local",
        version=__version__,
        title="Search in your files",
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _described(tool: Tool) -> types.Tool:
    takes = tool.takes.schema() | {"additionalProperties": False}
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=takes,
        output_schema=dict(tool.gives),
        annotations=_HINTS,
    )


def _sentence(error: Exception) -> str:
    # The query is the only text that a tool embeds.
    return f"query {error.message}" if isinstance(error, TextError) else failure_of(error).message


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)
