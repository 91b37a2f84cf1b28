"""Model names on the wire: Ollama's grammar, the short form with a tag, and what is here under a name.

Knows names, cards and the store. A name never becomes a path: what is not in the store is not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from math import prod
from pathlib import Path

from q3e_local import catalog, store
from q3e_local.errors import ModelNotHereError, OptionError, UnknownModelError
from q3e_local.gguf_header import Header, read_header
from q3e_local.model_file import ModelInfo, inspect
from q3e_local.server.settings import Alias
from q3e_local.store import Installed

QUERY_SUFFIX = "-query"  # `qwen3-embedding:4b-query` is the model with its query instruction

# https://github.com/ollama/ollama/blob/main/types/model/name.go
_NAME = re.compile(
    r"(?:https?://)?(?:[a-z0-9_][a-z0-9_.:-]{0,349}/)?(?:[a-z0-9_][a-z0-9_-]{0,79}/)?"
    r"[a-z0-9_][a-z0-9_.-]{0,79}(?::[a-z0-9_][a-z0-9_.-]{0,79})?",
    re.IGNORECASE | re.ASCII,
)


class InvalidNameError(OptionError):
    """Not a model name at all."""


def own_name(name: str) -> str:
    """The name as cards and records have it, without the tag `latest` that Ollama's clients add.

    Raises InvalidNameError for what the grammar has not, UnknownModelError for what would be a file's name.
    """
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise InvalidNameError("invalid model name")
    if name.lower().endswith(".gguf"):
        raise UnknownModelError(f"there is no model {name!r}: a request names models, not files")
    short = name[: -len(":latest")] if name.lower().endswith(":latest") else name
    if short == name or store.recorded(name) is not None:
        return name
    try:
        catalog.resolve(name)
    except UnknownModelError:
        return short
    return name


def short_form(name: str) -> str:
    """How Ollama shows a name: always with its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def here(name: str, aliases: Mapping[str, Alias]) -> Installed:
    """What is here under a name; one for queries, or of the user's own, means its model.

    Raises InvalidNameError, UnknownModelError or ModelNotHereError.
    """
    own = own_name(name)
    if own.lower() in aliases:
        own = own_name(aliases[own.lower()].model)
    try:
        return stored(own)
    except UnknownModelError:
        if not own.lower().endswith(QUERY_SUFFIX):
            raise
        return stored(own[: -len(QUERY_SUFFIX)])


def stored(name: str) -> Installed:
    """What is here under this very name, which `own_name` has judged."""
    found = store.recorded(name)
    if found is None:
        card, file = catalog.resolve(name)
        found = store.find(card, file)
    if found is None or not found.is_whole:
        raise ModelNotHereError(f"{name} is not on this machine; get it with: q3e-local pull {name}")
    return found


def listed(aliases: Mapping[str, Alias]) -> list[tuple[str, Installed]]:
    """All models here with their names, those of the user's own among them, newest file first."""
    found = {one.name: one for one in store.installed()}
    for alias, meant in aliases.items():
        with suppress(UnknownModelError, ModelNotHereError, InvalidNameError):
            found.setdefault(alias, here(meant.model, {}))
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


@lru_cache(maxsize=64)
def _inspect(path: Path, mtime_ns: int) -> ModelInfo:
    return inspect(path)


@lru_cache(maxsize=64)
def _parameters(path: Path, mtime_ns: int) -> int:
    return parameter_count(read_header(path))
