"""Readers of messages in two languages: gettext catalogues, JSON trees side by side, and records of JSON."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lines import Language, Pair, translation

LITTLE_ENDIAN = 0x950412DE


def strings(data: bytes, n: int, table: int) -> Iterator[str]:
    for i in range(n):
        length, start = struct.unpack_from("<II", data, table + 8 * i)
        yield data[start : start + length].decode(errors="replace")


def gettext(tree: Path, files: str) -> Iterator[Pair]:
    """The messages of compiled catalogues whose ids are English; of plurals the singular."""
    for path in sorted(tree.glob(files)):
        data = path.read_bytes()
        magic, _, n, ids, texts = struct.unpack_from("<5I", data)
        if magic != LITTLE_ENDIAN:
            raise ValueError(f"{path.name} is no little-endian catalogue")
        for message, text in zip(strings(data, n, ids), strings(data, n, texts), strict=True):
            yield translation(message.rpartition("\x04")[2].partition("\0")[0], text.partition("\0")[0])


def load(path: Path) -> Any:
    """The JSON of a file, without the name of its language where that is all that the top holds."""
    value = json.loads(path.read_text(encoding="utf-8"))
    return next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value


def leaves(value: Any, *path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The strings of a JSON tree with the names that lead to them; lists of several have no common order."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, *path, name)
    elif isinstance(value, list) and len(value) == 1:
        yield from leaves(value[0], *path)


def json_trees(tree: Path, english: str, chinese: str) -> Iterator[Pair]:
    """Strings of the same place in two trees of JSON. `chinese` is a path from the folder of the English file."""
    for path in sorted(tree.glob(english)):
        for other in sorted((path.parent / chinese).parent.glob(Path(chinese).name)):
            known = dict(leaves(load(other)))
            for place, text in leaves(load(path)):
                if place in known:
                    yield translation(text, known[place])


def json_records(tree: Path, files: str, english: str, chinese: str) -> Iterator[Pair]:
    """A list of records, each with an English and a Chinese text under the names given, which may have dots."""
    for path in sorted(tree.glob(files)):
        for record in json.loads(path.read_text(encoding="utf-8")):
            texts = {".".join(place): text for place, text in leaves(record)}
            yield translation(texts[english], texts[chinese])


def named(value: Any, name: str, terms: str) -> Iterator[tuple[str, str]]:
    """Names with the terms beside them, from anywhere in a JSON tree."""
    if isinstance(value, dict):
        if name in value and terms in value:
            (title,) = value[name] if isinstance(value[name], list) else [value[name]]
            words = value[terms] if isinstance(value[terms], list) else value[terms].split(",")
            yield title, ", ".join(word.strip() for word in words if word.strip() != title)
        for inner in value.values():
            yield from named(inner, name, terms)


def json_terms(tree: Path, files: dict[Language, str], name: str, terms: str) -> Iterator[Pair]:
    """Names with the words that people look for them by."""
    for language, pattern in files.items():
        for path in sorted(tree.glob(pattern)):
            for title, words in named(load(path), name, terms):
                yield Pair("synonym", language, title, language, words)
