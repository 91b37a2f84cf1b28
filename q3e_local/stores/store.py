"""`Store`: the few calls that every store answers, and how its errors become one sentence.

Knows no store; the modules beside it have these methods and inherit nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from q3e_local.errors import OutputError, Q3EError
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.rows import Row, Shape
from q3e_local.vectors import Vectors


class Store(Protocol):
    """One collection, open. All methods raise OutputError where the store cannot be reached or refuses.

    A row belongs to a `source`, a name for whoever sent it; rows that another program put there belong to none.
    """

    n_batch: int
    """How many rows are sent at once."""
    keeps_parts: bool
    """Whether rows stay there when a run ends before its time."""

    def mark(self) -> str | None:
        """The mark that is kept with the collection, empty where it has none; None where there is no collection."""

    def create(self, shape: Shape) -> None:
        """Make the collection, for cosine similarity, and keep the shape's mark with it."""

    def digests(self, source: str) -> dict[str, str]:
        """The digest by id of all rows of this source."""

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        """The source by id of those of these ids that are there."""

    def upsert(self, rows: Sequence[Row], vectors: Vectors, source: str) -> None:
        """Put rows there, in place of those of the same ids. `vectors` is float32 (n, dim), rows of length 1."""

    def delete(self, ids: Sequence[str]) -> None:
        """Delete the rows of these ids."""

    def finish(self) -> Sequence[str]:
        """Called once all rows are there: lines about what people should know of the collection."""

    def close(self) -> None:
        """Hang up; what was not finished stays as it is."""


@contextmanager
def in_a_sentence(address: StoreAddress, *errors: type[Exception], advice: str = "") -> Iterator[None]:
    """Turn errors of a store's library into an OutputError that names the store, and never the password."""
    try:
        yield
    except Q3EError:  # some are ValueErrors too
        raise
    except errors as error:
        # Milvus' errors have their sentence in `message`, and in str() their class and number around it. Those of
        # Chroma have a method of that name.
        message = getattr(error, "message", "")
        said = message if isinstance(message, str) and message else str(error)
        said = " ".join(said.split()) or type(error).__name__
        if address.password:
            said = said.replace(address.password, "***").replace(address.parts.password or "***", "***")
        raise OutputError(f"cannot use {address}: {said}{advice}") from None


def local_path(address: StoreAddress) -> Path:
    """The file or folder of a store on this machine. Raises OutputError where there is no folder to make it in."""
    if address.path is None:
        raise OutputError(f"{address} is no file or folder")
    if not address.path.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {address.path.absolute().parent} to make {address.path.name} in")
    return address.path
