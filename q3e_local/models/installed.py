"""The models on this machine: find, record, import, list, remove.

Knows cards, folders and the small records kept of files; leaves getting a model to pull, and what is in a file to
model_file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Literal

from q3e_local.embedding.prompts import Prompts
from q3e_local.errors import (
    CardError,
    ModelFileError,
    ModelNotHereError,
    OptionError,
    OutputError,
    UnknownModelError,
)
from q3e_local.files import data_folder, land, sha256
from q3e_local.gguf.model_file import ModelInfo, inspect
from q3e_local.models.card import NAME_GRAMMAR, ModelCard, ModelFile
from q3e_local.models.catalog import cards, models_folder, resolve
from q3e_local.models.catalog import find as find_card

# Whose a file is: ours to delete when we pulled or made it, another's when it was only imported or found.
Origin = Literal["pulled", "made", "imported", "found", "bundled"]
OURS: tuple[Origin, ...] = ("pulled", "made")


@dataclass(frozen=True)
class Installed:
    """A model file that is here. `sha256` is empty where nothing but the size was ever checked.

    `temporary` is one that was pulled only to make another of it, and goes when that is made.
    """

    name: str
    path: Path
    size_bytes: int
    origin: Origin
    sha256: str = ""
    temporary: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the file is still there at the size it had."""
        try:
            return self.path.stat().st_size == self.size_bytes
        except OSError:
            return False


@dataclass(frozen=True)
class Located:
    """What to load: the name to show, the file, and the model's prompts. A path has no card."""

    name: str
    path: Path
    prompts: Prompts
    card: ModelCard | None = None
    file: ModelFile | None = None
    is_by_path: bool = False

    @property
    def loads_as(self) -> str:
        """What finds it again from any folder: its name, or the absolute path of a file that has no name."""
        return str(self.path.resolve()) if self.is_by_path else self.name


def locate(model: str | os.PathLike[str]) -> Located:
    """The file for a model's name or a path.

    A path object, or a text that looks like a path or is no model's name but a file's, is a path; it may turn out
    not to exist. Raises UnknownModelError, ModelNotHereError with the ways to get the model, or ModelFileError for
    an imported one whose file is gone.
    """
    if isinstance(model, os.PathLike) or _looks_like_path(model):
        path = Path(model).expanduser()
        return Located(path.stem, path, Prompts(), is_by_path=True)
    found = recorded(model)
    of_card = find_card(model if found is None else found.name)
    if of_card is None:
        if found is None:
            if not _is_file(model):
                resolve(model)  # says which names there are
            return Located(Path(model).stem, Path(model), Prompts(), is_by_path=True)
        if not found.is_whole:
            raise ModelFileError(f"{found.name} is gone: {what_is_gone(found)}")
        return Located(found.name, found.path, Prompts())
    card, file = of_card
    here = find(card, file)
    if here is None:
        raise ModelNotHereError(_ways_to_get(card, file))
    return Located(here.name, here.path, card.prompts, card, file)


def path_of(model: str | os.PathLike[str]) -> Path | None:
    """The path that this is, which may turn out not to exist; None for a name. Names come before files."""
    if isinstance(model, os.PathLike) or _looks_like_path(model):
        return Path(model).expanduser()
    return Path(model) if not is_known(model) and _is_file(model) else None


def is_known(name: str) -> bool:
    """Whether a card or a record has this name, whatever became of its file."""
    return recorded(name) is not None or find_card(name) is not None


def what_is_gone(one: Installed) -> str:
    """Why a recorded file cannot be used, and what to do."""
    what = "is not the file it was" if one.path.is_file() else "is no longer there"
    again = "import" if one.origin == "imported" else "pull"
    return f"{one.path} {what}; {again} it again, or forget it: q3e-local rm {one.name}"


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
    found = recorded(name)
    if found is not None and found.is_whole:
        return found
    if file.made_from is not None:
        return None
    from q3e_local.models import download

    cached = download.find(file)
    if cached is None:
        return None
    return Installed(name, cached, file.size_bytes, "pulled" if own_folder() in cached.parents else "found")


def installed() -> list[Installed]:
    """All models that are here, by name: the bundled one, those of cards, those imported under another name."""
    of_cards = (find(card, file) for card in cards().values() for file in card.files.values())
    found = {one.name: one for one in of_cards if one is not None}
    for record in _all_recorded():
        if record.is_whole:
            found.setdefault(record.name, record)
    return [found[name] for name in sorted(found)]


def gone() -> list[Installed]:
    """Models that were recorded, and whose file is no longer there or another now."""
    return [record for record in _all_recorded() if not record.is_whole]


def recorded(name: str) -> Installed | None:
    """What was recorded under this name, in any case; the file may be gone since."""
    name = name.strip().lower()
    return _read(_record_path(name)) if NAME_GRAMMAR.fullmatch(name) else None


def recorded_names() -> list[str]:
    """The names of all records. Opens none: a damaged record has its name here too."""
    return sorted(path.stem.replace("+", ":").replace("@", "/") for path in _records().glob("*.json"))


