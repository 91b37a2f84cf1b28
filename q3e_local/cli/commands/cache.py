"""`q3e-local cache`: show how many vectors of which model are kept, and forget them."""

from __future__ import annotations

from collections.abc import Callable

import click

from q3e_local.cache import CacheStats, VectorCache
from q3e_local.cache.choose import chosen, is_off, open_cache
from q3e_local.cli import candidates
from q3e_local.cli.asking import is_sure
from q3e_local.cli.exit_codes import DONE, FAILED
from q3e_local.cli.writing.show import print_columns, print_json
from q3e_local.errors import ModelError, ModelFileError, ModelNotHereError, UnknownModelError
from q3e_local.models import installed
from q3e_local.models.names import resolve
from q3e_local.space import is_of
from q3e_local.wording.counts import counted, size

_HOW_ELSE = "vectors of a model that was removed can be named by --space, as q3e-local cache stats shows it"


@click.group()
def cache() -> None:
    """Vectors that were computed before: embed, index, search, rerank, eval, serve and the jobs keep
    them.

    --no-cache or Q3E_CACHE=off does without. Q3E_CACHE may also be a path, or redis://host:port/db; Q3E_CACHE_SIZE
    bounds the file. Texts are not kept.

    \b
      q3e-local cache stats
      q3e-local cache clear --model qwen3-embedding:0.6b
    """


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def stats(as_json: bool) -> None:
    """Show where the cache is, its size, and how many vectors it has of which model."""
    kept, stored = _opened()
    kept.close()
    names = _names(stored)
    if as_json:
        spaces = [
            {
                "space": entry.space,
                "model": names[entry.space],
                "vectors": entry.n_vectors,
                "size_bytes": entry.n_bytes,
            }
            for entry in stored.spaces
        ]
        facts = {"where": stored.where, "vectors": stored.n_vectors, "size_bytes": stored.n_bytes}
        print_json(facts | {"limit_bytes": stored.limit_bytes, "spaces": spaces})
        return
    limit = "" if stored.limit_bytes is None else f" of at most {size(stored.limit_bytes)}"
    click.echo(f"{stored.where}: {counted(stored.n_vectors, 'vector')}, {size(stored.n_bytes)}{limit}")
    if stored.spaces:
        rows = [(names[entry.space], entry.space, entry.n_vectors, size(entry.n_bytes)) for entry in stored.spaces]
        print_columns(["model", "space", "vectors", "size"], rows, right=["size"])


@cache.command()
@click.option(
    "-m", "--model", shell_complete=candidates.model_or_file,
    help="Only the vectors of this model, by any of its names or a path.",
)  # fmt: skip
@click.option(
    "--space", "spaces", multiple=True, help="Only those of this space, as stats shows it; may be repeated."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def clear(model: str | None, spaces: tuple[str, ...], yes: bool) -> int:
    """Forget vectors: all of them, or those of a model or a space."""
    is_meant = _condition(model, spaces)
    kept, stored = _opened()
    n_vectors = sum(entry.n_vectors for entry in stored.spaces if is_meant is None or is_meant(entry.space))
    if n_vectors and not is_sure(
        f"{kept.where}: forget {counted(n_vectors, 'vector')}?", yes, "nothing was forgotten"
    ):
        return DONE
    n_forgotten = kept.clear(is_meant)
    kept.close()
    if n_forgotten is None:
        return FAILED
    click.echo(f"forgot {counted(n_forgotten, 'vector')}")
    return DONE


def _opened() -> tuple[VectorCache, CacheStats]:
    """The cache and what it has. Ends the command where it is off, or cannot be loaded or read, which was logged."""
    setting = chosen(None)
    kept = open_cache(setting)
    if kept is None:
        if not is_off(setting):
            raise click.exceptions.Exit(FAILED)
        click.echo("the cache is off, says Q3E_CACHE", err=True)
        raise click.exceptions.Exit(DONE)
    if (stored := kept.stats()) is None:
        raise click.exceptions.Exit(FAILED)
    return kept, stored


def _condition(model: str | None, spaces: tuple[str, ...]) -> Callable[[str], bool] | None:
    """Is called with a space, and says whether to forget it; None: forget every space. Raises ModelError."""
    if model is None and not spaces:
        return None
    digest = None if model is None else _digest(model)
    return lambda space: space in spaces or (digest is not None and is_of(space, digest))


def _digest(model: str) -> str:
    """The fingerprint of a model's file. Raises ModelError, which says how to go on without the file."""
    try:
        return resolve(model).located.inspect().digest
    except ModelNotHereError:
        raise ModelNotHereError(f"{model} is not on this machine; {_HOW_ELSE}") from None
    except (UnknownModelError, ModelFileError) as error:
        raise type(error)(f"{error}; {_HOW_ELSE}") from None


def _names(stored: CacheStats) -> dict[str, str]:
    """The name of each space's model; empty for a model that is not on this machine."""
    names = dict.fromkeys((entry.space for entry in stored.spaces), "")
    for model in installed.installed() if names else []:
        try:
            digest = model.inspect().digest
        except ModelError:  # `verify` says what is wrong with the file
            continue
        names |= {space: model.name for space in names if is_of(space, digest)}
    return names
