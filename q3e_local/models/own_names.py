"""Names that the user made: the `[aliases]` of `config.toml`.

Knows the file and its keys; nothing of which models there are.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from q3e_local.embedding.prompts import TASKS
from q3e_local.embedding.request import DIM_MIN
from q3e_local.errors import OptionError
from q3e_local.files import config_folder
from q3e_local.models.card import NAME_GRAMMAR


@dataclass(frozen=True)
class Alias:
    """A further name of a model, and what is done to every text under this name."""

    model: str
    instruction: str | None = None  # with it, or with a task, texts are queries
    task: str | None = None
    dim: int | None = None


def config_file() -> Path:
    """The file where the user writes aliases."""
    return config_folder() / "config.toml"


def read_aliases(path: Path | None = None) -> Mapping[str, Alias]:
    """The aliases of a config file, by default the user's, by name in lower case; none where there is no file.

    Raises OptionError naming file and key.
    """
    path = config_file() if path is None else path
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is no TOML: {error}") from None
    for key in content:
        if key != "aliases":
            raise OptionError(f"{path}: there is no setting {key!r}; it may have [aliases]")
    aliases = content.get("aliases", {})
    if not isinstance(aliases, dict):
        raise OptionError(f"{path}: aliases must be a table, as in [aliases]")
    return {name.lower(): _alias(f"{path}: aliases.{name}", name, value) for name, value in aliases.items()}


def _alias(where: str, name: str, value: Any) -> Alias:
    if not NAME_GRAMMAR.fullmatch(name.lower()):
        raise OptionError(f"{where} is no model name: letters, digits, '_', '-', '.', one ':' for a tag")
    if not isinstance(value, dict):
        model = value if isinstance(value, str) and value.strip() else "MODEL"
        raise OptionError(f"{where} must be a table such as {{model = {json.dumps(model)}, dim = 256}}")
    kinds: dict[str, type] = {"model": str, "instruction": str, "task": str, "dim": int}
    for key, setting in value.items():
        if key not in kinds:
            raise OptionError(f"{where}: there is no key {key!r}; there are {', '.join(kinds)}")
        if type(setting) is not kinds[key] or not str(setting).strip():
            what = "a whole number" if kinds[key] is int else "a text that is not empty"
            raise OptionError(f"{where}.{key} must be {what}, got {setting!r}")
    if "model" not in value:
        raise OptionError(f"{where}.model is missing: the model this name stands for")
    if value["model"].lower() == name.lower():
        raise OptionError(f"{where}.model is the alias itself")
    if "instruction" in value and "task" in value:
        raise OptionError(f"{where} has an instruction and a task; give one of them")
    if value.get("task", "retrieval") not in TASKS:
        raise OptionError(f"{where}.task must be one of {', '.join(TASKS)}, got {value['task']!r}")
    if value.get("dim", DIM_MIN) < DIM_MIN:
        raise OptionError(f"{where}.dim must be {DIM_MIN} or more, got {value['dim']}")
    return Alias(**value)
