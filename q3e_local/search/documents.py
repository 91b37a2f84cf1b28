"""How the texts of an index are embedded: as bare documents, whatever else the model's name says.

Knows requests and spaces; nothing of chunks, files or tables.
"""

from __future__ import annotations

from collections.abc import Iterable

from q3e_local.embedding.request import EmbedRequest
from q3e_local.embedding.text_model import TextModel
from q3e_local.search.database.records import IndexSpace

DOCUMENT_TASK = "retrieval"  # the task whose documents get no instruction


def document_request(texts: Iterable[str], dim: int, *, truncate: bool = False) -> EmbedRequest:
    """The request by which chunks are embedded."""
    return EmbedRequest(texts, "document", DOCUMENT_TASK, dim=dim, truncate=truncate)


def space_of(
    embedder: TextModel, dim: int | None = None, task: str | None = None, instruction: str | None = None
) -> IndexSpace:
    """The space of the documents that this embedder makes. Raises OptionError."""
    resolved = embedder.resolve(EmbedRequest((), "document", task, instruction, dim))
    return IndexSpace(embedder.loads_as, embedder.digest, resolved.dim, resolved.prefix)
