"""Ollama's /api/pull: the service's pull, with its progress in lines of JSON.

Knows the statuses Ollama's clients draw bars for; nothing of where a model comes from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response, StreamingResponse

from q3e_local.errors import Q3EError, UnknownModelError
from q3e_local.server.dialects import names
from q3e_local.server.dialects.fields import TEXT, Body, Fields
from q3e_local.server.dialects.ollama_models import OLD_NAME, model_name
from q3e_local.server.dialects.routes import Routes, json_utf8_response
from q3e_local.server.served_names import ServedNames
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings

if TYPE_CHECKING:  # the module that pulls is loaded at the first pull
    from q3e_local.models.pull import Step

logger = logging.getLogger(__name__)

NDJSON = "application/x-ndjson"
_STEP_S = 0.06
_PULL = Body({"model": TEXT, "stream": {"type": "boolean", "default": True}}, ("model",), {"model": "demo"}, OLD_NAME)
_NO_MANIFEST = "pull model manifest: file does not exist"


class PullError(Q3EError):
    """A pull that failed, in Ollama's words."""


def add_route(routes: Routes, service: Service, settings: ServerSettings) -> None:
    @routes.with_body("/api/pull", _PULL, "Bring a model here; lines of JSON tell how far it is")
    async def pull(fields: Fields) -> Response:
        name = names.checked(model_name(fields) or "")
        if fields.flag("stream"):
            return StreamingResponse(_lines(service, name, settings), media_type=NDJSON)
        try:
            await service.pull(name, lambda step: None)
        except UnknownModelError as error:
            raise PullError(f"{_NO_MANIFEST}: {error}") from None
        return json_utf8_response({"status": "success"})


async def _lines(service: Service, name: str, settings: ServerSettings) -> AsyncIterator[bytes]:
    """A pull's progress as Ollama tells it, then `success` or the error."""
    loop = asyncio.get_running_loop()
    steps: asyncio.Queue[Step | None] = asyncio.Queue()
    digest, size = await asyncio.to_thread(_digest_and_size, name, settings)

    def progress(step: Step) -> None:  # from another thread
        with suppress(RuntimeError):  # the server has stopped since
            loop.call_soon_threadsafe(steps.put_nowait, step)

    yield _line({"status": "pulling manifest"})
    pulling = asyncio.ensure_future(service.pull(name, progress))
    pulling.add_done_callback(lambda task: steps.put_nowait(None))
    last, last_at = "", -1.0
    try:
        while (step := await steps.get()) is not None:
            now = loop.time()
            if step.what == last and now - last_at < _STEP_S and step.done < step.total:
                continue
            last, last_at = step.what, now
            yield _line(_progress(step, digest))
        pulling.result()
        if not last:  # the model was here already
            yield _line({"status": f"pulling {digest[7:19]}", "digest": digest, "total": size, "completed": size})
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            yield _line({"status": status})
    except UnknownModelError as error:
        yield _line({"error": f"{_NO_MANIFEST}: {error}"})
    except Q3EError as error:
        yield _line({"error": str(error)})
    except Exception:  # the status was sent long ago, so the last line has the error
        logger.exception("pulling %s failed", name)
        yield _line({"error": "internal error; the server's log says more"})
    finally:
        pulling.cancel()  # where the client went away
        await asyncio.gather(pulling, return_exceptions=True)


def _progress(step: Step, digest: str) -> dict[str, Any]:
    # Clients draw a bar for each digest, which a model that is being converted from a download does not have yet.
    status = {"status": f"pulling {digest[7:19]}", "digest": digest}
    line = status if step.what.startswith("downloading") else {"status": step.what}
    return line | {"total": step.total} | ({"completed": step.done} if step.done else {})


def _line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _digest_and_size(name: str, settings: ServerSettings) -> tuple[str, int]:
    """The digest and the size of the file that a client draws a progress bar for."""
    with suppress(UnknownModelError):
        card, file = ServedNames(settings).to_pull(name)
        pinned = card.origin(file) or file
        if pinned.sha256 is not None:
            return f"sha256:{pinned.sha256}", pinned.size_bytes
    with suppress(Q3EError, OSError):  # a file that is not downloaded may be here
        model = names.here(name, settings)
        return f"sha256:{model.sha256 or names.described(model).digest}", model.size_bytes
    return "sha256:" + 64 * "0", 0
