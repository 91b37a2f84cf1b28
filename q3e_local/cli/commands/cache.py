"""`q3e-local cache`: show how many vectors and scores of which model are kept, and forget them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from q3e_local.cache import CacheStats, SpaceStats, VectorCache
from q3e_local.cache.choose import chosen, is_off, open_cache
from q3e_local.cli import candidates
from q3e_local.cli.asking import is_sure
from q3e_local.cli.exit_codes import DONE, FAILED
from q3e_local.cli.writing.show import print_columns, print_json
from q3e_local.errors import ModelError, ModelFileError, ModelNotHereError, UnknownModelError
from q3e_local.models import installed
from q3e_local.models.names import resolve
from q3e_local.space import is_of, is_of_scores, without_prompt
from q3e_local.wording.counts import counted, size

_HOW_ELSE = "vectors of a model that was removed can be named by --space, as q3e-local cache stats shows it"


@click.group()
def cache() -> None:
    """Vectors and scores that were computed before: embed, index, search, rerank, eval, serve, mcp and the jobs keep
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
    """Show where the cache is, its size, and how many vectors it has of which model, or scores of which reranker."""
    kept, stored = _opened()
    kept.close()
    entries = _scores_together(stored.spaces)
    names = _names(entries)
    n_vectors, n_scores = (
        sum(entry.n_vectors for entry in entries if _has_scores(entry) == has_scores) for has_scores in (False, True)
    )
    if as_json:
        spaces = [
            {
                "space": entry.space,
                "model": names[entry.space],
                "vectors": 0 if _has_scores(entry) else entry.n_vectors,
                "scores": entry.n_vectors if _has_scores(entry) else 0,
                "size_bytes": entry.n_bytes,
            }
            for entry in entries
        ]
        facts = {"where": stored.where, "vectors": n_vectors, "scores": n_scores, "size_bytes": stored.n_bytes}
        print_json(facts | {"limit_bytes": stored.limit_bytes, "spaces": spaces})
        return
    limit = "" if stored.limit_bytes is None else f" of at most {size(stored.limit_bytes)}"
    of_scores = f", {counted(n_scores, 'score')}" if n_scores else ""
    click.echo(f"{stored.where}: {counted(n_vectors, 'vector')}{of_scores}, {size(stored.n_bytes)}{limit}")
    if entries:
        rows = [(names[entry.space], entry.space, _counted([entry]), size(entry.n_bytes)) for entry in entries]
        print_columns(["model", "space", "kept", "size"], rows, right=["kept", "size"])


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
    """Forget vectors and scores: all of them, or those of a model or a space."""
    is_meant = _condition(model, spaces)
    kept, stored = _opened()
    meant = [entry for entry in stored.spaces if is_meant is None or is_meant(entry.space)]
    if meant and not is_sure(f"{kept.where}: forget {_counted(meant)}?", yes, "nothing was forgotten"):
        return DONE
    n_forgotten = kept.clear(is_meant)
    kept.close()
    if n_forgotten is None:
        return FAILED
    click.echo(f"forgot {_counted(meant, n_forgotten)}")
    return DONE


def _has_scores(entry: SpaceStats) -> bool:
    return is_of_scores(entry.space)


def _counted(entries: Iterable[SpaceStats], n: int | None = None) -> str:
    """How many vectors, scores or both these are; or `n`, where it is counted already."""
    entries = list(entries)
    n = sum(entry.n_vectors for entry in entries) if n is None else n
    kinds = {_has_scores(entry) for entry in entries}
    if len(kinds) == 2:
        return f"{n:,} vectors and scores"
    return counted(n, "score" if True in kinds else "vector")


def _scores_together(entries: Iterable[SpaceStats]) -> list[SpaceStats]:
    """The spaces, with the scores of a reranker as one: each question has a space of its own."""
    found: dict[str, SpaceStats] = {}
    for entry in entries:
        space = without_prompt(entry.space) if _has_scores(entry) else entry.space
        before = found.get(space, SpaceStats(space, 0, 0))
        found[space] = SpaceStats(space, before.n_vectors + entry.n_vectors, before.n_bytes + entry.n_bytes)
    return list(found.values())


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

    def is_meant(space: str) -> bool:
        is_named = space in spaces or (is_of_scores(space) and without_prompt(space) in spaces)
        return is_named or (digest is not None and is_of(space, digest))

    return is_meant


def _digest(model: str) -> str:
    """The fingerprint of a model's file. Raises ModelError, which says how to go on without the file."""
    try:
        return resolve(model).located.inspect().digest
    except ModelNotHereError:
        raise ModelNotHereError(f"{model} is not on this machine; {_HOW_ELSE}") from None
    except (UnknownModelError, ModelFileError) as error:
        raise type(error)(f"{error}; {_HOW_ELSE}") from None


def _names(entries: Iterable[SpaceStats]) -> dict[str, str]:
    """The name of each space's model; empty for a model that is not on this machine."""
    names = dict.fromkeys((entry.space for entry in entries), "")
    for model in installed.installed() if names else []:
        try:
            digest = model.inspect().digest
        except ModelError:  # `verify` says what is wrong with the file
            continue
        names |= {space: model.name for space in names if is_of(space, digest)}
    return names
