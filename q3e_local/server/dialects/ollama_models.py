"""Ollama's routes for the models on this machine: list, show, what is loaded, copy, delete.

Knows Ollama's JSON, the store and the cards; leaves getting a model here to ollama_pull.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from q3e_local.embedding.request import DIM_MIN
from q3e_local.errors import ModelError, ModelNotHereError, Q3EError, UnknownModelError
from q3e_local.gguf.header import Header
from q3e_local.models import catalog, installed
from q3e_local.models.card import NAME_GRAMMAR
from q3e_local.models.installed import Installed
from q3e_local.models.names import QUERY_SUFFIX
from q3e_local.server.dialects import names
from q3e_local.server.dialects.body import read_fields
from q3e_local.server.dialects.fields import FLAG, TEXT, Body, Fields, Schema
from q3e_local.server.dialects.routes import Routes, json_response
from q3e_local.server.errors import BadRequestError
from q3e_local.server.service import LoadedModel, Service
from q3e_local.server.settings import ServerSettings

_FOREVER = timedelta(days=292 * 365)  # how Ollama writes that a model stays: its CLI shows `Forever`
_changing = threading.Lock()  # a copy must not record a file that a delete is removing

OLD_NAME: dict[str, Schema] = {"name": TEXT}  # what old clients say for `model`
NAMED = Body({"model": TEXT}, ("model",), {"model": "demo"}, OLD_NAME)
_SHOW = Body({"model": TEXT, "verbose": FLAG}, ("model",), {"model": "demo"}, OLD_NAME)
_DELETE = Body({"model": TEXT}, ("model",), {"model": "no-such-model"}, OLD_NAME)
_COPY = Body(
    {"source": TEXT, "destination": TEXT}, ("source", "destination"), {"source": "demo", "destination": "my-model"}
)


def add_routes(routes: Routes, service: Service, settings: ServerSettings) -> None:
    """Add the routes to Ollama's."""

    @routes.get("/api/tags", "The models on this machine")
    async def tags(request: Request) -> Response:
        return answer({"models": await asyncio.to_thread(listed_models, settings)})

    @routes.post("/api/show", "What is known of a model", _SHOW)
    async def show(request: Request) -> Response:
        fields = await read_fields(request, _SHOW, only_first=True)
        name, verbose = _required(fields, settings), fields.flag("verbose")
        try:
            return answer(await asyncio.to_thread(_show, name, verbose, settings))
        except (UnknownModelError, ModelNotHereError) as error:
            raise type(error)(f"model '{model_name(fields)}' not found{hint_of(error)}") from None

    @routes.get("/api/ps", "The models in memory")
    async def ps(request: Request) -> Response:
        return answer({"models": await asyncio.to_thread(_ps, service.loaded(), settings)})

    @routes.add(("DELETE",), "/api/delete", "Remove a model from this machine", _DELETE)
    async def delete(request: Request) -> Response:
        fields = await read_fields(request, _DELETE, only_first=True)
        try:
            name = _required(fields, settings)
        except names.InvalidNameError:
            raise BadRequestError(f'name "{model_name(fields)}" is invalid', "model") from None
        one = await asyncio.to_thread(_removable, name)
        await service.unload(one.name)
        await asyncio.to_thread(_remove, one)
        return Response()

    @routes.post("/api/copy", "Give a model another name", _COPY)
    async def copy(request: Request) -> Response:
        fields = await read_fields(request, _COPY, only_first=True)
        await asyncio.to_thread(_copy, fields.text("source") or "", fields.text("destination") or "", settings)
        return Response()


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON with the content type that Ollama gives."""
    return json_response(value, status, headers, "application/json; charset=utf-8")


async def known(name: str, settings: ServerSettings) -> Installed:
    """What is here under a name, found without holding up the others."""
    return await asyncio.to_thread(names.here, name, settings)


async def useful_dim(name: str, dim: int, settings: ServerSettings) -> int | None:
    """The dim to cut to, or None where Ollama would leave the vector whole: 0, below, native and above.

    Raises BadRequestError below DIM_MIN: Ollama would cut there too, to vectors that nobody has vouched for.
    """
    if dim <= 0:
        return None
    one = await known(name, settings)
    info = await asyncio.to_thread(names.described, one)
    if dim < DIM_MIN:
        raise BadRequestError(
            f"dimensions must be {DIM_MIN} or more, the least this model was made for, got {dim}", "dimensions"
        )
    return dim if dim < info.n_embd else None


def hint_of(error: ModelError) -> str:
    """Which models there are, as the end of Ollama's sentence about a model that is not here."""
    return f"; {error.hint}" if isinstance(error, UnknownModelError) and error.hint else ""


def rfc3339(moment: datetime | None = None) -> str:
    """A moment with fractions of a second and an offset; by default the present."""
    return (moment or datetime.now(UTC)).astimezone().isoformat(timespec="microseconds")


def model_name(fields: Fields) -> str | None:
    """The name as it was sent. Old clients say `name`."""
    return fields.text("model") or fields.text("name")


def _required(fields: Fields, settings: ServerSettings) -> str:
    name = model_name(fields)
    if not name:
        raise BadRequestError("model is required", "model")
    return names.checked(name, settings)


def listed_models(settings: ServerSettings) -> list[dict[str, Any]]:
    """Ollama's list of the models on this machine, newest file first."""
    found = []
    for name, one in names.listed(settings):
        with suppress(Q3EError, OSError):  # show, and q3e-local list, say that a file cannot be read
            found.append(_listed(name, one))
    return found


