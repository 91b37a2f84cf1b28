"""The models that a server loads at its start, and `/health` until they are in memory.

Knows the service's `load` and `warm_up`, and llama-server's answer while it loads; nothing of how models are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from q3e_local.server.http import logs
from q3e_local.server.http.refusal import OPEN_PATHS
from q3e_local.server.service import Service


class Preload:
    """Loads `models` one after the other. A request that needs one of them meanwhile waits for the load."""

    def __init__(self, service: Service, models: Sequence[str]) -> None:
        self._service, self._left = service, list(models)

    async def load(self) -> None:
        """Load all models. Raises what Service.load raises for the first model that fails."""
        while self._left:
            logs.LOGGER.info("loading %s, asked for at the start", self._left[0])
            await self._service.load(self._left[0], None)
            await self._service.warm_up(self._left[0])
            del self._left[0]

    def route(self, app: ASGIApp) -> ASGIApp:
        """The app, with `/health` answered here while something is left to load."""

        async def routed(scope: Scope, receive: Receive, send: Send) -> None:
            if not self._left or scope["path"] not in OPEN_PATHS:
                await app(scope, receive, send)
                return
            error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
            state = {"status": "loading model", "healthy": False, "loading": self._left, "error": error}
            response = JSONResponse(state, 503, {"retry-after": "1"}, "application/json; charset=utf-8")
            await response(scope, receive, send)

        return routed
