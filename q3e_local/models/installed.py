"""The models on this machine: find, record, list, remove.

Knows cards, folders and the small records of files; leaves bringing a model here to pull and importing.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from q3e_local.embedding.prompts import Prompts
from q3e_local.errors import CardError, ModelError, ModelFileError, ModelNotHereError, OptionError, OutputError
from q3e_local.files import data_folder, has_size, land
from q3e_local.gguf.model_file import ModelInfo, inspect
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models import download
from q3e_local.models.card import NAME_GRAMMAR, ModelCard, ModelFile
from q3e_local.models.catalog import as_option, bundled, files, models_folder, resolve
from q3e_local.models.catalog import find as find_card
from q3e_local.models.download.origins import delete, own_folder
from q3e_local.reranking.prompts import RerankPrompts

# Whose a file is: ours to delete when we pulled or made it, another's when it was only imported or found.
Origin = Literal["pulled", "made", "imported", "found", "bundled"]
OURS: tuple[Origin, ...] = ("pulled", "made")


@dataclass(frozen=True)
class Installed:
    """A model file that is here. `sha256` is empty where nothing but the size was ever checked.

    A `temporary` file was pulled only to make another of it, and goes when that is made.
    """

    name: str
    path: Path
    size_bytes: int
    origin: Origin
    sha256: str = ""
    temporary: bool = False
    kind: ModelKind | None = None  # as it was when it was imported; None: what the file states

    def inspect(self) -> ModelInfo:
        """Facts of the file, judged as the kind that the user said it is. Raises what reading its header raises."""
        return inspect(self.path, self.kind)

    @property
    def is_whole(self) -> bool:
        """Whether the file is still there at the size it had."""
        return has_size(self.path, self.size_bytes)


@dataclass(frozen=True)
class Located:
    """What to load: the name to show, the file, and the model's prompts. A path has no card."""

    name: str
    path: Path
    prompts: Prompts
    card: ModelCard | None = None
    file: ModelFile | None = None
    is_by_path: bool = False
    kind: ModelKind | None = None  # of its card, or as the user said it; None: what the file states
    rerank_prompts: RerankPrompts = RerankPrompts()  # noqa: RUF009 (frozen)

    def inspect(self) -> ModelInfo:
        """Facts of the file, judged as the kind that the user or its card says it is.

        Raises what reading its header raises.
        """
        return inspect(self.path, self.kind)

    @property
    def loads_as(self) -> str:
        """What finds the file from any folder: its name, or the absolute path of a file that has no name."""
        return str(self.path.resolve()) if self.is_by_path else self.name


def locate(model: str | os.PathLike[str]) -> Located:
    """The file for a model's name or a path.

    The file of a path need not exist. Raises UnknownModelError, ModelNotHereError with the ways to get the model, or
    ModelFileError for an imported model whose file is gone.
    """
    path = path_of(model)
    if path is not None:
        return Located(path.stem, path, Prompts(), is_by_path=True)
    known = recorded(str(model))
    if known is not None and find_card(known.name) is None:
        if not known.is_whole:
            raise ModelFileError(f"{known.name} is gone: {what_is_gone(known)}")
        return Located(known.name, known.path, Prompts(), kind=known.kind)
    card, file = resolve(str(model) if known is None else known.name)
    here = find(card, file)
    if here is None:
        if file.is_converted:
            raise ModelNotHereError(card.to_convert(file))
        name = card.tag(file.quantization)
        demo, load = bundled(card.kind).name, "load" if card.kind == "embedder" else "load_reranker"
        raise ModelNotHereError(
            f"{name} ({file.size_bytes / 1e9:.1f} GB) is not on this machine. Get it with: q3e-local pull {name}\n"
            "or take a file you have: q3e-local import; "
            f"or begin with the demo model: {as_option(demo, card.kind)}, in Python {load}({demo!r})"
        )
    return Located(here.name, here.path, card.prompts, card, file, kind=card.kind, rerank_prompts=card.rerank_prompts)


def path_of(model: str | os.PathLike[str]) -> Path | None:
    """The path that is meant; None for a name.

    A path object is a path, and so is a text that looks like a path, or is no model's name but a file's.
    """
    if isinstance(model, os.PathLike) or _looks_like_path(model):
        return Path(model).expanduser()
    return Path(model) if _is_file(model) and not is_known(model) else None


def is_known(name: str) -> bool:
    """Whether a card or a record has this name; the file may be gone."""
    return recorded(name) is not None or find_card(name) is not None


def kind_of(model: Installed) -> ModelKind | None:
    """What kind of model it is, by the user, its card, or its file; None for a file that cannot be read any more."""
    of_card = find_card(model.name)
    if model.kind is not None or of_card is not None:
        return model.kind or (None if of_card is None else of_card[0].kind)
    with suppress(ModelError):
        return model.inspect().kind
    return None


