"""Which model answers a request: the model it names, else the server's own.

Knows the field `model` and which models the server was started with or has loaded; nothing of what is asked of them.
"""

from __future__ import annotations

from q3e_local.catalog import DEFAULT_MODEL
from q3e_local.server.dialects import names
from q3e_local.server.dialects.body import Fields
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.naming import served_as
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings


class WhichModel:
    """Chooses for the dialects whose clients need not name a model: OpenAI's, llama-server's and TEI's."""

    def __init__(self, service: Service, settings: ServerSettings, notices: Notices) -> None:
        self._service, self._settings, self._notices = service, settings, notices

    def of(self, fields: Fields) -> str:
        """The model that a request names; the server's own if it names none, which the log says once.

        Raises BadRequestError for a name that is no text, and InvalidNameError.
        """
        given = fields.text("model")
        if given:
            return names.checked(given, self._settings)
        name, why = self._own()
        self._notices.once(f"requests that name no model are answered by {name}, {why}")
        return name

    def own(self) -> str:
        """The model that answers when a request names none."""
        return self._own()[0]

    def _own(self) -> tuple[str, str]:
        """The first model named at the start, else the loaded one with the longest time left, else the default."""
        if self._settings.models:
            return served_as(self._settings.models[0]), "which was named at the start"
        loaded = self._service.loaded()
        if loaded:
            return loaded[0].name, "which is loaded"
        return DEFAULT_MODEL, "the default model"
