"""Ollama's routes for the models on this machine: list, show, what is loaded, copy, delete.

Knows Ollama's JSON, the store and the cards; leaves getting a model here to ollama_pull.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from q3e_local.embedding.request import DIM_MIN
from q3e_local.errors import ModelNotHereError, Q3EError, UnknownModelError
from q3e_local.gguf.header import Header, read_header
from q3e_local.models import catalog, installed
from q3e_local.models.card import NAME_GRAMMAR
from q3e_local.models.installed import Installed
from q3e_local.models.names import QUERY_SUFFIX
from q3e_local.server.dialects import names
from q3e_local.server.dialects.fields import FLAG, TEXT, Body, Fields, Schema
from q3e_local.server.dialects.routes import Routes, json_utf8_response
from q3e_local.server.errors import BadRequestError
from q3e_local.server.service import LoadedModel, Service
from q3e_local.server.settings import ServerSettings

_FOREVER = timedelta(days=292 * 365)  # Ollama's command shows it as `Forever`
_changing = threading.Lock()  # a copy must not record a file that a delete is removing

OLD_NAME: dict[str, Schema] = {"name": TEXT}  # old clients write it for `model`
NAMED = Body({"model": TEXT}, ("model",), {"model": "demo"}, OLD_NAME)
_SHOW = Body({"model": TEXT, "verbose": FLAG}, ("model",), {"model": "demo"}, OLD_NAME)
_DELETE = Body({"model": TEXT}, ("model",), {"model": "no-such-model"}, OLD_NAME)
_COPY = Body(
    {"source": TEXT, "destination": TEXT}, ("source", "destination"), {"source": "demo", "destination": "my-model"}
)


def add_routes(routes: Routes, service: Service, settings: ServerSettings) -> None:
    @routes.get("/api/tags", "The models on this machine")
    async def tags(request: Request) -> Response:
        return json_utf8_response({"models": await asyncio.to_thread(listed_models, settings)})

    @routes.with_body("/api/show", _SHOW, "What is known of a model")
    async def show(fields: Fields) -> Response:
        name, verbose = _required(fields, settings), fields.flag("verbose")
        with not_found(f"model '{model_name(fields)}' not found"):
            return json_utf8_response(await asyncio.to_thread(_show, name, verbose, settings))

    @routes.get("/api/ps", "The models in memory")
    async def ps(request: Request) -> Response:
        await service.look()
        return json_utf8_response({"models": await asyncio.to_thread(_ps, service.loaded(), settings)})

    @routes.with_body(
        "/api/delete", _DELETE, "Remove a model from this machine", method="DELETE", runs_to_its_end=True
    )
    async def delete(fields: Fields) -> Response:
        try:
            name = _required(fields, settings)
        except names.InvalidNameError:
            raise BadRequestError(f'name "{model_name(fields)}" is invalid', "model") from None
        model = await asyncio.to_thread(_removable, name)
        await service.unload(model.name)
        await asyncio.to_thread(_remove, model)
        return Response()

    @routes.with_body("/api/copy", _COPY, "Give a model another name", runs_to_its_end=True)
    async def copy(fields: Fields) -> Response:
        await asyncio.to_thread(_copy, fields.text("source") or "", fields.text("destination") or "", settings)
        return Response()


async def useful_dim(name: str, dim: int, settings: ServerSettings) -> int | None:
    """The dim to cut to, or None where Ollama would leave the vector whole: 0, below, native and above.

    Raises BadRequestError below DIM_MIN: Ollama would cut there too, to vectors that nobody has vouched for.
    """
    if dim <= 0:
        return None
    model = await asyncio.to_thread(names.here, name, settings)
    facts = await asyncio.to_thread(names.described, model)
    if dim < DIM_MIN:
        raise BadRequestError(
            f"dimensions must be {DIM_MIN} or more, the least this model was made for, got {dim}", "dimensions"
        )
    return dim if dim < facts.n_embd else None


@contextmanager
def not_found(sentence: str) -> Iterator[None]:
    """Say in Ollama's sentence that a model is not here; where a client can use them, the names there are follow."""
    try:
        yield
    except (UnknownModelError, ModelNotHereError) as error:
        hint = f"; {error.hint}" if isinstance(error, UnknownModelError) and error.hint else ""
        raise type(error)(f"{sentence}{hint}") from None


def rfc3339(moment: datetime | None = None) -> str:
    """A moment with fractions of a second and an offset; by default the present."""
    return (moment or datetime.now(UTC)).astimezone().isoformat(timespec="microseconds")


def model_name(fields: Fields) -> str | None:
    """The model's name as it was sent, in `model` or in the old clients' `name`."""
    return fields.text("model") or fields.text("name")


def _required(fields: Fields, settings: ServerSettings) -> str:
    name = model_name(fields)
    if not name:
        raise BadRequestError("model is required", "model")
    return names.checked(name, settings)


def listed_models(settings: ServerSettings) -> list[dict[str, Any]]:
    """Ollama's list of the models on this machine, newest file first."""
    models = []
    for name, model in names.listed(settings):
        with suppress(Q3EError, OSError):  # show, and q3e-local list, say that a file cannot be read
            models.append(_listed(name, model))
    return models


def _listed(name: str, model: Installed) -> dict[str, Any]:
    facts, shown = names.described(model), names.short_form(name)
    return {
        "name": shown,
        "model": shown,
        "modified_at": _modified(model),
        "size": model.size_bytes,
        "digest": model.sha256 or facts.digest,
        "details": _details(model) | {"context_length": facts.n_ctx_train, "embedding_length": facts.n_embd},
        "capabilities": names.capabilities(facts.kind),
    }


