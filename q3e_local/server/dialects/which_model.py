"""Which model answers a request: the model it names, else the server's own.

Knows the field `model` and which models the server was started with or has loaded; nothing of the rest of a request.
"""

from __future__ import annotations

import asyncio

from q3e_local.errors import ModelNotHereError
from q3e_local.models import installed as store
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.server.dialects import names
from q3e_local.server.dialects.fields import Fields
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.served_names import served_as
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings


class WhichModel:
    """Chooses for the dialects whose clients need not name a model: OpenAI's, llama-server's and TEI's."""

    def __init__(self, service: Service, settings: ServerSettings, notices: Notices) -> None:
        self._service, self._settings, self._notices = service, settings, notices

    async def of(self, fields: Fields) -> str:
        """The model that a request names, else the server's. The log says once that requests name no model.

        Raises BadRequestError for a name that is no text, InvalidNameError, and what `own` raises.
        """
        named = fields.text("model")
        if named:
            return names.checked(named, self._settings)
        name, why = await self._own()
        self._notices.once(f"requests that name no model are answered by {name}, {why}")
        return name

    async def own(self) -> str:
        """The model that answers when a request names none. Raises ModelNotHereError if there is none."""
        return (await self._own())[0]

    async def _own(self) -> tuple[str, str]:
        """The first model named at the start, else a loaded one, else the default, else the only model here; and why.

        The demo model answers by name only: its vectors are for trying out, not for quality.
        """
        if self._settings.models:
            return served_as(self._settings.models[0]), "which was named at the start"
        loaded = self._service.loaded()
        if loaded:
            return loaded[0].name, "which is loaded"
        installed = await asyncio.to_thread(store.installed)
        here = [model.name for model in installed if model.origin != "bundled"]
        if DEFAULT_MODEL in here:
            return DEFAULT_MODEL, "the default model"
        if len(here) == 1:
            return here[0], "the only model on this machine"
        raise ModelNotHereError(
            f"the request names no model, and the default is not on this machine: name one of "
            f"{', '.join(model.name for model in installed)}; or bring {DEFAULT_MODEL} here with POST /api/pull, or "
            f"q3e-local pull {DEFAULT_MODEL}"
        )
