"""What can go wrong between a request and the engine, beyond the library's own errors.

Knows nothing of HTTP statuses: server/dialects/failures.py has those.
"""

from __future__ import annotations

from q3e_local.errors import Q3EError


class ServerError(Q3EError):
    """Base of what only a server meets."""


class BadRequestError(ServerError):
    """The request is not one that its route can answer; `field` names the part, where there is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class MissingBodyError(BadRequestError):
    """The route needs a body, and none came."""


class EmptyInputError(BadRequestError):
    """There is nothing to embed."""


class NotServedError(ServerError):
    """A server for embeddings has no answer on this route."""


class ClientGoneError(ServerError):
    """The client closed the connection before it had its answer."""


class QueueFullError(ServerError):
    """Too much waits already."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WorkerDiedError(ServerError):
    """The model's process ended as `cause` says while it worked on this request; the next request gets a new one."""

    def __init__(self, cause: str, advice: str = "") -> None:
        super().__init__(f"{cause}{advice}")
        self.cause = cause


class StoppingError(ServerError):
    """The server is shutting down."""

    retry_after_s = 5

    def __init__(self, message: str = "the server is shutting down") -> None:
        super().__init__(message)


class UnknownIndexError(ServerError):
    """The server was started with no index of this name."""


class IndexUnusableError(ServerError):
    """An index that was there at the start is not now, or is damaged."""


class RebuiltError(ServerError):
    """An index got vectors of another model or dim while a query was embedded for it; the next query fits."""
