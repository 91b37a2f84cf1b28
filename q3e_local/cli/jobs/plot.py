"""`q3e-local plot`: a collection as a picture of points, or as a page to look around in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import click

from q3e_local import jobs
from q3e_local.cli.computing.engine_options import ModelCommand
from q3e_local.cli.jobs.collecting import collect
from q3e_local.cli.jobs.collection import Collection, Texts, end
from q3e_local.cli.jobs.map_names import cluster_words, folder_names, plain_texts, short_names
from q3e_local.cli.jobs.options import Embedding, Reading, inputs_argument, job_options, need
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.cli.writing.outputs import check_target, settle, stream_to
from q3e_local.errors import OptionError
from q3e_local.jobs.mapping import COLOURS, METHODS, Method
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import shortened

_COLOURS = ("folder", "file", "cluster", "none")
_FILES_AT_MOST = 20  # that have a colour each where no --colour is given


@click.command(cls=ModelCommand)
@inputs_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A .png or an .html file.")
@click.option("--method", type=click.Choice(METHODS), default="pca", show_default=True, help="How to lay texts out.")
@click.option(
    "--colour", "--color", "colour", type=click.Choice(_COLOURS),
    help="What has a colour of its own. [default: folder if there are several, file if a few]",
)  # fmt: skip
@click.option("-k", type=click.IntRange(1), help="How many clusters, with --colour cluster. [default: chosen]")
@click.option("--title", help="[default: the inputs]")
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
@job_options
def plot(
    output: Path, method: Method, colour: str | None, k: int | None, title: str | None, force: bool,
    reading: Reading, embedding: Embedding,
) -> int:  # fmt: skip
    """Draw a map of texts: those that mean the same lie near each other.

    An .html page shows a text under the mouse, zooms, and loads nothing from anywhere; a .png is a picture, with the
    names of the texts if they are few. pca keeps the directions in which texts differ most; tsne keeps neighbours
    together, and says little of what lies far apart.

    \b
      q3e-local plot notes/ -o map.html
      q3e-local plot --lines asked.txt --method tsne --colour cluster -o map.png
    """
    path = settle(output)
    form = "" if path is None else path.suffix.lower()
    if form not in (".png", ".html", ".htm"):
        raise OptionError(f"{output} does not say what to draw: end it in .png or .html")
    if k is not None and colour != "cluster":
        raise OptionError("-k is for --colour cluster")
    assert path is not None  # it has a suffix
    check_target(path, form, resuming=False, force=force)
    if method == "tsne":
        need("sklearn", "t-SNE")
    if colour == "cluster":
        need("sklearn", "clustering")
    if form == ".png":
        need("matplotlib", "a PNG")
    with stopping_cleanly():
        found = collect(reading, embedding, path, partial(_check_number, method, k))
        names = short_names(found) if found.has_texts else ()
        texts = plain_texts(found)
        drawn = jobs.plot(found.vectors, texts, _groups(found, texts, colour, k), method, names)
        title = title or ", ".join((*map(_last, reading.names), *reading.texts))
        missing = ""
        with stream_to(path) as stream:
            if form == ".png":
                missing = jobs.write_png(drawn, stream, title)
            else:
                stream.write(jobs.html_page(drawn, title).encode("utf-8"))
    if missing and not embedding.quiet:
        click.echo(
            f"no font here has {missing[:20]}, so the picture has boxes in their place; install Noto Sans CJK, "
            "or write an .html",
            err=True,
        )
    colours = _colours_shown(len(drawn.group_names))
    return end(found, f"{counted(len(found.rows), 'text')}{colours} in {path}", embedding.quiet)


def _check_number(method: Method, k: int | None, read: Texts) -> None:
    jobs.check_method(method, len(read.rows))
    jobs.check_clusters(k, len(read.rows))


def _groups(found: Collection, texts: Sequence[str], colour: str | None, k: int | None) -> Sequence[str]:
    """The group of each text, by name; `texts` are the texts as the map shows them."""
    if colour == "none":
        return ()
    if colour == "cluster":
        parted = jobs.cluster(found.vectors, k)
        words = cluster_words(found, parted)
        central = [shortened(texts[group.rows[0]], 60) for group in parted.clusters]
        names = [" · ".join(filter(None, (", ".join(words[n]), central[n]))) for n in range(len(central))]
        return [f"{label + 1}: {names[label]}" for label in parted.labels.tolist()]
    sources = [row.source for row in found.rows]
    folders = folder_names(sources)
    if colour == "folder" or (colour is None and len(set(folders)) > 1):
        return folders
    is_many = len(set(sources)) > _FILES_AT_MOST
    return () if colour is None and is_many else [PurePosixPath(source).name for source in sources]


def _colours_shown(n_groups: int) -> str:
    if n_groups > len(COLOURS):
        return f" in {n_groups} groups, which share {len(COLOURS)} colours,"
    return f" in {counted(n_groups, 'colour')}" if n_groups else ""


def _last(name: str) -> str:
    """Of a path what says most of it."""
    return Path(name).name or Path(name).resolve().name or name
