"""/mcp of a server: the tools over streamable HTTP, one request at a time, behind the server's own guard.

Knows ASGI and the SDK's transport. Hosts, origins and keys are checked by http/guard.py before a request comes here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from q3e_local.errors import MissingPackageError
from q3e_local.server.assistants import need_sdk
from q3e_local.server.assistants.tools import Tools

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

PATH = "/mcp"


class Endpoint:
    """The ASGI app of /mcp. The SDK is imported when the first request comes, which takes a second."""

    def __init__(self, tools: Tools, max_body_bytes: int) -> None:
        self._tools, self._max_body_bytes = tools, max_body_bytes
        self._server: Server[Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._server is None:
            try:
                self._server = await asyncio.to_thread(self._made)
            except MissingPackageError as error:
                await JSONResponse({"error": str(error)}, 501)(scope, receive, send)
                return
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
        from mcp.server.transport_security import TransportSecuritySettings

        # A manager for each request: without sessions nothing lasts longer than a request, and what a request has
        # started ends with it.
        manager = StreamableHTTPSessionManager(
            self._server,
            stateless=True,
            max_request_body_size=self._max_body_bytes,
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        async with manager.run():
            await manager.handle_request(scope, receive, send)

    def _made(self) -> Server[Any]:
        need_sdk()
        from q3e_local.server.assistants.protocol import protocol_server

        return protocol_server(self._tools)
