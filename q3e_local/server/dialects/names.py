"""Model names on the wire: Ollama's grammar, the short form with a tag, and what is here under a name.

Knows the store and the headers of model files; models/names.py says what a name means.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from math import prod
from pathlib import Path, PurePath

from q3e_local.errors import ModelError, ModelNotHereError, OptionError
from q3e_local.gguf.header import Header, read_header
from q3e_local.gguf.model_file import ModelInfo, inspect
from q3e_local.models import catalog, installed
from q3e_local.models.installed import Installed
from q3e_local.server.served_names import ServedNames, served_as
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

    Raises InvalidNameError for what the grammar has not; with `settings` it says where to find one.
    """
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise InvalidNameError(f"invalid model name{_instead(name, settings)}")
    return name


def without_latest(name: str) -> str:
    """The name that a record has, where a client has put Ollama's usual tag behind it."""
    is_short = name.lower().endswith(_LATEST) and installed.recorded(name) is None
    return name[: -len(_LATEST)] if is_short else name


def short_form(name: str) -> str:
    """How Ollama shows a name: always with its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}{_LATEST}"


def here(name: str, settings: ServerSettings) -> Installed:
    """The file that a name means: a model's, a name for queries, an alias or an imported file.

    Raises UnknownModelError, ModelNotHereError or ModelFileError.
    """
    found = ServedNames(settings).resolve(name).located
    record = installed.recorded(found.name)
    if record is not None and record.path == found.path:
        return record
    if not found.path.is_file():
        raise ModelNotHereError(f"{found.name} is not on this machine: there is no file {found.path.name}")
    return Installed(found.name, found.path, found.path.stat().st_size, "found")


def stored(name: str) -> Installed:
    """The file of this very model, not of a name made of it. Raises UnknownModelError or ModelNotHereError."""
    found = installed.recorded(name)
    if found is None:
        card, file = catalog.resolve(name)
        found = installed.find(card, file)
    if found is None or not found.is_whole:
        raise ModelNotHereError(f"{name} is not on this machine; get it with: q3e-local pull {name}")
    return found


def listed(settings: ServerSettings) -> list[tuple[str, Installed]]:
    """All models here by name, newest file first; with them the files and names that the server was started with."""
    found = {one.name: one for one in installed.installed()}
    for name in map(served_as, settings.models):
        with suppress(ModelError):
            one = here(name, settings)
            found.setdefault(one.name, one)
    for name in settings.aliases:
        with suppress(ModelError):
            found.setdefault(name, here(name, settings))
    return sorted(found.items(), key=lambda item: -item[1].path.stat().st_mtime)


def described(one: Installed) -> ModelInfo:
    """What the model's file says; read once as long as the file stays the same."""
    return _inspect(one.path, one.path.stat().st_mtime_ns)


def header_of(one: Installed) -> Header:
    """The file's header, with its tensors."""
    return read_header(one.path)


def parameter_count(header: Header) -> int:
    """How many numbers the model has."""
    return sum(prod(tensor.shape) for tensor in header.tensors.values())


def parameters(one: Installed) -> int:
    """The same for an installed model; read once as long as the file stays the same."""
    return _parameters(one.path, one.path.stat().st_mtime_ns)


def _instead(name: str, settings: ServerSettings | None) -> str:
    if settings is None:
        return ""
    file = PurePath(name).name
    for given in settings.models:
        if file and PurePath(given).name == file:
            return f": this file is served as {served_as(given)!r}"
    return "; /api/tags and /v1/models list those there are"


@lru_cache(maxsize=64)
def _inspect(path: Path, mtime_ns: int) -> ModelInfo:
    return inspect(path)


@lru_cache(maxsize=64)
def _parameters(path: Path, mtime_ns: int) -> int:
    return parameter_count(read_header(path))
