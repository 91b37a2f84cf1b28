"""Which models there are: reads the cards and resolves a name to one of them.

Cards are the TOML files in models/ and the user's own in the config folder. Knows names and published facts; neither
looks for a model's file nor downloads one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from q3e_local.errors import CardError, UnknownModelError
from q3e_local.files import config_folder
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models.card import ModelCard, ModelFile
from q3e_local.models.card_file import read_card
from q3e_local.wording.spelling import either, nearest

DEFAULT_MODEL = "qwen3-embedding:4b"

# What stands before a name that people copied from a web page or another program.
_HOSTS = ("https://", "www.", "hf.co/", "huggingface.co/", "modelscope.cn/models/", "registry.ollama.ai/library/")


def models_folder() -> Path:
    """Where the cards and the models that ship are: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    installed = here / "cards"
    return installed if installed.is_dir() else here.parents[1] / "models"


def cards() -> dict[str, ModelCard]:
    """All cards by name, the user's first. Raises CardError naming file and key, or a name that stands twice."""
    return _read_all((*_card_files(config_folder() / "models"), *_card_files(models_folder())))


def shipped() -> dict[str, ModelCard]:
    """The cards that are part of q3e-local, by name."""
    return _read_all(_card_files(models_folder()))


def bundled(kind: ModelKind) -> ModelCard:
    """The card of the model of this kind that comes with this program."""
    return next(card for card in shipped().values() if card.is_bundled and card.kind == kind)


def as_option(name: str, kind: ModelKind) -> str:
    """How commands are told to take this model. Those that take both kinds have another option for a reranker."""
    return f"-m {name}" if kind == "embedder" else f"-m {name} (--reranker {name} in search and eval)"


def _card_files(folder: Path) -> tuple[Path, ...]:
    """In the order of their names: sorted as paths, `demo-reranker.toml` would come before `demo.toml`."""
    return tuple(sorted(folder.glob("*.toml"), key=lambda path: path.stem))


@cache
def _read_all(paths: tuple[Path, ...]) -> dict[str, ModelCard]:
    by_name: dict[str, ModelCard] = {}
    names: dict[str, Path] = {}
    for path in paths:
        card = read_card(path)
        for name, _ in card.names():
            if names.setdefault(name, path) != path:
                raise CardError(f"{names[name]} and {path} both have the name {name!r}; change one of them")
        by_name[card.name] = card
    return by_name


def files() -> Iterator[tuple[ModelCard, ModelFile]]:
    """Every file of every card."""
    return ((card, file) for card in cards().values() for file in card.files.values())


def card_name(digest: str) -> str | None:
    """The name that a card gives to the file with this SHA-256."""
    return next((card.tag(file.quantization) for card, file in files() if file.sha256 == digest), None)


def card_kind(digest: str) -> ModelKind | None:
    """The kind that a card gives to the file with this SHA-256."""
    return next((card.kind for card, file in files() if file.sha256 == digest), None)


def find(name: str) -> tuple[ModelCard, ModelFile] | None:
    """The card and file a name means, in any case: `qwen3-embedding:4b`, `qwen3-embedding:4b-q8_0`, or its alias.

    An alias takes a quantization behind `-` or `:` too, and a hub's address before it.
    """
    wanted = _bare(name)
    for card in cards().values():
        for spelled, quantization in card.names():
            if wanted == spelled:
                return card, card.files[quantization]
    return None


def resolve(name: str) -> tuple[ModelCard, ModelFile]:
    """The card and file that a name means. Raises UnknownModelError, which names the models most like it."""
    found = find(name)
    if found is None:
        raise unknown(name)
    return found


def unknown(name: str, others: Iterable[str] = ()) -> UnknownModelError:
    """The error for a name that means nothing. `others` are names beside the cards' that may be meant."""
    near = like(name, others)
    meant = f"did you mean {either(near)}? All models" if near else "all models"
    return UnknownModelError(
        f"there is no model {name!r}; {meant}: q3e-local list --all; or give the path of a .gguf file"
    )


def like(name: str, others: Iterable[str] = ()) -> list[str]:
    """The models whose names are most like this one, best first, at most three.

    Rerankers are among them only where the name says something of ranking: their names are like the embedders'.
    """
    spellings: dict[str, list[str]] = {other: [] for other in others}
    of_ranking = re.search("rank|rer", _bare(name)) is not None
    for card in cards().values():
        if card.kind == "reranker" and not of_ranking:
            continue
        for spelled, quantization in card.names():
            spellings.setdefault(card.tag(quantization), []).append(spelled)
    return nearest(_bare(name), spellings)


def _bare(name: str) -> str:
    bare = name.strip().lower()
    for host in _HOSTS:
        bare = bare.removeprefix(host)
    return bare.rstrip("/")
