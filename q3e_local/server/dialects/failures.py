"""The one table from an error to its kind, an HTTP status and when to come back: `failure_of`.

Knows every error that a route may raise, and no dialect's JSON: each dialect words a `Failure` in its own shape, and
says another status where its original does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from q3e_local.errors import (
    ModelNotHereError,
    OptionError,
    Q3EError,
    SpaceMismatchError,
    TextError,
    TextTooLongError,
    UnknownModelError,
    WrongKindError,
)
from q3e_local.server.dialects.names import InvalidNameError
from q3e_local.server.errors import (
    BadRequestError,
    ClientGoneError,
    EmptyInputError,
    IndexUnusableError,
    MissingBodyError,
    NotServedError,
    QueueFullError,
    RebuiltError,
    StoppingError,
    UnknownIndexError,
)

# A kind stands here only where a dialect has words or a status for that kind alone.
FailureKind = Literal[
    "text too long",
    "text",
    "empty input",
    "request",
    "model name",
    "no model",
    "wrong kind",
    "queue full",
    "stopping",
    "failed",
    "other",
    # Of requests that are refused before a route sees them.
    "forbidden",
    "no key",
    "unavailable",
]

# The first row that fits counts.
_TABLE: tuple[tuple[type[Exception], FailureKind, int], ...] = (
    (TextTooLongError, "text too long", 400),
    (TextError, "text", 400),
    (EmptyInputError, "empty input", 400),
    (MissingBodyError, "other", 400),
    (BadRequestError, "request", 400),
    (InvalidNameError, "model name", 400),
    (OptionError, "request", 400),
    (UnknownModelError, "no model", 404),
    (ModelNotHereError, "no model", 404),
    (WrongKindError, "wrong kind", 400),
    (UnknownIndexError, "other", 404),
    (SpaceMismatchError, "other", 409),
    (QueueFullError, "queue full", 429),
    (ClientGoneError, "other", 499),
    (NotServedError, "other", 501),
    (StoppingError, "stopping", 503),
    (IndexUnusableError, "other", 503),
    (RebuiltError, "other", 503),
)


@dataclass(frozen=True)
class Failure:
    """An error in no dialect. `message` names nothing of this program's insides.

    `error` is None for a request that was refused before a route saw it.
    """

    kind: FailureKind
    status: int
    message: str
    retry_after_s: int | None = None
    error: Exception | None = None

    @property
    def headers(self) -> dict[str, str]:
        """When to come back, for an error that passes."""
        return {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}


def failure_of(error: Exception) -> Failure:
    """What went wrong. An error that the table does not have is the engine's, or a mistake in this program."""
    kind, status = next((row[1:] for row in _TABLE if isinstance(error, row[0])), ("failed", 500))
    message = str(error) if isinstance(error, Q3EError) else "internal error; the server's log says more"
    retry_after_s = error.retry_after_s if isinstance(error, (QueueFullError, StoppingError)) else None
    return Failure(kind, status, message, retry_after_s, error)
