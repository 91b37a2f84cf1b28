"""Which models there are: reads the cards in models/ and resolves a name to one of them.

Knows names and published facts; never looks for a model's file, and downloads nothing.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from q3e_local.errors import CardError, UnknownModelError

DEFAULT_MODEL = "qwen3-embedding:4b"


@dataclass(frozen=True)
class ModelFile:
    """One quantization of a model: a pinned file of a hub repository, or one shipped with this package."""

    quantization: str
    file: str
    repo: str | None = None  # None: shipped in the models folder
    revision: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ModelCard:
    """A model as people name it."""

    name: str
    aliases: tuple[str, ...]
    description: str
    license: str
    default: str
    files: dict[str, ModelFile]


def models_folder() -> Path:
    """Where the cards and the demo model are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


@cache
def cards() -> dict[str, ModelCard]:
    """All cards by name. Raises CardError naming file and key."""
    found = (read_card(path) for path in sorted(models_folder().glob("*.toml")))
    return {card.name: card for card in found}


def resolve(name: str) -> tuple[ModelCard, ModelFile]:
    """The card and file a name means: `qwen3-embedding:4b`, `qwen3-embedding:4b-q8_0`, or an alias, in any case.

    Raises UnknownModelError with the names there are.
    """
    wanted = name.strip().lower()
    for card in cards().values():
        for own in (card.name, *card.aliases):
            if wanted == own.lower():
                return card, card.files[card.default]
            for quantization, file in card.files.items():
                if wanted == f"{own}-{quantization}".lower():
                    return card, file
    raise UnknownModelError(
        f"there is no model {name!r}; choose from {', '.join(sorted(cards()))}, or give a path to a .gguf file"
    )


def read_card(path: Path) -> ModelCard:
    """Read one card. Raises CardError naming file and key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CardError(f"cannot read the card {path}: {error}") from None
    source = _key(path, data, "source", dict, default={})
    files = {
        quantization: _file(path, quantization, entry, source)
        for quantization, entry in _key(path, data, "files", dict).items()
    }
    default = _key(path, data, "default", str)
    if default not in files:
        raise CardError(f"{path}: default = {default!r}, but [files] has only {', '.join(files) or 'nothing'}")
    return ModelCard(
        name=_key(path, data, "name", str),
        aliases=tuple(_key(path, data, "aliases", list)),
        description=_key(path, data, "description", str),
        license=_key(path, data, "license", str),
        default=default,
        files=files,
    )


def _file(path: Path, quantization: str, entry: Any, source: dict[str, Any]) -> ModelFile:
    if not isinstance(entry, dict):
        raise CardError(f"{path}: files.{quantization} must be a table")
    if "bundled" in entry:
        return ModelFile(quantization, _key(path, entry, "bundled", str))
    return ModelFile(
        quantization,
        _key(path, entry, "file", str),
        _key(path, source, "repo", str),
        _key(path, source, "revision", str),
        _key(path, entry, "size_bytes", int),
        _key(path, entry, "sha256", str),
    )


def _key(path: Path, table: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise CardError(f"{path}: {key} must be a {kind.__name__}, got {value!r}")
    return value
