"""The requests that are being worked on, and their end when a server that stops has no more time: `Running`.

It is here because uvicorn's timeout_graceful_shutdown cancels a task without a word: the client gets a bare 500, and
the log a traceback. Knows ASGI and tasks; nothing of the time that a server has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Message, Receive, Scope, Send

from q3e_local.server.http.refusal import Refusal, Wording, answer

_GIVEN_UP = Refusal(503, "the server is stopping, and this request was not finished")
_LINES = b"application/x-ndjson"


class Request:
    """A request that is being worked on, whose answer goes through `send`.

    `is_read` is set once the body has come; `n_held_bytes` of it are in memory.
    """

    def __init__(self, send: Send) -> None:
        self.is_read, self.n_held_bytes = False, 0
        self._send = send
        self._begun = self._in_lines = False
        self.given_up = False

    @property
    def can_be_told(self) -> bool:
        """Whether an error would still reach the client: the answer has not begun, or it comes in lines of JSON."""
        return not self._begun or self._in_lines

    async def send(self, message: Message) -> None:
        """Send a message of the answer, and remember that the answer has begun."""
        if message["type"] == "http.response.start":
            self._begun = True
            types = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            self._in_lines = any(each.startswith(_LINES) for each in types)
        await self._send(message)

    async def tell(self, scope: Scope, receive: Receive, wording: Wording) -> None:
        """Answer that the request was given up."""
        if not self._begun:
            await answer(scope, receive, self._send, _GIVEN_UP, wording, is_read=self.is_read)
        else:
            body = wording(scope["path"], _GIVEN_UP)
            await self._send({"type": "http.response.body", "body": body + b"\n", "more_body": False})


class Running:
    """The requests that are being worked on, each by a task. `len` counts them."""

    def __init__(self, wording: Wording) -> None:
        self._wording = wording
        self._requests: dict[asyncio.Task[object], Request] = {}

    def __len__(self) -> int:
        return len(self._requests)

    @asynccontextmanager
    async def one(self, scope: Scope, receive: Receive, send: Send) -> AsyncIterator[Request]:
        """Count the request that the block works on. Giving the request up cancels the block."""
        task = asyncio.current_task()
        assert task is not None
        request = self._requests[task] = Request(send)
        try:
            yield request
        except asyncio.CancelledError:
            if not request.given_up:
                raise
            task.uncancel()
            await request.tell(scope, receive, self._wording)
        finally:
            del self._requests[task]

    def give_up(self) -> None:
        """End the work on every request whose client an error still reaches: 503, and when to come back."""
        for task, request in self._requests.items():
            if request.can_be_told and not request.given_up:
                request.given_up = True
                task.cancel()
