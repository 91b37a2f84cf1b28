"""One run of `q3e-local embed`: items in, records out, in the order of the input.

Knows items, results and outputs; nothing of options, files or the terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from q3e_local.cli.progress import Meter
from q3e_local.cli.stopping import Batches
from q3e_local.cli.texts import Blank, Item, Source
from q3e_local.cli.texts.source import Tell
from q3e_local.cli.texts.survey import LEAVE_OUT_OR_ZEROS, advice
from q3e_local.cli.writing.outputs import Target
from q3e_local.cli.writing.record import Record
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InputError, OutputError, TextError

_NAMED_AT_MOST = 5


@dataclass
class Tally:
    """What a run did, for the lines at its end."""

    n_texts: int = 0
    n_tokens: int = 0
    n_done_before: int = 0
    n_cached: int = 0
    n_cached_tokens: int = 0
    n_cut: int = 0
    cut: list[str] = field(default_factory=list)  # ids of the first texts that were cut
    n_blank: int = 0
    skipped: dict[int, str] = field(default_factory=dict)  # by index: reading runs ahead of embedding

    def add(self, name: str, result: Embedded) -> None:
        """Count a text that was embedded."""
        self.n_texts += 1
        self.n_tokens += result.prompt_tokens
        if result.cached:
            self.n_cached += 1
            self.n_cached_tokens += result.prompt_tokens
        if result.truncated:
            self.n_cut += 1
            if len(self.cut) < _NAMED_AT_MOST:
                self.cut.append(name)


@dataclass
class Run:
    """Reads, embeds and writes text by text. Passes over texts that the output has from an earlier run."""

    embedder: TextModel
    request: EmbedRequest
    out: Target
    show: Meter
    batches: Batches
    tally: Tally
    dim: int
    skip: bool  # whether texts that fail are listed in the tally, and do not end the run
    blank: Blank | None  # what becomes of blank texts

    def __post_init__(self) -> None:
        self._last_done = max(self.out.done, default=-1)
        # Items that are not written yet: the embedder has their texts, or they have a problem and get a row of zeros
        # once all items before them are written.
        self._waiting: deque[tuple[int, Item]] = deque()
        self._is_read = False  # whether the source was read to its end
        self._failure: InputError | None = None

    def go(self, source: Source, tell: Tell) -> None:
        """Raises the first error once all texts before it are written, KeyboardInterrupt between two batches."""
        request = replace(self.request, texts=self._wanted(source, tell))
        for result in self.embedder.stream(request, self._computed):
            index, item = self._waiting.popleft()
            if isinstance(result, TextError):
                if not self.skip:
                    raise InputError(f"{item.id} {result.message}")
                self.tally.skipped[index] = f"{item.id} {result.message}"
                if self.blank == "zeros":
                    self._write_zeros(index, item)
                else:
                    self.show.skipped(item.n_bytes)
            else:
                vector, tokens = result.vector, result.prompt_tokens
                self.out.write(Record(index, item.id, item.text, tokens, result.truncated, vector, item.kept))
                self.tally.add(item.id, result)
                self.show.kept(item.n_bytes, tokens, cached=result.cached)
            self._write_due_zeros()
        if self._failure is not None:
            raise self._failure
        if not (self.tally.n_texts or self.tally.n_done_before or self.tally.skipped):
            why = ": all of them are blank" if self.tally.n_blank else ""
            raise InputError(f"there are no texts in the input{why}")

    def _wanted(self, source: Source, tell: Tell) -> Iterator[str]:
        items = self.batches.reading(source.read(tell))
        for index, item in enumerate(items):
            if self.out.has(index, item):
                self.tally.n_done_before += 1
                self.show.skipped(item.n_bytes, n_there=int(index not in self.out.done))
                continue
            if self.blank == "zeros" and index < self._last_done:
                raise OutputError(f"the output has no row for {item.id}: it was begun without --blank zeros")
            if item.problem is None:
                self._waiting.append((index, item))
                yield item.text
            elif self.skip or self._is_excused(item):
                self._leave_out(index, item)
            else:
                has_others = bool(self.tally.n_texts or self._waiting or self.out.done) or _may_go_on(source, item)
                has_others = has_others or any(other.problem is None for other in items)
                self._failure = InputError(
                    f"{item.id} {item.problem}{advice([item], has_others, LEAVE_OUT_OR_ZEROS)}"
                )
                break
        self._is_read = True

    def _is_excused(self, item: Item) -> bool:
        return item.is_blank and self.blank in ("zeros", "skip")

    def _leave_out(self, index: int, item: Item) -> None:
        if self._is_excused(item):
            self.tally.n_blank += 1
        else:
            self.tally.skipped[index] = f"{item.id} {item.problem}"
        if self.blank == "zeros":
            self._waiting.append((index, item))
            self._write_due_zeros()
        else:
            self.show.skipped(item.n_bytes)

    def _write_due_zeros(self) -> None:
        """Write the rows of zeros that no text stands before."""
        while self._waiting and self._waiting[0][1].problem is not None:
            self._write_zeros(*self._waiting.popleft())

    def _write_zeros(self, index: int, item: Item) -> None:
        zeros = np.zeros(self.dim, np.float32)
        self.out.write(Record(index, item.id, item.text, 0, False, zeros, item.kept, blank=True))
        self.show.skipped(item.n_bytes, n_there=1)

    def _computed(self, n_texts: int, n_tokens: int) -> None:
        self.show.computed(n_texts, n_tokens)
        if self._waiting or not self._is_read:
            self.batches.check()


def _may_go_on(source: Source, item: Item) -> bool:
    """Whether more records may come through a pipe, which nobody should wait for: it may stay open without end."""
    return None in source.paths and not source.layout.is_whole and item.cause != "file"
