"""Hold a model to the kind that is wanted of it, and name the right model where it is of the other kind.

Knows cards and the headers of files; loads nothing.
"""

from __future__ import annotations

from contextlib import suppress

from q3e_local.errors import ModelError, WrongKindError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models import catalog
from q3e_local.models.card import ModelCard
from q3e_local.models.installed import Located

# Also for an index of a larger model: of the 4B, 10 candidates take 15 seconds on two cores.
DEFAULT_RERANKER = "qwen3-reranker:0.6b"


def check_file(located: Located, wanted: ModelKind) -> None:
    """Raise WrongKindError where the file is of another kind, and what reading its header raises."""
    check_kind(located, located.inspect().kind, wanted)


def check_kind(located: Located, kind: ModelKind, wanted: ModelKind) -> None:
    """Raise WrongKindError where a model is not of the kind that is wanted."""
    if kind != wanted:
        raise _wrong_kind(located.name, located.card, wanted, may_be_silent=_is_silent(located))


def check_card(card: ModelCard, wanted: ModelKind) -> None:
    """Raise WrongKindError where the models of a card are of another kind: before one of them is downloaded."""
    if card.kind != wanted:
        raise _wrong_kind(card.name, card, wanted)


def counterpart(card: ModelCard | None, wanted: ModelKind) -> str:
    """The name of the model of the wanted kind that goes with this card's: of the same size, or the default."""
    default = catalog.DEFAULT_MODEL if wanted == "embedder" else DEFAULT_RERANKER
    if card is None:
        return default
    others = (other for other in catalog.shipped().values() if other.kind == wanted)
    return next((other.name for other in others if _go_together(card, other)), default)


def _wrong_kind(
    name: str, card: ModelCard | None, wanted: ModelKind, *, may_be_silent: bool = False
) -> WrongKindError:
    other = counterpart(card, wanted)
    if wanted == "embedder":
        return WrongKindError(
            f"{name} is a reranker: it orders documents for a question and makes no vectors; "
            f"take an embedding model, such as {other}"
        )
    or_say = "; if it is one that does not say so: q3e-local import FILE --as reranker" if may_be_silent else ""
    return WrongKindError(
        f"{name} is an embedding model: it makes vectors and ranks nothing; take a reranker, such as {other}{or_say}"
    )


def _is_silent(located: Located) -> bool:
    """Whether neither a card nor the file's title says that it is an embedding model: it may be a reranker.

    A file with the size of a card's file, to the byte, is a copy of that.
    """
    if located.card is not None:
        return False
    with suppress(ModelError, OSError):
        info = located.inspect()
        of_cards = {file.size_bytes for card, file in catalog.files() if card.kind == "embedder"}
        return info.size_bytes not in of_cards and "embedding" not in info.name.lower()
    return True


def _go_together(card: ModelCard, other: ModelCard) -> bool:
    if card.is_bundled or other.is_bundled:
        return card.is_bundled and other.is_bundled
    return (card.sizes.n_layer, card.sizes.n_embd) == (other.sizes.n_layer, other.sizes.n_embd)
