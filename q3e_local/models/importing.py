"""Take a model file that is on this machine already: check it, find a name for it, and record where it lies.

Knows names and checksums; leaves records to installed, and what is in a file to model_file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, count
from pathlib import Path, PurePosixPath

from q3e_local.errors import OptionError, UnknownModelError
from q3e_local.files import sha256
from q3e_local.gguf.model_file import ModelInfo, inspect
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models import catalog
from q3e_local.models.card import NAME_GRAMMAR, ModelCard, ModelFile
from q3e_local.models.installed import OURS, Installed, find, record, recorded
from q3e_local.reranking.proof import prove
from q3e_local.reranking.reranker import Reranker

_KINDS: dict[ModelKind, str] = {"embedder": "an embedding model", "reranker": "a reranker"}


def import_file(
    path: Path,
    name: str | None,
    on_bytes: Callable[[int], None] = lambda n_bytes: None,
    *,
    kind: ModelKind | None = None,
) -> Installed:
    """Take a model file where it lies, without a copy, under its card's name, the user's, or one made of its title.

    `kind` is what the user says it is, for a file that does not say so itself. A reranker that no card vouches for
    must put a right answer above a wrong one. Raises ModelError when it is no model that runs here, OptionError for a
    name that cannot be used, and for a kind that is not that of the file's card.
    """
    if not _may_be_of_a_card(path):
        inspect(path, kind)  # refused before gigabytes are read for their sum
    digest = sha256(path, on_bytes)
    of_card, kind_of_card = catalog.card_name(digest), catalog.card_kind(digest)
    if kind_of_card is not None and kind not in (None, kind_of_card):
        raise OptionError(f"{path} is {of_card}, which its card calls {_KINDS[kind_of_card]}; leave --as out")
    info = inspect(path, kind or kind_of_card)
    chosen = of_card or _free_name(info, digest) if name is None else _usable_name(name, info, digest, of_card)
    here = (shipped(digest) if name is None else None) or recorded(chosen)
    if here is not None and here.is_whole and here.origin in (*OURS, "bundled"):
        return here  # the same file: a record of this copy would hide ours
    if info.kind == "reranker" and of_card is None:
        _prove(path, chosen)
    return record(Installed(chosen, path.absolute(), info.size_bytes, "imported", digest, kind=info.kind))


def _may_be_of_a_card(path: Path) -> bool:
    return path.is_file() and any(file.size_bytes == path.stat().st_size for _, file in catalog.files())


def adopt(path: Path, digest: str) -> Installed:
    """Record a file that now lies in our folder, under its card's name or one made of its title."""
    info = inspect(path, catalog.card_kind(digest))
    name = catalog.card_name(digest) or _made_name(info, path.name) or _free_name(info, digest)
    return record(Installed(name, path, info.size_bytes, "pulled", digest))


def shipped(digest: str) -> Installed | None:
    """The model that comes with this program and has this checksum, if there is one."""
    bundled = ((card, file) for card, file in catalog.files() if file.repo is None and file.sha256 == digest)
    return next((find(card, file) for card, file in bundled), None)


def _prove(path: Path, name: str) -> None:
    """Raise WrongModelError for a file that does not work as a reranker."""
    from q3e_local.llama.engine import LlamaEngine  # takes a while to import

    with Reranker(LlamaEngine(path, kind="reranker"), name) as reranker:
        prove(reranker)


def _usable_name(name: str, info: ModelInfo, digest: str, of_card: str | None) -> str:
    """The name that the user gave, or the full name of the card that it means."""
    if not NAME_GRAMMAR.fullmatch(name):
        raise OptionError(f"{name!r} is no model name: lower-case letters, digits, '_', '-', '.', one ':' for a tag")
    with suppress(UnknownModelError):
        card, file = catalog.resolve(name)
        tag = card.tag(file.quantization)
        if tag != of_card and not _could_be(info, card, file):
            known_as = f"the file is {of_card}" if of_card else "the file is another"
            raise OptionError(f"the name {name!r} is that of {tag}, {known_as}; give another with --name")
        name = tag
    if not _is_free(name, digest):
        raise OptionError(f"{name} is there already; give another with --name, or first: q3e-local rm {name}")
    return name


def _free_name(info: ModelInfo, digest: str) -> str:
    """A name made of the title, which neither a card nor another file has."""
    base = re.sub(r"[^a-z0-9_.]+", "-", info.name.lower())[:50].strip("-.") or "model"
    full = f"{base}-{info.quantization}"
    names = chain([base, full], (f"{full}-{n}" for n in count(2)))
    return next(name for name in names if catalog.find(name) is None and _is_free(name, digest))


def _is_free(name: str, digest: str) -> bool:
    here = recorded(name)
    return here is None or not here.is_whole or here.sha256 == digest


def _made_name(info: ModelInfo, file_name: str) -> str | None:
    """Which card's file this is, for one that pull makes: it has no checksum, but a name and sizes."""
    files = ((card, file) for card, file in catalog.files() if PurePosixPath(file.file).name == file_name)
    return next((card.tag(file.quantization) for card, file in files if _could_be(info, card, file)), None)


def _could_be(info: ModelInfo, card: ModelCard, file: ModelFile) -> bool:
    sizes = (card.sizes.n_layer, card.sizes.n_embd, card.sizes.n_vocab, file.quantization)
    return (
        file.made_from is not None
        and card.kind == info.kind
        and sizes == (info.n_layer, info.n_embd, info.n_vocab, info.quantization)
    )
