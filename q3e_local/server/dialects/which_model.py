"""Which model answers a request: the model it names, else the server's own of the kind that the route needs.

Knows the field `model`, and which models the server was started with, has loaded or has on this machine; nothing of
the rest of a request.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from q3e_local.errors import ModelNotHereError, Q3EError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models import installed as store
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.models.installed import Installed
from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.models.names import served_as
from q3e_local.server.dialects import names
from q3e_local.server.dialects.fields import Fields
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings

_DEFAULTS: dict[ModelKind, str] = {"embedder": DEFAULT_MODEL, "reranker": DEFAULT_RERANKER}


class WhichModel:
    """Chooses for the dialects whose clients need not name a model, all but Ollama's and our own, and the reranker
    of a search in two stages."""

    def __init__(self, service: Service, settings: ServerSettings, notices: Notices) -> None:
        self._service, self._settings, self._notices = service, settings, notices
        # Of the models named at the start. Looked up once: every request that names no model would read records.
        self._kinds: dict[str, ModelKind] = {}

    async def of(self, fields: Fields, kind: ModelKind | None = "embedder") -> str:
        """The model that a request names, else the server's. The log says once that requests name no model.

        Raises BadRequestError for a name that is no text, InvalidNameError, and what `own` raises.
        """
        named = fields.text("model")
        if named:
            return names.checked(named, self._settings)
        name, why = await self._own(kind)
        what = "requests to rank" if kind == "reranker" else "requests"
        self._notices.once(f"{what} that name no model are answered by {name}, {why}")
        return name

    async def own(self, kind: ModelKind | None = "embedder") -> str:
        """The model of this kind that answers when a request names none; None: the server's main model.

        Raises ModelNotHereError if there is none.
        """
        return (await self._own(kind))[0]

    async def _own(self, kind: ModelKind | None) -> tuple[str, str]:
        """Of this kind the first model named at the start, else a loaded one, else the default, else the only one
        here; and why. Without a kind the first model named at the start, else an embedder, else a reranker.

        The demo models answer by name only: they are for trying out, not for quality.
        """
        if kind is None and self._settings.models:
            return served_as(self._settings.models[0]), "which was named at the start"
        if kind is None:
            try:
                return await self._own("embedder")
            except ModelNotHereError as error:
                try:
                    return await self._own("reranker")
                except ModelNotHereError:
                    raise error from None
        named = await asyncio.to_thread(self._named_at_the_start, kind)
        if named is not None:
            return named, "which was named at the start"
        loaded = next((model.name for model in self._service.loaded() if model.kind == kind), None)
        if loaded is not None:
            return loaded, "which is loaded"
        return await asyncio.to_thread(_here, kind)

    def _named_at_the_start(self, kind: ModelKind) -> str | None:
        for name in map(served_as, self._settings.models):
            if name not in self._kinds:
                with suppress(Q3EError, OSError):
                    self._kinds[name] = names.described(names.here(name, self._settings)).kind
            # One that cannot be read counts as an embedder: the request then says what is wrong with it.
            if self._kinds.get(name, "embedder") == kind:
                return name
        return None


def _here(kind: ModelKind) -> tuple[str, str]:
    """The default model of this kind, else the only one on this machine, and why. Raises ModelNotHereError."""
    installed = [model for model in store.installed() if _is(model, kind)]
    here = [model.name for model in installed if model.origin != "bundled"]
    default, what = _DEFAULTS[kind], "model" if kind == "embedder" else "reranker"
    if default in here:
        return default, f"the default {what}"
    if len(here) == 1:
        return here[0], f"the only {what} on this machine"
    bring = f"bring {default} here with POST /api/pull, or q3e-local pull {default}"
    said = f"the request names no {what}, and the default is not on this machine"
    listed = ", ".join(model.name for model in installed)
    raise ModelNotHereError(f"{said}: name one of {listed}; or {bring}")


def _is(model: Installed, kind: ModelKind) -> bool:
    try:
        return names.described(model).kind == kind
    except (Q3EError, OSError):
        return kind == "embedder"
