"""What a shell offers for a value: names of models and of indexes, and files. For click's `shell_complete`.

Completing must be quick and cannot show an error: where names cannot be read, nothing is offered, and the command
itself says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import click

from q3e_local.errors import Q3EError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from q3e_local.gguf.model_kind import ModelKind

# A shell that asks for completions sets this variable; click makes its name from the program's.
COMPLETE_VARIABLE = "_Q3E_LOCAL_COMPLETE"

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]


def _offering(names: Callable[[], Iterable[tuple[str, str]]], files: bool = False) -> Complete:
    """Offer those of `names`, each with a word about it, that begin as the value does.

    With `files`, the shell itself completes a value that looks like a path, or begins no name.
    """

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        a_file = [CompletionItem(incomplete, type="file")] if files else []
        if files and (incomplete.startswith((".", "~")) or "/" in incomplete or "\\" in incomplete):
            return a_file
        with suppress(Q3EError, OSError):
            matching = [(name, about) for name, about in names() if name.startswith(incomplete.lower())]
            return [CompletionItem(name, help=about) for name, about in matching] or a_file
        return a_file

    return complete


def _models(kind: ModelKind | None = None) -> Iterable[tuple[str, str]]:
    """The names of cards, of models that are here, and the user's aliases: all, or of the cards those of one kind.

    What is not on a card would have to be opened to know its kind.
    """
    from q3e_local.models import installed
    from q3e_local.models.catalog import files
    from q3e_local.models.own_names import read_aliases

    about = {}
    for card, file in files():
        if kind not in (None, card.kind):
            continue
        size = f", {file.size_bytes / 1e9:.1f} GB" if file.size_bytes else ""
        about[card.tag(file.quantization)] = f"{file.quantization}{size}"
    about |= dict.fromkeys(installed.recorded_names(), "on this machine")
    return (about | {name: f"stands for {alias.model}" for name, alias in read_aliases().items()}).items()


def _installed() -> Iterable[tuple[str, str]]:
    from q3e_local.models import installed

    return [(model.name, model.origin) for model in installed.installed()]


def _indexes() -> Iterable[tuple[str, str]]:
    from q3e_local.search.places import names

    return [(name, "index") for name in names()]


model = _offering(_models)
model_or_file = _offering(_models, files=True)
embedder_or_file = _offering(partial(_models, "embedder"), files=True)
reranker_or_file = _offering(partial(_models, "reranker"), files=True)
installed_model = _offering(_installed)
index = _offering(_indexes)
index_or_file = _offering(_indexes, files=True)
file = _offering(lambda: (), files=True)