def record(one: Installed) -> Installed:
    """Remember a file, replacing what was recorded under its name."""
    path = _record_path(one.name)
    try:
        land(path, json.dumps(asdict(one) | {"path": str(one.path.absolute())}, indent=1))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder with Q3E_HOME") from None
    return one


def remove(name: str) -> Installed:
    """Forget a model, and delete its file if it is ours. Answers what was removed.

    Raises what `removable` does, and OutputError when the file cannot be deleted.
    """
    found = removable(name)
    try:
        if found.origin in OURS:
            from q3e_local.models import download

            download.delete(found.path)
        _record_path(found.name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot delete {error.filename or found.path}: {error.strerror}") from None
    return found


def removable(name: str) -> Installed:
    """What `remove` would remove.

    Raises UnknownModelError or ModelNotHereError, and OptionError for a file that is not ours to forget.
    """
    found = recorded(name)
    if found is not None:
        return found
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


def import_file(path: Path, name: str | None, on_bytes: Callable[[int], None] = lambda n_bytes: None) -> Installed:
    """Take a model file where it lies, without a copy, under its card's name, the user's, or one made of its title.

    Raises ModelError when it is no model that runs here, OptionError for a name that cannot be used.
    """
    info = inspect(path)
    digest = sha256(path, on_bytes)
    of_card = card_name(digest)
    chosen = of_card or _free_name(info, digest) if name is None else _usable_name(name, info, digest, of_card)
    here = shipped(digest) if name is None else None
    here = here or recorded(chosen)
    if here is not None and here.is_whole and here.origin in (*OURS, "bundled"):
        return here  # the very same file, and we must not lose sight of ours
    return record(Installed(chosen, path.absolute(), info.size_bytes, "imported", digest))


def adopt(path: Path, digest: str) -> Installed:
    """Record a file that now lies in our own folder, under its card's name or one made of its title."""
    info = inspect(path)
    name = card_name(digest) or _made_name(info, path.name) or _free_name(info, digest)
    return record(Installed(name, path, info.size_bytes, "pulled", digest))


def shipped(digest: str) -> Installed | None:
    """The model that comes with this program and has this checksum, if there is one."""
    for card in cards().values():
        for file in card.files.values():
            if file.repo is None and file.sha256 == digest:
                return find(card, file)
    return None


def card_name(digest: str) -> str | None:
    """Which card's file this is, by its checksum."""
    for card in cards().values():
        for file in card.files.values():
            if file.sha256 == digest:
                return card.tag(file.quantization)
    return None


def own_folder() -> Path:
    """Where models that were made or copied here lie."""
    return data_folder() / "models"


def _usable_name(name: str, info: ModelInfo, digest: str, of_card: str | None) -> str:
    """The user's own name, or the card's where the user named that."""
    if not NAME_GRAMMAR.fullmatch(name):
        raise OptionError(f"{name!r} is no model name: lower-case letters, digits, '_', '-', '.', one ':' for a tag")
    with suppress(UnknownModelError):
        card, file = resolve(name)
        tag = card.tag(file.quantization)
        if tag != of_card and not _could_be(info, card, file):
            known_as = f"the file is {of_card}" if of_card else "the file is another"
            raise OptionError(f"the name {name!r} is that of {tag}, {known_as}; give another with --name")
        name = tag
    if not _is_free(name, digest):
        raise OptionError(f"{name} is there already; give another with --name, or first: q3e-local rm {name}")
    return name


def _free_name(info: ModelInfo, digest: str) -> str:
    """A name made of the title, that is neither a card's nor another file's."""
    base = re.sub(r"[^a-z0-9_.]+", "-", info.name.lower())[:50].strip("-.") or "model"
    full = f"{base}-{info.quantization}"
    names = chain([base, full], (f"{full}-{n}" for n in count(2)))
    return next(name for name in names if find_card(name) is None and _is_free(name, digest))


def _is_free(name: str, digest: str) -> bool:
    here = recorded(name)
    return here is None or not here.is_whole or here.sha256 == digest


def _made_name(info: ModelInfo, file_name: str) -> str | None:
    """Which card's file this is, for one that pull makes: it has no checksum, but a name and sizes."""
    for card in cards().values():
        for file in card.files.values():
            if PurePosixPath(file.file).name == file_name and _could_be(info, card, file):
                return card.tag(file.quantization)
    return None


def _could_be(info: ModelInfo, card: ModelCard, file: ModelFile) -> bool:
    sizes = (card.sizes.n_layer, card.sizes.n_embd, card.sizes.n_vocab, file.quantization)
    return file.made_from is not None and sizes == (info.n_layer, info.n_embd, info.n_vocab, info.quantization)


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


def _all_recorded() -> Iterator[Installed]:
    for path in sorted(_records().glob("*.json")):
        found = _read(path)
        if found is not None:
            yield found


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


def _ways_to_get(card: ModelCard, file: ModelFile) -> str:
    name = card.tag(file.quantization)
    return (
        f"{name} ({file.size_bytes / 1e9:.1f} GB) is not on this machine. Get it with: q3e-local pull {name}\n"
        "or take a file you have: q3e-local import; or try the commands with the demo model: -m demo"
    )
