"""Where a store is: `StoreAddress`, read from a text such as `qdrant://localhost:6333#notes` or `lancedb:FOLDER`.

Knows how addresses are spelled; opens nothing. What people see of an address has neither user nor password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from q3e_local.errors import OptionError

Kind = Literal["qdrant", "milvus", "pgvector", "lancedb", "chroma", "sqlite-vec", "redis", "pinecone"]

COLLECTION = "q3e"  # where the address names none

_LOCAL: dict[str, Kind] = {
    "qdrant": "qdrant", "milvus": "milvus", "lancedb": "lancedb", "chroma": "chroma", "sqlite-vec": "sqlite-vec",
    "pinecone": "pinecone",
}  # fmt: skip
_SERVERS: dict[str, Kind] = {
    "qdrant": "qdrant", "qdrant+https": "qdrant", "milvus": "milvus", "milvus+https": "milvus",
    "chroma": "chroma", "chroma+https": "chroma", "postgresql": "pgvector", "postgres": "pgvector",
    "redis": "redis", "rediss": "redis",
}  # fmt: skip
_ENDINGS: dict[str, Kind] = {".lancedb": "lancedb", ".sqlite": "sqlite-vec", ".sqlite3": "sqlite-vec"}
_FORMS = (
    "qdrant://HOST:PORT, qdrant:FOLDER, milvus://HOST:PORT, milvus:FILE.db, postgresql://USER@HOST/DATABASE, "
    "lancedb:FOLDER, chroma://HOST:PORT, chroma:FOLDER, sqlite-vec:FILE, redis://HOST:PORT, pinecone:FILE.parquet or "
    ".jsonl"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least: C: is a drive of Windows
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,61}[A-Za-z0-9]")  # what every store takes, but for the hyphen


@dataclass(frozen=True)
class StoreAddress:
    """One collection of one store: a server's address in `url`, or a file or folder in `path`; the other is None."""

    kind: Kind
    collection: str
    url: str | None = None
    path: Path | None = None

    @property
    def parts(self) -> SplitResult:
        """The parts of the address of a server."""
        return urlsplit(self.url or "")

    @property
    def password(self) -> str:
        """The password or key in the address; empty without one. libpq takes one among the parameters too."""
        named = parse_qs(self.parts.query).get("password", [""])
        return unquote(self.parts.password or "") or named[-1]

    @property
    def place(self) -> str:
        """The server, file or folder, without user and password."""
        if self.path is not None:
            return str(self.path)
        parts = self.parts
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{host}{port}{parts.path}"

    def __str__(self) -> str:
        return self.place if self.kind == "pinecone" else f"{self.place}#{self.collection}"

    def __repr__(self) -> str:
        return f"StoreAddress({str(self)!r})"


def parse(text: str) -> StoreAddress | None:
    """The store that a text names; None where it names a file that is no store, such as `all.jsonl`.

    Raises OptionError for an address that no store has.
    """
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    rest = text[found.end() :] if found else text
    if rest.startswith("//") and found:
        if scheme not in _SERVERS:
            raise OptionError(f"{scheme}://... is no address of a store; stores are {_FORMS}")
        return _server(_SERVERS[scheme], text)
    if scheme in _LOCAL:
        return _local(_LOCAL[scheme], rest)
    if scheme in _SERVERS:
        raise OptionError(f"a store at {scheme}: is a server: write {scheme}://HOST")
    ending = _ENDINGS.get(Path(text.partition("#")[0]).suffix.lower())
    return None if ending is None else _local(ending, text)


def _server(kind: Kind, text: str) -> StoreAddress:
    url, _, collection = text.partition("#")
    try:
        parts = urlsplit(url)
        _ = parts.port
        # Behind a / or # of the password, the rest of it would be shown with the path or the collection.
        is_cut = "@" in parts.path + collection
    except ValueError:
        is_cut = True
    if is_cut:
        raise OptionError(
            f"the address of {kind} cannot be read; it is like {text.partition(':')[0]}://HOST:PORT, and special "
            "characters of a password are written as %XX"
        )
    if not parts.hostname and kind != "pgvector":  # PostgreSQL's may name the folder of a socket
        raise OptionError(f"the address of {kind} has no host; it is like {parts.scheme}://HOST:PORT")
    return StoreAddress(kind, _collection(collection), url=url)


def _local(kind: Kind, text: str) -> StoreAddress:
    if kind == "pinecone":  # a file has no collections
        path, collection = text, ""
    else:
        path, _, collection = text.rpartition("#") if "#" in text else (text, "", "")
    if not path:
        raise OptionError(f"{kind}: needs a file or folder behind it; stores are {_FORMS}")
    return StoreAddress(kind, _collection(collection), path=Path(path).expanduser())


def _collection(name: str) -> str:
    if not name:
        return COLLECTION
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"a collection's name has 3 to 63 letters, digits, _ and -, no _ or - at an end; got {name!r}"
        )
    return name
