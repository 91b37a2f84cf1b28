"""What can go wrong between a request and the engine, beyond the library's own errors.

Q3EError
└── ServerError
    ├── QueueFullError      too much waits already; `retry_after_s` says when to come back
    ├── WorkerDiedError     the model's process ended while it worked on this request
    ├── StoppingError       the server is shutting down
    ├── UnknownIndexError   the server was started with no index of this name
    ├── IndexUnusableError  an index that was there at the start is not now, or is damaged
    └── RebuiltError        an index got vectors of another model or dim while a query was embedded for it
"""

from __future__ import annotations

from q3e_local.errors import Q3EError


class ServerError(Q3EError):
    """Base of what only a server meets."""


class QueueFullError(ServerError):
    """Too much waits already."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WorkerDiedError(ServerError):
    """The model's process ended while it worked on this request; the next request gets a new one."""


class StoppingError(ServerError):
    """The server is shutting down."""


class UnknownIndexError(ServerError):
    """The server was started with no index of this name."""


class IndexUnusableError(ServerError):
    """An index that was there at the start is not now, or is damaged."""


class RebuiltError(ServerError):
    """An index got vectors of another model or dim while a query was embedded for it; the next query fits."""