def _listed(name: str, one: Installed) -> dict[str, Any]:
    info, shown = names.described(one), names.short_form(name)
    return {
        "name": shown,
        "model": shown,
        "modified_at": _modified(one),
        "size": one.size_bytes,
        "digest": one.sha256 or info.digest,
        "details": _details(one) | {"context_length": info.n_ctx_train, "embedding_length": info.n_embd},
        "capabilities": ["embedding"],
    }


def _details(one: Installed) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "qwen3",
        "families": ["qwen3"],
        "parameter_size": _parameter_size(names.parameters(one)),
        "quantization_level": names.described(one).quantization.upper(),
    }


def _parameter_size(n_parameters: int) -> str:
    """Ollama's HumanNumber: `4.0B`, `595.78M`."""
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if n_parameters >= unit:
            return f"{n_parameters / unit:.{0 if n_parameters % unit == 0 else digits}f}{letter}"
    return str(n_parameters)


def _modified(one: Installed) -> str:
    return rfc3339(datetime.fromtimestamp(one.path.stat().st_mtime, UTC))


def _show(name: str, verbose: bool, settings: ServerSettings) -> dict[str, Any]:
    one = names.here(name, settings)
    header = names.header_of(one)
    found: dict[str, Any] = {
        # Ollama names the file. Clients of this server learn no paths of this machine here.
        "modelfile": f"# Made by q3e-local from the model's file\nFROM {names.short_form(name)}\n",
        "parameters": f"{'num_ctx':<30} {names.described(one).n_ctx_train}",
        "details": _details(one),
        "model_info": _metadata(header, verbose),
        "tensors": [
            {"name": tensor.name, "type": tensor.type_name, "shape": list(tensor.shape)}
            for tensor in header.tensors.values()
        ],
        "capabilities": ["embedding"],
        "modified_at": _modified(one),
    }
    with suppress(UnknownModelError):  # a file that the user imported has no card
        found["license"] = catalog.resolve(one.name)[0].license
    return found


def _metadata(header: Header, verbose: bool) -> dict[str, Any]:
    # A list is None in the header, and [] here: only the vocabulary was kept.
    metadata = {
        key: [] if value is None else value
        for key, value in header.metadata.items()
        if key not in ("general.name", "tokenizer.chat_template")
    }
    metadata["general.parameter_count"] = names.parameter_count(header)
    if verbose:
        metadata["tokenizer.ggml.tokens"] = [header.tokens[i] for i in range(len(header.tokens))]
        metadata["tokenizer.ggml.token_type"] = list(header.tokens.types)
    return metadata


def _ps(loaded: list[LoadedModel], settings: ServerSettings) -> list[dict[str, Any]]:
    found = []
    for model in loaded:
        shown = names.short_form(model.name)
        expires = (
            datetime.now(UTC) + _FOREVER
            if model.expires_at is None
            else datetime.fromtimestamp(model.expires_at, UTC)
        )
        entry: dict[str, Any] = {"name": shown, "model": shown, "size": model.size_bytes, "digest": "", "details": {}}
        with suppress(Q3EError, OSError):  # loaded, and its file removed since
            one = names.here(model.name, settings)
            entry |= {"digest": one.sha256 or names.described(one).digest, "details": _details(one)}
        entry |= {
            "expires_at": rfc3339(expires),
            "size_vram": model.size_bytes if model.on_gpu else 0,
            "context_length": model.n_ctx,
            "kernels": model.kernels.fields(),  # Ollama has no such field; `q3e-local ps` shows it
        }
        found.append(entry)
    return found


def _removable(name: str) -> Installed:
    try:
        return installed.removable(names.without_latest(name))
    except (UnknownModelError, ModelNotHereError) as error:
        raise type(error)(f"model '{name}' not found") from None


def _remove(one: Installed) -> None:
    """Remove a model. A file that this program downloaded, and that has a second name here, stays under that name."""
    with _changing:
        heir = next(
            (
                other
                for other in installed.installed()
                if other.path == one.path and other.name != one.name and other.origin == "imported"
            ),
            None,
        )
        if heir is not None and one.origin in installed.OURS:
            # The store deletes no file of an imported model.
            installed.record(replace(one, origin="imported"))
            installed.record(replace(heir, origin=one.origin))
        installed.remove(one.name)


def _copy(source: str, destination: str, settings: ServerSettings) -> None:
    """Record a model's file under another name."""
    for what, name in (("source", source), ("destination", destination)):
        try:
            names.checked(name)
        except names.InvalidNameError:
            raise BadRequestError(f'{what} "{name}" is invalid', what) from None
    target = names.without_latest(names.checked(destination)).lower()
    if not NAME_GRAMMAR.fullmatch(target) or target in settings.aliases or target.endswith((QUERY_SUFFIX, ".gguf")):
        raise BadRequestError(f'destination "{destination}" is invalid', "destination")
    with _changing:
        try:
            one = names.stored(names.without_latest(names.checked(source)))
        except (UnknownModelError, ModelNotHereError) as error:
            raise type(error)(f'model "{source}" not found') from None
        with suppress(UnknownModelError):
            card, file = catalog.resolve(target)
            raise BadRequestError(
                f'destination "{destination}" is invalid: it is the name of {card.tag(file.quantization)}',
                "destination",
            )
        there = installed.recorded(target)
        if there is not None and there.origin in installed.OURS:
            raise BadRequestError(f'destination "{destination}" is invalid: it is a model already', "destination")
        if there is None or there.path != one.path:
            installed.record(Installed(target, one.path, one.size_bytes, "imported", one.sha256))
