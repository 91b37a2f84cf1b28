"""Load a model for a command, pulling it first when it is missing.

The one place where a command downloads without being asked to; says what, from where and how large, even when it is
to be quiet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from q3e_local import store
from q3e_local.card import ModelCard, ModelFile
from q3e_local.cli.progress import bar
from q3e_local.download import Source, origins
from q3e_local.download.origins import is_offline
from q3e_local.embedder import Embedder
from q3e_local.errors import ModelNotHereError
from q3e_local.naming import Names
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
    card, file = Names().to_pull(model)
    for line in announce(card, file, "auto"):
        click.echo(line, err=True)
    pull(card, file, "auto", offline=False, keep=False, quiet=quiet)
    return q3e_local.load(model, **options)


def pull(card: ModelCard, file: ModelFile, source: Source, offline: bool, keep: bool, quiet: bool) -> Installed:
    """Pull with a bar on stderr."""
    from q3e_local import pull as pulling

    with bar(quiet) as show:

        def report(step: Step) -> None:
            show(step.what, step.done, step.total)

        return pulling.pull(card, file, source=source, offline=offline, keep=keep, progress=report)


def announce(card: ModelCard, file: ModelFile, source: Source) -> list[str]:
    """What a pull is going to do, a line a step; none if the model is here."""
    name = card.tag(file.quantization)
    if store.find(card, file) is not None:
        return []
    if file.made_from is None:
        return [f"Pulling {name}: {_what(file, source)}"]
    origin = card.files[file.made_from]
    here = store.find(card, origin)
    if here is not None:
        return [f"Making {name}: quantizing {here.path} to {file.quantization}, about {size(file.size_bytes)}"]
    return [
        f"Pulling {name}, in two steps:",
        f"  1. download {_what(origin, source)}",
        f"  2. quantize it here to {file.quantization}, about {size(file.size_bytes)}",
    ]


def _what(file: ModelFile, source: Source) -> str:
    host = origins.origins(origins.pin(file), source)[0].host
    return f"{file.file}, {size(file.size_bytes)}, from {file.repo} on {host}"


def size(n_bytes: int) -> str:
    """Bytes for people, in powers of ten as model pages state them."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
