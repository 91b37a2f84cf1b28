"""What the tools answer, as JSON Schema: clients hold the structured part of an answer to it.

Knows JSON Schema; nothing of how an answer is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from q3e_local.server.dialects.fields import Schema

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_NUMBER: Schema = {"type": "number"}
_NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
_WHOLE_OR_NULL: Schema = {"type": ["integer", "null"]}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_CUT: Schema = {"type": "boolean", "description": "Whether the end of the text is left out, because it is too long"}
_UNTRUSTED: Schema = {"type": "string", "description": "How text that comes out of files is to be taken"}


def _object(fields: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**fields, **(optional or {})}, "required": list(fields)}


def _list(fields: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> dict[str, Any]:
    return {"type": "array", "items": _object(fields, optional)}


_PLACE = {"line": _WHOLE_OR_NULL, "last_line": _WHOLE_OR_NULL, "page": _WHOLE_OR_NULL, "headings": _TEXTS}

HITS = _object(
    {
        "untrusted": _UNTRUSTED,
        "index": _TEXT,
        "mode": _TEXT,
        "reranker": _TEXT_OR_NULL,
        "hits": _list(
            {
                "id": _TEXT,
                "score": {**_NUMBER_OR_NULL, "description": "Cosine, higher is nearer; null by words alone"},
                "text": _TEXT,
                "file": _TEXT_OR_NULL,
                **_PLACE,
                "cut": _CUT,
                "rerank": {**_NUMBER_OR_NULL, "description": "0 to 1; null where no reranker has read it"},
            }
        ),
    }
)
PART = _object(
    {
        "untrusted": _UNTRUSTED,
        "index": _TEXT,
        "file": _TEXT_OR_NULL,
        "from": {"enum": ["disk", "index"], "description": "disk: the file is what it was when it was indexed"},
        "pieces": _list({"id": _TEXT_OR_NULL, "text": _TEXT, **_PLACE, "cut": _CUT}),
        "next_line": _WHOLE_OR_NULL,
        "next_id": _TEXT_OR_NULL,
    }
)
INDEXES = _object(
    {
        "indexes": _list(
            {"name": _TEXT},
            {
                "model": _TEXT_OR_NULL,
                "space": _TEXT_OR_NULL,
                "dim": _NUMBER,
                "files": _NUMBER,
                "chunks": _NUMBER,
                "changed_at": {**_NUMBER, "description": "Seconds since 1970"},
                "error": _TEXT,
            },
        )
    }
)
