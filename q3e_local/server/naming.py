"""What a client's model name means: a file that is here, and what is done to texts under this name.

A name from a request never becomes a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from q3e_local import catalog, store
from q3e_local.card import ModelCard, ModelFile
from q3e_local.errors import OptionError, UnknownModelError
from q3e_local.prompts import Kind
from q3e_local.server.settings import Alias
from q3e_local.store import Located

QUERY_SUFFIX = "-query"
_LATEST = ":latest"  # Ollama's clients add it


@dataclass(frozen=True)
class Named:
    """A model, and what its name asks for where the request says nothing."""

    located: Located
    kind: Kind = "document"
    task: str | None = None
    instruction: str | None = None
    dim: int | None = None


class Names:
    """The names a server answers to: cards and records, each also with `-query`, and the user's own."""

    def __init__(self, aliases: Mapping[str, Alias], started_with: tuple[str, ...] = ()) -> None:
        self._aliases = aliases
        self._started_with = started_with

    def resolve(self, name: str) -> Named:
        """Raises UnknownModelError, ModelNotHereError with the ways to get it, or ModelFileError."""
        for spelled in _spellings(name):
            alias = self._aliases.get(spelled.lower())
            if alias is not None:
                return _under(alias, self._of_model(alias.model))
        return self._of_model(name)

    def _of_model(self, name: str) -> Named:
        for spelled in _spellings(name):
            found = self._located(spelled)
            if found is not None:
                return Named(found)
            if spelled.lower().endswith(QUERY_SUFFIX):
                found = self._located(spelled[: -len(QUERY_SUFFIX)])
                if found is not None:
                    return Named(found, kind="query")
        raise UnknownModelError(f"there is no model {name!r}; q3e-local list shows what is here")

    def _located(self, name: str) -> Located | None:
        """None where no model has this name."""
        try:
            if name in self._started_with:  # the user's own words, which may be a path
                return store.locate(name)
            by_path = self._file_started_with(name)
            if by_path is not None:
                return by_path
            if name.lower().endswith(".gguf"):
                return None
            if store.recorded(name) is None:
                catalog.resolve(name)
        except UnknownModelError:
            return None
        return store.locate(name)

    def _file_started_with(self, name: str) -> Located | None:
        """A file that the server was started with, by the name it is shown under."""
        for given in self._started_with:
            if given.lower().endswith(".gguf"):
                found = store.locate(given)
                if found.name == name:
                    return found
        return None


def to_pull(name: str) -> tuple[ModelCard, ModelFile]:
    """The card and file of a name to pull. Raises UnknownModelError."""
    for spelled in _spellings(name):
        for wanted in (spelled, spelled.removesuffix(QUERY_SUFFIX)):
            try:
                return catalog.resolve(wanted)
            except UnknownModelError:
                continue
    return catalog.resolve(name)


def _spellings(name: str) -> tuple[str, ...]:
    name = name.strip()
    return (name, name[: -len(_LATEST)]) if name.lower().endswith(_LATEST) else (name,)


def _under(alias: Alias, model: Named) -> Named:
    """What an alias adds to its model. With an instruction or a task of its own, texts are queries."""
    named = replace(model, dim=alias.dim)
    if alias.instruction is None and alias.task is None:
        return named
    if alias.instruction is not None and alias.task is not None:
        raise OptionError("an alias has an instruction or a task, not both")
    return replace(named, kind="query", task=alias.task, instruction=alias.instruction)
