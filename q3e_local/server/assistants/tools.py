"""The three tools that assistants have: search, get, list_indexes. All of them only read.

A tool takes an object of JSON and gives an `Answer`. Knows services, indexes and JSON Schema; nothing of the protocol
or of transports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from q3e_local.errors import OptionError
from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.models.names import served_as
from q3e_local.reading.globs import pattern
from q3e_local.search.ask import Question
from q3e_local.search.database.records import Filters
from q3e_local.search.hits import Mode
from q3e_local.search.passages import from_id, from_line, held_file
from q3e_local.search.reranked import check_candidates
from q3e_local.server.assistants import schemas
from q3e_local.server.assistants.answers import UNTRUSTED, Answer, of_hits, of_indexes, of_part
from q3e_local.server.dialects.fields import Body, Fields, Schema, shown
from q3e_local.server.dialects.q3e_search import described, since_of
from q3e_local.server.errors import BadRequestError
from q3e_local.server.local.index_search import Reranking, search
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.served_names import kind_of
from q3e_local.server.service import Service, ServiceRequest
from q3e_local.server.settings import ServerSettings

Tell = Callable[[float, float, str], Awaitable[None]]
"""Waited for with how much is done, of how much, and what is being done."""

# Clients give a tool a minute or so. What a reranker has not read by then keeps its order.
RERANK_S = 30.0


@dataclass(frozen=True)
class Tool:
    """What an assistant is told of a tool before it calls it."""

    name: str
    title: str
    description: str
    takes: Body
    gives: Schema


Run = Callable[[Fields, Tell], Awaitable[Answer]]


class Tools:
    """The tools on one service and on the indexes that are open."""

    def __init__(self, service: Service, indexes: Indexes, settings: ServerSettings) -> None:
        self._service, self._indexes, self._settings = service, indexes, settings
        names = ", ".join(indexes.names) or "none"
        self._tools: dict[str, tuple[Tool, Run]] = {
            "search": (
                Tool(
                    "search",
                    "Search indexed files",
                    "Find passages in the user's indexed files, by meaning and by words, in any language. "
                    f"Indexes: {names}. {UNTRUSTED}",
                    schemas.SEARCH,
                    schemas.HITS,
                ),
                self._search,
            ),
            "get": (
                Tool(
                    "get",
                    "Read a part of an indexed file",
                    "Read on where search found something: the passage of an id and those behind it, or lines of a "
                    f"file. Only of indexed files. {UNTRUSTED}",
                    schemas.GET,
                    schemas.PART,
                ),
                self._get,
            ),
            "list_indexes": (
                Tool(
                    "list_indexes",
                    "List the indexes",
                    "The indexes that search and get know, and what is in them.",
                    schemas.NOTHING,
                    schemas.INDEXES,
                ),
                self._list_indexes,
            ),
        }

    @property
    def all(self) -> list[Tool]:
        return [tool for tool, _ in self._tools.values()]

    def has(self, name: str) -> bool:
        return name in self._tools

    async def call(self, name: str, arguments: Mapping[str, Any], tell: Tell) -> Answer:
        """What the tool of this name answers. Cancelling the call frees its place in every queue.

        Raises BadRequestError for arguments that do not fit, and what searching, embedding and ranking raise.
        """
        tool, run = self._tools[name]
        unknown = [each for each in arguments if each not in tool.takes.fields]
        if unknown:
            has = f"it has {', '.join(tool.takes.fields)}" if tool.takes.fields else "it has none"
            raise BadRequestError(f"{name} has no argument {shown(unknown[0])}; {has}", unknown[0])
        return await run(Fields(arguments, tool.takes), tell)

    async def _search(self, fields: Fields, tell: Tell) -> Answer:
        index = self._indexes.get(fields.text("index"))
        text = fields.text("query")
        if text is None or not text.strip():
            raise BadRequestError("query is required, a text", "query")
        path = fields.text("path")
        if path is not None:
            pattern(path)  # raises OptionError for a wrong pattern, before a model is loaded
        limit = fields.integer("limit") or schemas.LIMIT
        mode, filters = cast(Mode, fields.choice("mode")), Filters(path, since_of(fields.text("since")))
        reranking = await self._reranking(fields)
        n_steps = 1 + (0 if reranking is None else reranking.n_candidates)

        async def read(n_read: int) -> None:
            await tell(1 + n_read, n_steps, f"reading the first {n_steps - 1} passages again with the query")

        await tell(0, n_steps, self._beginning(index.name, index.made.model, mode))
        question = Question(text, None, limit, mode, exact=False, filters=filters)
        query = ServiceRequest("", (text,), kind="query", truncate=False)
        result = await search(self._service, index, question, query, reranking, read)
        return of_hits(index.name, result.found.mode, result.found.reranker, result.found.hits)

    async def _get(self, fields: Fields, tell: Tell) -> Answer:
        index = self._indexes.get(fields.text("index"))
        name, file = fields.text("id"), fields.text("file")
        n_passages, first = fields.integer("passages"), fields.integer("first_line")
        last = fields.integer("last_line")
        if (name is None) == (file is None):
            raise BadRequestError("give either id, a passage's, or file", "id")
        if name is not None:
            if first is not None or last is not None:
                raise BadRequestError("first_line and last_line go with file, not with id", "first_line")
            return of_part(index.name, await index.read(partial(from_id, name=name, n_passages=n_passages or 1)))
        if n_passages is not None:
            raise BadRequestError("passages goes with id, not with file", "passages")
        first = first or 1
        last = first + schemas.LINES - 1 if last is None else last
        if last < first:
            raise BadRequestError(f"last_line is {last}, before first_line {first}", "last_line")
        held = await index.read(partial(held_file, path=file or ""))
        # Beside the index's own thread: a large file takes a while to read, and others want to search.
        return of_part(index.name, await asyncio.to_thread(from_line, held, first, last))

    async def _list_indexes(self, fields: Fields, tell: Tell) -> Answer:
        return of_indexes(await asyncio.gather(*map(described, self._indexes)))

    async def _reranking(self, fields: Fields) -> Reranking | None:
        """The second stage that is asked for, by the reranker that was given with --model, or the default one."""
        n = fields.raw("rerank")
        try:
            n_candidates = check_candidates(n, schemas.LIMIT_MAX, shown)
        except OptionError as error:
            raise BadRequestError(str(error), error.option) from None
        if n is None or n is False:
            return None
        return Reranking(n_candidates, await asyncio.to_thread(self._reranker), RERANK_S)

    def _reranker(self) -> str:
        names = map(served_as, self._settings.models)
        return next((name for name in names if kind_of(name, self._settings) == "reranker"), DEFAULT_RERANKER)

    def _beginning(self, index: str, model: str | None, mode: Mode) -> str:
        """What a search does first: to load its model may take a while."""
        in_memory = {loaded.name for loaded in self._service.loaded()}
        if model is None or mode == "words" or model in in_memory:
            return f"searching {index}"
        return f"loading {model} and searching {index}"
