"""What the tools take and what they answer, as JSON Schema: clients hold the structured part of an answer to it.

Knows JSON Schema and limits; nothing of how an answer is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from q3e_local.search.hits import MODES
from q3e_local.search.passages import LINES_MAX, PASSAGES_MAX
from q3e_local.search.reranked import N_CANDIDATES
from q3e_local.server.dialects.fields import Body, Schema
from q3e_local.server.dialects.q3e_search import QUERY_CHARACTERS_MAX

LIMIT, LIMIT_MAX = 10, 50
LINES = 200  # where no last line is given
_GLOB_CHARACTERS_MAX = 1_000
_PATH_CHARACTERS_MAX = 10_000

_INDEX: Schema = {
    "type": "string",
    "description": "Which index, by a name of list_indexes; needed if there are several",
}
SEARCH = Body(
    {
        "query": {
            "type": "string",
            "minLength": 1,
            "maxLength": QUERY_CHARACTERS_MAX,
            "description": "A question or a description in whole words, in any language; or words, names and codes",
        },
        "index": _INDEX,
        "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT},
        "mode": {
            "type": "string",
            "enum": list(MODES),
            "default": "auto",
            "description": "By meaning (vectors), by words, or by both (hybrid); auto is by both where words help",
        },
        "path": {
            "type": "string",
            "maxLength": _GLOB_CHARACTERS_MAX,
            "description": "Only in files of this glob, such as **/notes/** or *.md",
        },
        "since": {
            "type": "string",
            "description": "Only in files changed since: 2026-11-01, yesterday, or 12h, 7d, 2w, 3m (months), 1y ago",
        },
        # Accepted as true too. One type alone stands here, because some models' schemas have no place for two.
        "rerank": {
            "type": "integer",
            "minimum": 1,
            "maximum": LIMIT_MAX,
            "description": f"How many of the first passages a second model reads with the query and puts in order, "
            f"such as {N_CANDIDATES}: better for questions in prose, and takes seconds",
        },
    },
    ("query",),
)
GET = Body(
    {
        "index": _INDEX,
        "id": {
            "type": "string",
            "maxLength": _PATH_CHARACTERS_MAX,
            "description": "The id of a passage, as search gives it",
        },
        "passages": {
            "type": "integer",
            "minimum": 1,
            "maximum": PASSAGES_MAX,
            "default": 1,
            "description": "With id: how many passages of its file, from this one on",
        },
        "file": {
            "type": "string",
            "maxLength": _PATH_CHARACTERS_MAX,
            "description": "Instead of id: an indexed file, exactly as search names it",
        },
        "first_line": {"type": "integer", "minimum": 1, "default": 1, "description": "With file"},
        "last_line": {
            "type": "integer",
            "minimum": 1,
            "description": f"With file; {LINES} lines if left out, {LINES_MAX} at most",
        },
    },
)
NOTHING = Body({})

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
