"""Model names on the wire: Ollama's grammar, the short form with a tag, and what is here under a name.

Knows the store and the headers of model files; models/names.py says what a name means.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePath

from q3e_local.errors import ModelError, ModelNotHereError, OptionError
from q3e_local.gguf.model_file import ModelInfo, inspect
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models import catalog, installed
from q3e_local.models.installed import Installed
from q3e_local.models.names import served_as
from q3e_local.server.served_names import ServedNames
from q3e_local.server.settings import ServerSettings

_LATEST = ":latest"

# https://github.com/ollama/ollama/blob/main/types/model/name.go
_NAME = re.compile(
    r"(?:https?://)?(?:[a-z0-9_][a-z0-9_.:-]{0,349}/)?(?:[a-z0-9_][a-z0-9_-]{0,79}/)?"
    r"[a-z0-9_][a-z0-9_.-]{0,79}(?::[a-z0-9_][a-z0-9_.-]{0,79})?",
    re.IGNORECASE | re.ASCII,
)


class InvalidNameError(OptionError):
    """Not a model name at all."""


def checked(name: str, settings: ServerSettings | None = None) -> str:
    """A client's name, without spaces around it.

    Raises InvalidNameError for a name outside the grammar; with `settings` the error says where names are listed.
    """
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise InvalidNameError(f"invalid model name{_instead(name, settings)}")
    return name


def without_latest(name: str) -> str:
    """The name without Ollama's usual tag, unless a record has the name with the tag."""
    is_short = name.lower().endswith(_LATEST) and installed.recorded(name) is None
    return name[: -len(_LATEST)] if is_short else name


def short_form(name: str) -> str:
    """How Ollama shows a name: always with its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}{_LATEST}"


def here(name: str, settings: ServerSettings) -> Installed:
    """The file that a name means: a model's, a name for queries, an alias or an imported file.

    Raises UnknownModelError, ModelNotHereError or ModelFileError.
    """
    located = ServedNames(settings).resolve(name).located
    record = installed.recorded(located.name)
    if record is not None and record.path == located.path:
        return replace(record, kind=located.kind)
    if not located.path.is_file():
        raise ModelNotHereError(f"{located.name} is not on this machine: there is no file {located.path.name}")
    return Installed(located.name, located.path, located.path.stat().st_size, "found", kind=located.kind)


def listed(settings: ServerSettings) -> list[tuple[str, Installed]]:
    """All models here by name, with the files and aliases that the server was started with.

    The newest file is first, as in Ollama, and what comes with this program last: a client may take the first.
    """
    models = {model.name: model for model in installed.installed()}
    for name in (*map(served_as, settings.models), *settings.aliases):
        with suppress(ModelError):
            model = here(name, settings)
            models.setdefault(name if name in settings.aliases else model.name, model)

    def place(item: tuple[str, Installed]) -> tuple[bool, float]:
        is_bundled = item[1].origin == "bundled"
        return is_bundled, 0 if is_bundled else -item[1].path.stat().st_mtime

    return sorted(models.items(), key=place)


def described(model: Installed) -> ModelInfo:
    """Facts of the model's file, its kind among them. Raises ModelError, and OSError for a file that is gone."""
    known = catalog.find(model.name)
    kind = known[0].kind if model.kind is None and known is not None else model.kind
    return _described(model.path, kind, model.path.stat().st_mtime_ns)


def label(kind: ModelKind) -> str:
    """What a model is for, as several servers write it in their lists."""
    return "embedding" if kind == "embedder" else "reranker"


def capabilities(kind: ModelKind) -> list[str]:
    """What a model can do, as Ollama lists it; Ollama itself has no word for rerankers."""
    return ["embedding"] if kind == "embedder" else ["rerank"]


def _instead(name: str, settings: ServerSettings | None) -> str:
    if settings is None:
        return ""
    file = PurePath(name).name
    for model in settings.models:
        if file and PurePath(model).name == file:
            return f": this file is served as {served_as(model)!r}"
    return "; /api/tags and /v1/models list those there are"


@lru_cache(maxsize=64)
def _described(path: Path, kind: ModelKind | None, mtime_ns: int) -> ModelInfo:
    """Facts of a model's file. `mtime_ns` makes a changed file a new entry of the cache."""
    return inspect(path, kind)
