"""ASGI as the server's own layers speak it: its types, and a request's headers.

Knows no server and no framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class RequestHeaders:
    """What came with a request; names are in lower case."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = list(raw)

    def first(self, name: bytes) -> bytes:
        """The header's value, empty where there is none."""
        return next((value for key, value in self._raw if key == name), b"")

    def all(self, name: bytes) -> list[bytes]:
        """Its values, where it may come more than once."""
        return [value for key, value in self._raw if key == name]

    @property
    def has_body(self) -> bool:
        """Whether a body comes with the request."""
        return self.first(b"content-length") not in (b"", b"0") or bool(self.first(b"transfer-encoding"))
