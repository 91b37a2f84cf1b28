"""/api/passages and /api/map: what an index holds beside its hits, for the page and for programs.

Knows the JSON; nothing of how an index is read or a map is made. All texts come from the index: no route here reads a
file.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from q3e_local.search.database.records import Entry
from q3e_local.server.dialects import names
from q3e_local.server.dialects.body import hold_to_limit
from q3e_local.server.dialects.fields import Body, Fields, Schema, shown
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.dialects.q3e_search import answer_failure, answered
from q3e_local.server.dialects.routes import Routes, embedded, json_utf8_response, result_headers
from q3e_local.server.errors import BadRequestError
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.local.maps import Drawn, Maps
from q3e_local.server.service import Service, ServiceRequest
from q3e_local.server.settings import ServerSettings
from q3e_local.wording.html_table import shortened

IDS_MAX = 200
AROUND_MAX = 50
TEXTS_MIN = 2
_ONE = 65_535  # what 1 is as a number of 16 bits
_CENTRAL = 200  # characters of a cluster's most central text

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


_MAP = Body(
    {
        "index": INDEX,
        "texts": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": TEXTS_MIN,
            "description": "Texts of your own in place of an index's; `model` embeds them",
        },
        "model": {"type": "string", "description": "An embedding model, for `texts`"},
    },
    (),
    {"texts": ["a text", "another text"], "model": "demo"},
)


def routes(service: Service, settings: ServerSettings, indexes: Indexes, unknown: Notices) -> Routes:
    """The routes on what an index holds. `unknown` logs the fields that they do not have."""
    maps = Maps()
    routes = Routes("Search", answer_failure, {"ids": IDS_MAX, "texts": settings.max_items})
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

    @routes.with_body(
        "/api/map", _MAP, "Where the passages of an index, or texts, lie on a plane, and their clusters"
    )
    async def drawn(fields: Fields) -> Response:
        fields.log_unknown("/api/map", unknown)
        if fields.has("texts"):
            texts = _texts(fields, settings)
            wanted = ServiceRequest(names.checked(fields.text("model") or "", settings), texts, kind="document")
            result = await embedded(service, wanted)
            made = await maps.of_texts(texts, result.vectors)
            return json_utf8_response({"status": "ready", **_map(made)}, headers=result_headers(result))
        index = indexes.get(fields.text("index"))
        work = await maps.of(index)
        if work.drawn is None:
            progress = {"step": work.step, "done": work.n_done, "total": work.n_total}
            return json_utf8_response({"status": "working", "index": index.name, **progress})
        answer = {"status": "ready", "index": index.name, **_map(work.drawn), **_passages_of(work.drawn)}
        return json_utf8_response(answer)

    return routes


def _map(drawn: Drawn) -> dict[str, Any]:
    """A map as compact numbers: base64 of little-endian ones, of points two of 16 bits each, 65,535 for 1."""
    points = np.round(drawn.points * _ONE).astype("<u2")
    return {
        "n": len(points),
        "points": _base64(points),
        "labels": _base64(drawn.labels.astype("<u2")),
        "clusters": [
            {"words": each.words, "central": each.central, "text": shortened(text, _CENTRAL), "size": each.size}
            for each, text in zip(drawn.clusters, drawn.central_texts, strict=True)
        ],
        "no_clusters": drawn.no_clusters or None,
    }


def _passages_of(drawn: Drawn) -> dict[str, Any]:
    """Which passage each point is. The id of a file's passage is `PATH#NUMBER`, so only the two are sent."""
    files = {file: place for place, file in enumerate(dict.fromkeys(file for _, file in drawn.entries if file))}
    of_file = [-1 if file is None else files[file] for _, file in drawn.entries]
    numbers = [0 if file is None else int(name.rpartition("#")[2]) for name, file in drawn.entries]
    return {
        "all": drawn.n_all,
        "files": list(files),
        "file_of": _base64(np.array(of_file, "<i4")),
        "numbers": _base64(np.array(numbers, "<i4")),
        "ids": [name for name, file in drawn.entries if file is None],
    }


def _base64(numbers: NDArray[Any]) -> str:
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def _texts(fields: Fields, settings: ServerSettings) -> tuple[str, ...]:
    texts = fields.items("texts") or []
    if len(texts) < TEXTS_MIN:
        raise BadRequestError(f"texts must be a list of {TEXTS_MIN} texts or more, got {shown(texts)}", "texts")
    hold_to_limit(len(texts), settings.max_items, "texts")
    for each in texts:
        if not isinstance(each, str):
            raise BadRequestError(f"texts must be texts, got {shown(each)}", "texts")
    return tuple(texts)


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
        **answered(chunk.text),
        "file": entry.file,
        "line": chunk.line,
        "last_line": chunk.last_line,
        "page": chunk.page,
        "headings": chunk.headings,
    }
