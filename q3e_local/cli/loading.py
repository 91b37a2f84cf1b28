"""Load a model for a command, pulling it first when it is missing.

The one place where a command downloads without being asked to; says what, from where and how large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from q3e_local import catalog, store
from q3e_local.card import ModelCard, ModelFile
from q3e_local.cli.progress import bar
from q3e_local.download import Source
from q3e_local.download.origins import is_offline
from q3e_local.embedder import Embedder
from q3e_local.errors import ModelNotHereError
from q3e_local.store import Installed

if TYPE_CHECKING:
    from q3e_local.pull import Step


def load(model: str, offline: bool, quiet: bool, **options: Any) -> Embedder:
    """The library's `load`, after pulling what is missing. Raises what both raise."""
    import q3e_local

    try:
        return q3e_local.load(model, **options)
    except ModelNotHereError:
        if offline or is_offline():
            raise
    card, file = catalog.resolve(model)
    pull(card, file, "auto", offline=False, keep=False, quiet=quiet)
    return q3e_local.load(model, **options)


def pull(card: ModelCard, file: ModelFile, source: Source, offline: bool, keep: bool, quiet: bool) -> Installed:
    """Pull with a bar on stderr, saying first what will happen."""
    from q3e_local import pull as pulling

    here = store.find(card, file)
    if here is None and not quiet:
        for line in announce(card, file):
            click.echo(line, err=True)
    with bar(quiet) as show:

        def report(step: Step) -> None:
            show(step.what, step.done, step.total)

        return pulling.pull(card, file, source=source, offline=offline, keep=keep, progress=report)


def announce(card: ModelCard, file: ModelFile) -> list[str]:
    """What a pull is going to do, a line a step."""
    name = card.tag(file.quantization)
    if file.made_from is None:
        return [f"Pulling {name}: {file.file}, {size(file.size_bytes)}, from {file.repo}"]
    origin = card.files[file.made_from]
    return [
        f"Pulling {name}, in two steps:",
        f"  1. download {origin.file}, {size(origin.size_bytes)}, from {origin.repo}",
        f"  2. quantize it here to {file.quantization}, about {size(file.size_bytes)}",
    ]


def size(n_bytes: int) -> str:
    """Bytes for people, in powers of ten as model pages state them."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
