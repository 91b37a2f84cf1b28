"""`embed --to`: texts into a vector store as they are embedded, and which other options go with it.

Knows records and rows; nothing of what computes, or of what a store is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from q3e_local.cli.commands.kept_rows import what_is_kept
from q3e_local.cli.stopping import uninterrupted
from q3e_local.cli.texts import Item, Layout, Source
from q3e_local.cli.writing.record import About, Record, cell
from q3e_local.cli.writing.resume import Done
from q3e_local.errors import InputError, OptionError, OutputError
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.filling import Filling
from q3e_local.stores.rows import OWN_NAMES, Row, Shape, Value, digest_of
from q3e_local.stores.store import Store

_SOURCE = "embed"  # of all rows that this command sends: the next run replaces them by their ids, and deletes none


def check(store: StoreAddress, layout: Layout, source: Source, others: Mapping[str, object]) -> None:
    """Raise OptionError for what does not go with a store: texts without ids that stay, and these other options."""
    for option, value in others.items():
        if value:
            raise OptionError(f"{option} does not go with --to {store}: it is for files")
    has_ids = layout.id_field is not None or (layout.is_whole and None not in source.paths and not source.texts)
    if not has_ids:
        raise OptionError(
            "--to needs texts with ids that stay, by which the next run replaces them: whole files, or records with "
            "--id FIELD"
        )
    for name in layout.keep:
        if name in OWN_NAMES:
            raise OptionError(f"--keep {name}: every row of a store has a {name!r} already; give it another name")


class StoreOutput:
    """A collection that a run fills. What it has of earlier runs is known by id, not by place: `done` stays empty."""

    def __init__(self, filling: Filling, address: StoreAddress, keep: Iterable[str], limit: int | None) -> None:
        self._filling, self._address, self._keep = filling, address, tuple(keep)
        self._limit = limit  # in tokens: the vector of a text that is cut changes with it
        self._seen: set[str] = set()
        self.done: Done = {}
        self.n_written = 0

    def has(self, index: int, item: Item) -> bool:
        """Whether the store has this text as it is now. Raises InputError for the second text of an id."""
        if item.problem is not None:
            return False
        if item.id in self._seen:
            raise InputError(
                f"{item.id} is the id of two texts, of which a store keeps the last alone; give each an id of its own"
            )
        self._seen.add(item.id)
        return self._filling.has(item.id, self._digest(item.id, item.text, self._fields(item.kept)))

    def write(self, record: Record) -> None:
        """Take a record; a batch that is full is sent, Ctrl-C or not. Raises OutputError."""
        fields = self._fields(record.kept)
        row = Row(record.id, record.text, fields, self._digest(record.id, record.text, fields))
        with uninterrupted():
            self._filling.put(row, record.vector)
            self.n_written += 1

    def kept(self, error: BaseException) -> str:
        """Send what waits for its batch where the run ends with this error, and say what is there then."""
        if self._filling.keeps_parts and not isinstance(error, OutputError):
            with uninterrupted():
                self._filling.flush()
        return what_is_kept(self._filling, self._address, "text")

    @property
    def keeps_parts(self) -> bool:
        """Whether the store keeps what was sent when a run ends before its time."""
        return self._filling.keeps_parts

    @property
    def summary(self) -> list[str]:
        """Lines for the end of a run."""
        return [f"{self._filling.n_sent:,} sent to {self._address}", *self._filling.notes]

    def _fields(self, kept: Mapping[str, Any]) -> dict[str, Value]:
        """All kept fields as text; None where a record lacks one."""
        return {name: None if kept.get(name) is None else cell(kept[name]) for name in self._keep}

    def _digest(self, name: str, text: str, fields: Mapping[str, Value]) -> str:
        return digest_of(name, text, orjson.dumps(fields), str(self._limit))


@contextmanager
def filling(store: Store, address: StoreAddress, about: About, limit: int | None) -> Iterator[StoreOutput]:
    """The output for one run into an open store. Complete when the block ends well.

    Raises SpaceMismatchError where the collection has vectors of another space, OutputError for other kept fields.
    """
    shape = Shape(about.model, about.space, about.dim, dict.fromkeys(about.keep, "text"))
    filled = Filling(store, str(address), shape, _SOURCE)
    yield StoreOutput(filled, address, about.keep, limit)
    filled.finish()