def _details(model: Installed) -> dict[str, Any]:
    facts = names.described(model)
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "qwen3",
        "families": ["qwen3"],
        "parameter_size": _parameter_size(facts.n_parameters),
        "quantization_level": facts.quantization.upper(),
    }


def _parameter_size(n_parameters: int) -> str:
    """Ollama's HumanNumber: `4.0B`, `595.78M`."""
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if n_parameters >= unit:
            return f"{n_parameters / unit:.{0 if n_parameters % unit == 0 else digits}f}{letter}"
    return str(n_parameters)


def _modified(model: Installed) -> str:
    return rfc3339(datetime.fromtimestamp(model.path.stat().st_mtime, UTC))


def _show(name: str, verbose: bool, settings: ServerSettings) -> dict[str, Any]:
    model = names.here(name, settings)
    header, facts = read_header(model.path), names.described(model)
    shown: dict[str, Any] = {
        # Ollama names the file. Clients of this server learn no paths of this machine here.
        "modelfile": f"# Made by q3e-local from the model's file\nFROM {names.short_form(name)}\n",
        "parameters": f"{'num_ctx':<30} {facts.n_ctx_train}",
        "details": _details(model),
        "model_info": _metadata(header, facts.n_parameters, verbose),
        "tensors": [
            {"name": tensor.name, "type": tensor.type_name, "shape": list(tensor.shape)}
            for tensor in header.tensors.values()
        ],
        "capabilities": names.capabilities(facts.kind),
        "modified_at": _modified(model),
    }
    with suppress(UnknownModelError):  # a file that the user imported has no card
        shown["license"] = catalog.resolve(model.name)[0].license
    return shown


def _metadata(header: Header, n_parameters: int, verbose: bool) -> dict[str, Any]:
    # A list is None in the header, which keeps the vocabulary alone, and [] here.
    metadata = {
        key: [] if value is None else value
        for key, value in header.metadata.items()
        if key not in ("general.name", "tokenizer.chat_template")
    }
    metadata["general.parameter_count"] = n_parameters
    if verbose:
        metadata["tokenizer.ggml.tokens"] = [header.tokens[i] for i in range(len(header.tokens))]
        metadata["tokenizer.ggml.token_type"] = list(header.tokens.types)
    return metadata


def _ps(loaded: list[LoadedModel], settings: ServerSettings) -> list[dict[str, Any]]:
    entries = []
    for model in loaded:
        shown, digest, details = names.short_form(model.name), "", {}
        with suppress(Q3EError, OSError):  # loaded, and its file removed since
            here = names.here(model.name, settings)
            digest, details = here.sha256 or names.described(here).digest, _details(here)
        at = model.expires_at
        until = datetime.now(UTC) + _FOREVER if at is None else datetime.fromtimestamp(at, UTC)
        entry = {
            "name": shown,
            "model": shown,
            "size": model.size_bytes,
            "digest": digest,
            "details": details,
            "expires_at": rfc3339(until),
            "size_vram": model.gpu_bytes,
            "context_length": model.n_ctx,
            # Ollama has none of these.
            "capabilities": names.capabilities(model.kind),
            "kernels": model.kernels.fields(),
            "placement": model.placement.fields(),
        }
        entries.append(entry)
    return entries


def _removable(name: str) -> Installed:
    with not_found(f"model '{name}' not found"):
        return installed.removable(names.without_latest(name))


def _remove(model: Installed) -> None:
    """Remove a model. A file that this program downloaded, and that has a second name here, stays under that name."""
    with _changing:
        seconds = [
            second
            for second in installed.installed()
            if second.path == model.path and second.name != model.name and second.origin == "imported"
        ]
        if seconds and model.origin in installed.OURS:
            # The store deletes no file of an imported model, so the second name takes the file over.
            installed.record(replace(model, origin="imported"))
            installed.record(replace(seconds[0], origin=model.origin))
        installed.remove(model.name)


def _valid(field: str, name: str) -> str:
    """The name in a field without Ollama's usual tag. Raises BadRequestError for what is no model name."""
    try:
        return names.without_latest(names.checked(name))
    except names.InvalidNameError:
        raise BadRequestError(f'{field} "{name}" is invalid', field) from None


def _copy(source: str, destination: str, settings: ServerSettings) -> None:
    """Record a model's file under another name."""
    original, target = _valid("source", source), _valid("destination", destination).lower()
    if not NAME_GRAMMAR.fullmatch(target) or target in settings.aliases or target.endswith((QUERY_SUFFIX, ".gguf")):
        raise BadRequestError(f'destination "{destination}" is invalid', "destination")
    with _changing:
        with not_found(f'model "{source}" not found'):
            model = installed.recorded(original) or installed.find(*catalog.resolve(original))
            if model is None or not model.is_whole:
                raise ModelNotHereError(original)
        with suppress(UnknownModelError):
            card, file = catalog.resolve(target)
            raise BadRequestError(
                f'destination "{destination}" is invalid: it is the name of {card.tag(file.quantization)}',
                "destination",
            )
        there = installed.recorded(target)
        if there is not None and there.origin in installed.OURS:
            raise BadRequestError(f'destination "{destination}" is invalid: it is a model already', "destination")
        if there is None or there.path != model.path:
            installed.record(Installed(target, model.path, model.size_bytes, "imported", model.sha256))