def recorded_sha256(located: Located) -> str:
    """The SHA-256 that this very file had when it was recorded; empty where that is not known."""
    known = recorded(located.name)
    return known.sha256 if known is not None and known.path == located.path else ""


def what_is_gone(model: Installed) -> str:
    """Why a recorded file cannot be used, and what to do."""
    what = "is not the file it was" if model.path.is_file() else "is no longer there"
    again = "import" if model.origin == "imported" else "pull"
    return f"{model.path} {what}; {again} it again, or forget it: q3e-local rm {model.name}"


def find(card: ModelCard, file: ModelFile) -> Installed | None:
    """Where a card's file is: shipped with us, recorded, or in a cache that other programs share."""
    name = card.tag(file.quantization)
    if file.repo is None:
        path = models_folder() / file.file
        if not path.is_file():
            raise CardError(
                f"{card.path}: files.{file.quantization}.bundled: there is no {file.file} in {path.parent}"
            )
        return Installed(name, path, path.stat().st_size, "bundled")
    known = recorded(name)
    if known is not None and known.is_whole:
        return known
    if file.made_from is not None:
        return None
    cached = download.find(file)
    if cached is None:
        return None
    return Installed(name, cached, file.size_bytes, "pulled" if own_folder() in cached.parents else "found")


def installed() -> list[Installed]:
    """All models that are here, by name: bundled, of a card, or imported under another name."""
    of_cards = (find(card, file) for card, file in files())
    by_name = {model.name: model for model in of_cards if model is not None}
    for record in _all_recorded():
        if record.is_whole:
            by_name.setdefault(record.name, record)
    return [by_name[name] for name in sorted(by_name)]


def gone() -> list[Installed]:
    """Recorded models whose file is no longer there, or is another file now."""
    return [record for record in _all_recorded() if not record.is_whole]


def recorded(name: str) -> Installed | None:
    """The record of this name, in any case; the file may be gone."""
    name = name.strip().lower()
    return _read(_record_path(name)) if NAME_GRAMMAR.fullmatch(name) else None


def recorded_names() -> list[str]:
    """The names of all records. Opens no record, so that a damaged record has its name here too."""
    return sorted(path.stem.replace("+", ":").replace("@", "/") for path in _records().glob("*.json"))


def record(model: Installed) -> Installed:
    """Remember a file, and forget an earlier record of its name."""
    path = _record_path(model.name)
    try:
        land(path, json.dumps(asdict(model) | {"path": str(model.path.absolute())}, indent=1))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder with Q3E_HOME") from None
    return model


def remove(name: str) -> Installed:
    """Forget a model, and delete its file if it is ours. Answers what was removed.

    Raises what `removable` does, and OutputError when the file cannot be deleted.
    """
    model = removable(name)
    try:
        if model.origin in OURS:
            delete(model.path)
        _record_path(model.name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot delete {error.filename or model.path}: {error.strerror}") from None
    return model


def removable(name: str) -> Installed:
    """What `remove` would remove.

    Raises UnknownModelError or ModelNotHereError, and OptionError for a file that is not ours to forget.
    """
    known = recorded(name)
    if known is not None:
        return known
    card, file = resolve(name)
    here = recorded(card.tag(file.quantization)) or find(card, file)
    if here is None:
        raise ModelNotHereError(f"{card.tag(file.quantization)} is not on this machine; q3e-local list shows what is")
    if here.origin == "bundled":
        raise OptionError(f"{here.name} is part of q3e-local and stays")
    if here.origin == "found":
        raise OptionError(
            f"{here.path} was put into the hub cache by another program; remove it there with `hf cache rm`"
        )
    return here


def _looks_like_path(model: str) -> bool:
    begins_like_one = model.startswith((".", "~", "/", "\\")) or (len(model) > 2 and model[1:3] in (":\\", ":/"))
    return begins_like_one or model.lower().endswith(".gguf")


def _is_file(model: str) -> bool:
    try:
        return Path(model).is_file()
    except OSError:  # too long for a file's name
        return False


def _records() -> Path:
    return data_folder() / "records"


def _all_recorded() -> list[Installed]:
    records = (_read(path) for path in sorted(_records().glob("*.json")))
    return [record for record in records if record is not None]


def _record_path(name: str) -> Path:
    # `:` and `/` are no characters of a file name everywhere; `+` and `@` are none of a model name.
    return _records() / (name.strip().lower().replace(":", "+").replace("/", "@") + ".json")


def _read(path: Path) -> Installed | None:
    try:
        fields = json.loads(path.read_bytes())
        exact = {"name": str(fields["name"]), "path": Path(fields["path"]), "size_bytes": int(fields["size_bytes"])}
        return Installed(**fields | exact)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModelFileError(
            f"cannot read the record {path}: {error.strerror}; make it readable, or delete it"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise ModelFileError(f"the record {path} is damaged; delete it and import or pull the model again") from None
