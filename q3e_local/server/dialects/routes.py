"""What every dialect's routes share: errors in its shape, results with their headers, clients that leave.

Knows HTTP, and no dialect's JSON.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from q3e_local.errors import OptionError, Q3EError
from q3e_local.server.dialects.body import read_fields
from q3e_local.server.dialects.failures import Failure, failure_of
from q3e_local.server.dialects.fields import Body, Fields
from q3e_local.server.dialects.openapi import DocumentedRoute
from q3e_local.server.errors import BadRequestError, ClientGoneError
from q3e_local.server.service import RankResult, Service, ServiceRequest, ServiceResult
from q3e_local.vectors import Vectors

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]
BodyHandler = Callable[[Fields], Awaitable[Response]]
Wording = Callable[[Failure], Response]
"""How a dialect answers a request that failed."""

JSON = "application/json"
# Characters of x-q3e-truncated: clients take header lines of 8 KiB. Where the dialect has room, the body lists all.
_MAX_TRUNCATED = 4_000
_NUMBERS = 100_000  # written in one go: about 3 ms
_MAX_PIECES = 1 << 18  # about 20 MB
_PIECES_AT_ONCE = 1 << 14  # other requests that tokenize wait for them: about 50 ms


class Routes:
    """A dialect's routes. Every error of a handler is answered by `wording`, an unforeseen error too.

    `max_items` and `only_first` go to `read_fields` with every body.
    """

    def __init__(
        self, dialect: str, wording: Wording, max_items: Mapping[str, int] | None = None, *, only_first: bool = False
    ) -> None:
        self.all: list[DocumentedRoute] = []
        self._dialect, self._wording = dialect, wording
        self._max_items, self._only_first = max_items or {}, only_first

    def get(self, path: str, summary: str = "") -> Callable[[Handler], Handler]:
        """Serve GET and HEAD with the handler below. /openapi.json leaves out what has no summary."""
        return self.add(("GET",), path, summary)

    def with_body(
        self, path: str, body: Body, summary: str = "", method: str = "POST", *, runs_to_its_end: bool = False
    ) -> Callable[[BodyHandler], BodyHandler]:
        """Serve POST, or another method, with the handler below, which gets the fields of the body.

        When the client goes away, the handler is cancelled, which frees its place in the queue; a handler that
        changes files `runs_to_its_end`.
        """

        def added(handler: BodyHandler) -> BodyHandler:
            @wraps(handler)
            async def reads(request: Request) -> Response:
                fields = await read_fields(request, body, self._max_items, only_first=self._only_first)
                return await (handler(fields) if runs_to_its_end else _while_connected(request, handler(fields)))

            self.add((method,), path, summary, body)(reads)
            return handler

        return added

    def add(
        self, methods: tuple[str, ...], path: str, summary: str = "", body: Body | None = None
    ) -> Callable[[Handler], Handler]:
        """Serve these methods with the handler below."""

        def added(handler: Handler) -> Handler:
            @wraps(handler)
            async def answered(request: Request) -> Response:
                where = f"{request.method} {request.url.path}"
                return await answer_or_fail(self._wording, where, handler(request))

            self.all.append(DocumentedRoute(path, answered, methods, self._dialect, summary, body))
            return handler

        return added


async def answer_or_fail(wording: Wording, where: str, work: Awaitable[Response]) -> Response:
    """The response, or the answer of `wording` to an error. The log has an unforeseen error."""
    try:
        return await work
    except ClientDisconnect:
        return wording(failure_of(ClientGoneError("request canceled")))
    except Q3EError as error:
        return wording(failure_of(error))
    except Exception as error:
        logger.exception("%s failed", where)
        return wording(failure_of(error))


async def _while_connected(request: Request, work: Awaitable[Response]) -> Response:
    """Wait for `work`, and cancel it when the client goes away. The request's body must have been read."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError("request canceled")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def embedded(service: Service, wanted: ServiceRequest) -> ServiceResult:
    """The service's answer.

    Raises what Service.embed raises, but BadRequestError for a wrong dim, by its name on the wire.
    """
    try:
        return await service.embed(wanted)
    except OptionError as error:
        if error.option != "dim":
            raise
        raise BadRequestError(error.under("dimensions"), "dimensions") from None


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = JSON
) -> Response:
    """JSON with float32 arrays printed with the fewest digits that restore them."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type)


def json_utf8_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON with the content type of Ollama and of llama-server."""
    return json_response(value, status, headers, "application/json; charset=utf-8")


def result_headers(result: ServiceResult) -> dict[str, str]:
    """What every embedding answer carries: the space, the tokens, and which inputs were cut."""
    return {"x-q3e-space": result.space} | rank_headers(result)


def rank_headers(result: ServiceResult | RankResult) -> dict[str, str]:
    """What every answer with scores carries: the tokens, and which documents were cut."""
    headers = {
        "x-q3e-texts": str(len(result.prompt_tokens)),
        "x-q3e-prompt-tokens": str(sum(result.prompt_tokens)),
    }
    cut = truncated(result)
    if cut:
        listed = ",".join(map(str, cut))
        if len(listed) > _MAX_TRUNCATED:
            listed = listed[:_MAX_TRUNCATED].rpartition(",")[0] + ",..."
        headers["x-q3e-truncated"] = listed
    return headers


def truncated(result: ServiceResult | RankResult) -> list[int]:
    """Places of the inputs that were cut."""
    return [i for i, cut in enumerate(result.truncated) if cut]


async def rows(vectors: Vectors) -> list[orjson.Fragment]:
    """Each row as JSON. Other requests have their turn meanwhile: 2,048 rows of 2,560 numbers take 0.1 s."""
    n_rows = max(1, _NUMBERS // vectors.shape[1])
    written: list[orjson.Fragment] = []
    for first in range(0, len(vectors), n_rows):
        if first:
            await asyncio.sleep(0)
        part = vectors[first : first + n_rows]
        written += [orjson.Fragment(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in part]
    return written


async def pieces(service: Service, model: str, ids: list[int], n_before: int = 0) -> list[bytes]:
    """The bytes of each token. Raises BadRequestError for too many; `n_before` are those of the texts before."""
    n_tokens = n_before + len(ids)
    if n_tokens > _MAX_PIECES:
        raise BadRequestError(
            f"the request has {n_tokens} tokens or more, an answer has the pieces of {_MAX_PIECES} at most; "
            "send fewer or shorter texts"
        )
    written: list[bytes] = []
    for first in range(0, len(ids), _PIECES_AT_ONCE):
        written += await service.pieces(model, ids[first : first + _PIECES_AT_ONCE])
    return written
