"""What clients call the two kinds of texts, a question and what is searched: one table for all routes.

Knows names and the fields that carry them; nothing of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping

from q3e_local.embedding.prompts import Kind
from q3e_local.server.dialects.fields import Fields, Schema, shown
from q3e_local.server.errors import BadRequestError

# Each with those who send it, and under which name of a field. Case does not matter.
KINDS: Mapping[str, Kind] = {
    "query": "query",  # ours and Voyage's (input_type), sentence-transformers' and TEI's (prompt_name)
    "document": "document",
    "passage": "document",  # NVIDIA's (input_type), beside query
    "search_query": "query",  # Cohere's (input_type)
    "search_document": "document",
    "retrieval.query": "query",  # Jina's (task)
    "retrieval.passage": "document",
    "RETRIEVAL_QUERY": "query",  # Gemini's (task_type, which clients of several services send as task or input_type)
    "RETRIEVAL_DOCUMENT": "document",
}
KIND: Schema = {
    "type": "string",
    "enum": list(KINDS),
    "description": "What the texts are: a query gets the instruction, a document nothing",
}


def kind_of(fields: Fields, *names: str) -> Kind | None:
    """The kind that these fields say; None where all are left out, or say something else that they may say.

    Raises BadRequestError for a value that a field does not have, with those it has, and for fields that say
    different kinds.
    """
    said: dict[Kind, str] = {}
    for name in names:
        unknown = f"{fields.name(name)} {shown(fields.raw(name))} is unknown; there are {', '.join(KINDS)}"
        value = fields.choice(name, unknown)
        if value is not None and value in KINDS:
            said.setdefault(KINDS[value], name)
    if len(said) > 1:
        (first, by_first), (second, by_second) = said.items()
        raise BadRequestError(
            f"{by_first} says that the texts are of the kind {first!r}, {by_second} that they are of the kind "
            f"{second!r}; send one of the two",
            by_second,
        )
    return next(iter(said), None)
