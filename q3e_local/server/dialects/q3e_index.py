"""/api/passages: what an index holds beside its hits, for the page and for programs.

Knows the JSON; nothing of how an index is read. All texts come from the index: no route here reads a file.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from q3e_local.search.database.records import Entry
from q3e_local.server.dialects.fields import Body, Fields, Schema, shown
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.dialects.q3e_search import answer_failure
from q3e_local.server.dialects.routes import Routes, json_utf8_response
from q3e_local.server.errors import BadRequestError
from q3e_local.server.local.indexes import Indexes

IDS_MAX = 200
AROUND_MAX = 50

INDEX: Schema = {"type": "string", "description": "A name as in /api/indexes; needed where there are several"}
_PASSAGES = Body(
    {
        "index": INDEX,
        "ids": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": IDS_MAX},
        "around": {
            "type": "integer",
            "minimum": 0,
            "maximum": AROUND_MAX,
            "default": 0,
            "description": "With one id: how many passages of its file before and behind it come too",
        },
    },
    ("ids",),
    {"ids": ["/home/me/notes/a.md#0"], "around": 2},
)


def routes(indexes: Indexes, unknown: Notices) -> Routes:
    """The routes on what an index holds. `unknown` logs the fields that they do not have."""
    routes = Routes("Search", answer_failure, {"ids": IDS_MAX})
    # /openapi.json shows the route only where there is something to read.
    summary = "Passages of an index by their ids, or one with those around it in its file" if indexes.names else ""

    @routes.with_body("/api/passages", _PASSAGES, summary)
    async def passages(fields: Fields) -> Response:
        fields.log_unknown("/api/passages", unknown)
        index = indexes.get(fields.text("index"))
        ids, n_around = _ids(fields), fields.integer("around") or 0
        if n_around and len(ids) > 1:
            raise BadRequestError(f"around is for one id, got {len(ids)}", "around")
        found = await index.passages(ids, n_around)
        answer = {"index": index.name, "passages": list(map(_passage, found.entries))}
        return json_utf8_response(answer | ({"first": found.first, "of": found.n} if n_around else {}))

    return routes


def _ids(fields: Fields) -> list[str]:
    ids = fields.items("ids")
    if not ids or len(ids) > IDS_MAX:
        raise BadRequestError(f"ids must be a list of 1 to {IDS_MAX} ids, got {shown(ids or [])}", "ids")
    for each in ids:
        if not isinstance(each, str):
            raise BadRequestError(f"ids must be texts, got {shown(each)}", "ids")
    return ids


def _passage(entry: Entry) -> dict[str, Any]:
    """A passage by the names that a hit has them under."""
    chunk = entry.chunk
    return {
        "id": entry.id,
        "text": chunk.text,
        "file": entry.file,
        "line": chunk.line,
        "last_line": chunk.last_line,
        "page": chunk.page,
        "headings": chunk.headings,
    }
