"""Texts in a field of JSON objects, an object a line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import orjson

from q3e_local.reading.encodings import is_strictly
from q3e_local.reading.records.item import Cause, Item, Wanted, failed, item_of
from q3e_local.reading.records.transcoding import OpenText


def read(name: str, text: OpenText, wanted: Wanted) -> Iterator[Item]:
    """Each line that is not blank."""
    for number, raw in enumerate(text.stream, 1):
        if not raw.strip():
            continue
        try:
            record = orjson.loads(raw.removeprefix(codecs.BOM_UTF8))
        except orjson.JSONDecodeError as error:
            cause: Cause = "record" if is_strictly(raw, "utf-8", is_whole=True) else "encoding"
            yield failed(name, f"is not JSON: {error}", cause, len(raw), number)
            continue
        if isinstance(record, dict):
            yield item_of(name, number, record, wanted, len(raw))
        else:
            problem = f"is not a JSON object but {type(record).__name__}"
            yield failed(name, problem, "record", len(raw), number)
