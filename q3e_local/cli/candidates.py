"""What a shell is offered for a value: names of models and of indexes, and files; and how a shell asks for it.

For click's `shell_complete`. Completing must be quick and cannot show an error: where names cannot be read, nothing
is offered, and the command itself says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from q3e_local.errors import Q3EError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# A shell sets it that asks what may stand at a place; click makes its name of the program's.
COMPLETE_VARIABLE = "_Q3E_LOCAL_COMPLETE"

_Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]


def _offering(names: Callable[[], Iterable[tuple[str, str]]], files: bool = False) -> _Complete:
    """Of `names`, each with a word about it, those that begin as the value does.

    With `files`, a value that looks like a path, or begins no name, is completed as a path by the shell itself.
    """

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        of_files = [CompletionItem(incomplete, type="file")] if files else []
        if files and (incomplete.startswith((".", "~")) or "/" in incomplete or "\\" in incomplete):
            return of_files
        try:
            found = [
                CompletionItem(name, help=about) for name, about in names() if name.startswith(incomplete.lower())
            ]
        except (Q3EError, OSError):
            found = []
        return found or of_files

    return complete


def _models() -> Iterable[tuple[str, str]]:
    """Cards, records and names of the user's own."""
    from q3e_local.models import catalog, installed
    from q3e_local.models.own_names import read_aliases

    found = {
        card.tag(quantization): f"{quantization}, {file.size_bytes / 1e9:.1f} GB" if file.size_bytes else quantization
        for card in catalog.cards().values()
        for quantization, file in card.files.items()
    }
    found |= dict.fromkeys(installed.recorded_names(), "on this machine")
    return (found | {name: f"stands for {alias.model}" for name, alias in read_aliases().items()}).items()


def _installed() -> Iterable[tuple[str, str]]:
    from q3e_local.models import installed

    return [(one.name, one.origin) for one in installed.installed()]


def _indexes() -> Iterable[tuple[str, str]]:
    from q3e_local.search.places import names

    return [(name, "index") for name in names()]


def _nothing() -> Iterable[tuple[str, str]]:
    return ()


model = _offering(_models)
model_or_file = _offering(_models, files=True)
installed_model = _offering(_installed)
index = _offering(_indexes)
index_or_file = _offering(_indexes, files=True)
file = _offering(_nothing, files=True)
