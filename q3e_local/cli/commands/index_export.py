"""`q3e-local index export`: all chunks of an index with their vectors, to a file or into a vector store."""

from __future__ import annotations

from pathlib import Path

import click

from q3e_local.cli import candidates
from q3e_local.cli.commands.index_files import one_index
from q3e_local.cli.commands.kept_rows import what_is_kept
from q3e_local.cli.computing.model_options import quiet_option
from q3e_local.cli.progress import bar
from q3e_local.cli.stopping import between_batches, stopping_cleanly
from q3e_local.cli.terminal import say
from q3e_local.errors import OptionError
from q3e_local.search import places
from q3e_local.stores.address import StoreAddress, parse
from q3e_local.wording.counts import counted


@click.command()
@one_index
@click.option(
    "--to", required=True, metavar="URL|FILE", shell_complete=candidates.file,
    help="A file, .parquet, .jsonl or .npy (its rows are named in FILE.rows.jsonl), or a store: qdrant://HOST:PORT, "
    "qdrant:FOLDER, milvus://HOST:PORT, milvus:FILE.db, postgresql://USER@HOST/DATABASE, lancedb:FOLDER, "
    "chroma://HOST:PORT, chroma:FOLDER, sqlite-vec:FILE, redis://HOST:PORT, pinecone:FILE; with #NAME, a collection "
    "other than q3e.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@quiet_option
def export(name: str | None, db: Path | None, to: str, force: bool, quiet: bool) -> None:
    """Write all chunks with their vectors to a file, or into a vector store.

    A store gets what is new or changed since the last export, and loses what the index no longer has; rows that
    others put there stay. Interrupted, the same command goes on.
    """
    store = parse(to)
    path = places.existing(db, name)
    if store is None:
        _write(path, Path(to), force, quiet)
    else:
        _send(path, store, force, quiet)


def _write(path: Path, to: Path, force: bool, quiet: bool) -> None:
    from q3e_local.search.database import Database
    from q3e_local.search.export import SUFFIXES
    from q3e_local.search.export import export as write_chunks

    if to.suffix.lower() not in SUFFIXES:
        raise OptionError(
            f"{to} is neither a file of a known format nor a vector store: end a file in {', '.join(SUFFIXES)}, or "
            f"name a store, such as sqlite-vec:{to}; q3e-local index export --help has them all"
        )
    with stopping_cleanly(), Database.open(path) as database, bar(quiet) as show:
        total, n_bytes = database.facts().n_chunks, 4 * database.space.dim
        written = write_chunks(
            database, to, force=force, progress=lambda n: show("export", n * n_bytes, total * n_bytes)
        )
    if not quiet:
        say(f"{counted(total, 'chunk')}, {database.space}: {', '.join(map(str, written))}")


def _send(path: Path, to: StoreAddress, force: bool, quiet: bool) -> None:
    from q3e_local.search.database import Database
    from q3e_local.search.sending import send, shape_of, source_of
    from q3e_local.stores.filling import Filling
    from q3e_local.stores.opening import opened

    with stopping_cleanly(), Database.open(path) as database, opened(to, replace=force) as store:
        facts, space = database.facts(), database.space
        total, n_bytes = facts.n_chunks, 4 * space.dim
        filling = Filling(store, str(to), shape_of(space), source_of(facts))
        with bar(quiet) as show, between_batches(filling.keeps_parts) as batches:

            def reached(n_chunks: int) -> None:
                show("export", n_chunks * n_bytes, total * n_bytes)
                batches.check()

            try:
                total = send(database, filling, reached)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(what_is_kept(filling, to, "chunk")) from None
    if not quiet:
        say(f"{counted(total, 'chunk')}, {space}: {to}")
        say(f"{filling.n_sent:,} sent, {total - filling.n_sent:,} there already, {filling.n_deleted:,} deleted")
    for note in filling.notes:
        say(note)
