"""What a model's name means, here and on a server: a file, and what is done to texts under this name.

A name is a model's own (of a card or a record), one of the user's aliases, either of them with `-query` behind it,
or a path. Knows the store, cards and aliases; loads nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from q3e_local.embedding.preparing import Defaults
from q3e_local.errors import ModelNotHereError, OptionError, UnknownModelError
from q3e_local.models import catalog, installed
from q3e_local.models.card import NAME_GRAMMAR, ModelCard, ModelFile
from q3e_local.models.installed import Located
from q3e_local.models.own_names import Alias, config_file, read_aliases

QUERY_SUFFIX = "-query"
_LATEST = ":latest"  # Ollama's clients add it


@dataclass(frozen=True)
class Named:
    """A model, and what its name stands for where a request says nothing."""

    located: Located
    defaults: Defaults


def resolve(name: str | os.PathLike[str]) -> Named:
    """What a name means that the user typed.

    Raises what Names.resolve does, and OptionError for a wrong config file.
    """
    return Named(installed.locate(name), Defaults()) if isinstance(name, os.PathLike) else Names().resolve(name)


def served_as(model: str) -> str:
    """The name that clients use for a model of `--model`: for a path, one made of the file's name without suffix."""
    path = installed.path_of(model)
    if path is None:
        return model
    stem = path.name.removesuffix(path.suffix) if path.suffix.lower() == ".gguf" else path.name
    if NAME_GRAMMAR.fullmatch(stem.lower()):
        return stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "model"


class Names:
    """All names there are. Without `files`, a name may also be a path; with them, only these files have names."""

    def __init__(
        self, aliases: Mapping[str, Alias] | None = None, files: Mapping[str, Located] | None = None
    ) -> None:
        self._aliases = read_aliases() if aliases is None else aliases
        self._files = files

    def resolve(self, name: str) -> Named:
        """The file and what is done to texts.

        Raises what `meaning` does, ModelNotHereError with the ways to get it, or ModelFileError.
        """
        model, defaults = self.meaning(name)
        if self._files is not None and model.lower() in self._files:
            return Named(self._files[model.lower()], defaults)
        return Named(installed.locate(model), defaults)

    def meaning(self, name: str) -> tuple[str, Defaults]:
        """The model's name without alias and suffix, and what is done to texts.

        Raises UnknownModelError, or OptionError for `-query` behind a name that is for queries already.
        """
        for spelled in _spellings(name):
            alias = self._aliases.get(spelled.lower())
            if alias is not None and self._is_model(spelled):
                raise OptionError(f"{config_file()}: aliases.{spelled} has the name of a model; give it another")
            if alias is not None:
                return self._alias_meaning(spelled, alias)
            if self._is_model(spelled):
                return spelled, Defaults()
            base = spelled[: -len(QUERY_SUFFIX)]
            if spelled.lower().endswith(QUERY_SUFFIX) and self._is_name(base):
                model, defaults = self.meaning(base)
                if defaults.kind == "query":
                    raise OptionError(f"texts under {base!r} are queries already; leave the last {QUERY_SUFFIX} out")
                return model, replace(defaults, kind="query")
        raise catalog.unknown(name, (*self._aliases, *installed.recorded_names()))

    def to_pull(self, name: str) -> tuple[ModelCard, ModelFile]:
        """The card and file that bring this name here. Raises what `meaning` does, also for what has no card."""
        return catalog.resolve(self.meaning(name)[0].removesuffix(_LATEST))

    def check_aliases(self) -> list[str]:
        """A sentence for each alias whose model is not here yet.

        Raises OptionError for an alias that can never work: its model is unknown or has fewer dimensions, or its name
        is a model's.
        """
        doubts = []
        for name, alias in self._aliases.items():
            where = f"{config_file()}: aliases.{name}"
            if self._is_model(name):
                raise OptionError(f"{where} has the name of a model; give it another")
            try:
                model = self.meaning(name)[0]
            except (UnknownModelError, OptionError) as error:
                raise OptionError(f"{where}.model: {error}") from None
            try:
                n_embd = self.resolve(name).located.inspect().n_embd
            except ModelNotHereError:
                card, file = self.to_pull(name)
                n_embd, tag = card.sizes.n_embd, card.tag(file.quantization)
                doubts.append(f"{where}.model is not on this machine yet; get it with: q3e-local pull {tag}")
            if alias.dim is not None and alias.dim > n_embd:
                raise OptionError(f"{where}.dim must be {n_embd} or less, which {model} has, got {alias.dim}")
        return doubts

    def _alias_meaning(self, name: str, alias: Alias) -> tuple[str, Defaults]:
        """What an alias adds to its model. With an instruction or a task, texts are queries."""
        if any(spelled.lower() in self._aliases for spelled in _spellings(alias.model)):
            raise UnknownModelError(f"the alias {name} stands for {alias.model}, which is an alias too; name a model")
        try:
            model, defaults = Names({}, self._files).meaning(alias.model)
        except UnknownModelError:
            raise UnknownModelError(
                f"the alias {name} stands for {alias.model}, and there is no such model"
            ) from None
        defaults = replace(defaults, dim=alias.dim)
        if alias.instruction is None and alias.task is None:
            return model, defaults
        return model, replace(defaults, kind="query", task=alias.task, instruction=alias.instruction)

    def _is_name(self, name: str) -> bool:
        if name.lower() in self._aliases or self._is_model(name):
            return True
        return name.lower().endswith(QUERY_SUFFIX) and self._is_name(name[: -len(QUERY_SUFFIX)])

    def _is_model(self, name: str) -> bool:
        if self._files is None:
            if installed.path_of(name) is not None:
                return True
        elif name.lower() in self._files:
            return True
        elif name.lower().endswith(".gguf"):
            return False
        return installed.is_known(name)


def _spellings(name: str) -> tuple[str, ...]:
    name = name.strip()
    return (name, name[: -len(_LATEST)]) if name.lower().endswith(_LATEST) else (name,)
