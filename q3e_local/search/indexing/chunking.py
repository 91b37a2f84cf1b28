"""A document cut into chunks: by its structure, to a budget of tokens.

Takes a function that counts tokens; knows no model, no file and no database.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, zip_longest

from q3e_local.errors import OptionError
from q3e_local.reading.document import Document, Section
from q3e_local.search.database.records import Chunk
from q3e_local.search.sentences import sentences, trimmed

Count = Callable[[str], int]
"""How many tokens the model sees of a text, end token included."""
Expect = Callable[[Iterable[str]], None]
"""Is called with texts that are going to be counted, whole or in stretches. It need not read them."""

CHUNK_TOKENS = 256
CHUNK_TOKENS_MIN = 32  # any character fits, and a heading beside it
OVERLAP_TOKENS = 32

# A sentence that is too long is cut into parts of so many tokens, which fill chunks well.
_FINE_TOKENS = 16
# A word of more tokens, such as an address, stays whole up to so many.
_WORD_TOKENS = 64
# Few texts have more characters a token, so that a longer stretch is cut without counting its tokens.
_CHARACTERS_PER_TOKEN = 16
# Hardly any stretch so short has too many tokens, so that none is halved.
_CHARACTERS_MIN = 8
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch that stays together. Pieces of a group follow on each other, each with the white space behind it."""

    start: int
    end: int
    n_tokens: int  # by itself, without an end token
    section: Section


def chunks(
    document: Document,
    count: Count,
    n_tokens: int = CHUNK_TOKENS,
    overlap: int = OVERLAP_TOKENS,
    expect: Expect = lambda texts: None,
) -> list[Chunk]:
    """Chunks of at most `n_tokens`, counted on what is embedded: heading path and end token included.

    Sections under the same headings and on the same page share a chunk while they fit. One that does not fit is cut
    at the ends of sentences (code: of lines), then between words, then between characters; what follows such a cut
    begins with the last whole pieces before it, `overlap` tokens at most. `expect` is called with what is counted
    where a text has to be halved; of the rest see `counted_first`. Raises OptionError for a budget below 32.
    """
    if n_tokens < CHUNK_TOKENS_MIN:
        raise OptionError(f"a chunk must have {CHUNK_TOKENS_MIN} tokens or more, got {n_tokens}")
    cutter = _Cutter(document, count, n_tokens, overlap, expect)
    line_ends = [end.start() for end in re.finditer("\n", document.text)]
    return [
        _chunk(document, pieces, headings, line_ends)
        for headings, group in cutter.groups()
        for pieces in cutter.packed(group, headings)
    ]


def counted_first(document: Document) -> Iterator[str]:
    """Texts that hold all that `chunks` counts of a document that needs no halving, for a server to count ahead.

    The whole text; its heading paths; its sentences or lines, with and without the white space at their ends.
    """
    yield document.text
    for headings in dict.fromkeys(section.headings for section in document.sections):
        yield Chunk("", headings=headings).embedded
    for section in document.sections:
        for start, end in _cuts(document, section.start, section.end):
            sentence = document.text[section.start + start : section.start + end]
            yield from (sentence, sentence.strip())


def _chunk(
    document: Document, pieces: Sequence[_Piece], headings: tuple[str, ...], line_ends: Sequence[int]
) -> Chunk:
    start, end = trimmed(document.text, pieces[0].start, pieces[-1].end)
    first, last = pieces[0].section, pieces[-1].section
    line, last_line = first.line, last.line
    if document.has_lines and line is not None:
        line += bisect_left(line_ends, start) - bisect_left(line_ends, first.start)
        last_line = line + bisect_left(line_ends, end) - bisect_left(line_ends, start)
    return Chunk(document.text[start:end], start, end, headings, first.page, line, last_line)


class _Cutter:
    """One document's pieces, and how many of them make a chunk."""

    def __init__(self, document: Document, count: Count, n_tokens: int, overlap: int, expect: Expect) -> None:
        self._document, self._text = document, document.text
        self._count, self._limit, self._overlap, self._expect = count, n_tokens, overlap, expect
        self._n_end = count("")  # the end token

    def groups(self) -> Iterator[tuple[tuple[str, ...], list[_Piece]]]:
        """The pieces that may share chunks, under their heading path."""
        for (path, _), sections in groupby(_without_repeated_headings(self._document.sections), _place):
            headings = self._fitting(path)
            pieces = list(self._pieces(list(sections), self._room(headings)))
            if pieces:
                yield headings, pieces

    def packed(self, pieces: list[_Piece], headings: tuple[str, ...]) -> Iterator[list[_Piece]]:
        """The pieces of each chunk: repeated pieces, then as many new pieces as fit."""
        room = self._room(headings)
        first = new = 0  # pieces from `first` are repeated, pieces from `new` are not
        while new < len(pieces):
            last = new + 1
            n_tokens = sum(piece.n_tokens for piece in pieces[first:last])
            while last < len(pieces) and n_tokens + pieces[last].n_tokens <= room:
                n_tokens += pieces[last].n_tokens
                last += 1
            # subtle: a text has not quite as many tokens as its parts together, so the embedded text is counted.
            while not self._fits(pieces[first], pieces[last - 1], headings):
                if last > new + 1:
                    last -= 1
                elif first < new:
                    first += 1
                else:
                    pieces[new : new + 1] = self._halves(pieces[new])
            if self._text[pieces[new].start : pieces[last - 1].end].strip():
                yield pieces[first:last]
            first, new = self._repeated(pieces, first, last, room), last

    def _repeated(self, pieces: list[_Piece], first: int, last: int, room: int) -> int:
        """Where the chunk begins whose first new piece is `last`: earlier if a section was cut there."""
        if last == len(pieces):
            return last
        n_tokens, section = 0, pieces[last].section
        while last - 1 > first and pieces[last - 1].section is section:
            n_tokens += pieces[last - 1].n_tokens
            if n_tokens > self._overlap or n_tokens + pieces[last].n_tokens > room:
                break
            last -= 1
        return last

    def _fitting(self, headings: tuple[str, ...]) -> tuple[str, ...]:
        """The heading path, without outermost headings as long as it takes more than half of a chunk."""
        while headings and self._limit - self._room(headings) > self._limit // 2:
            headings = headings[1:]
        return headings

    def _room(self, headings: tuple[str, ...]) -> int:
        """How many tokens the text under these headings may have."""
        return self._limit - self._count(Chunk("", headings=headings).embedded)

    def _fits(self, first: _Piece, last: _Piece, headings: tuple[str, ...]) -> bool:
        start, end = trimmed(self._text, first.start, last.end)
        return self._count(Chunk(self._text[start:end], headings=headings).embedded) <= self._limit

    def _pieces(self, sections: list[Section], room: int) -> Iterator[_Piece]:
        """Sections that fit, else their sentences or lines, else parts of these."""
        ends = [following.start for _, following in pairwise(sections)] + [sections[-1].end]
        for section, section_end in zip(sections, ends, strict=True):
            for start, end, n_tokens in self._whole_or_cut(section.start, section_end, room):
                if n_tokens is None:
                    self._expect(self._all_halves(start, end))
                    yield from self._parts(start, end, section)
                else:
                    yield _Piece(start, end, n_tokens, section)

    def _whole_or_cut(self, start: int, end: int, room: int) -> Iterator[tuple[int, int, int | None]]:
        """The section, or its sentences or lines, with their tokens; None for a sentence that is too long."""
        n_tokens = self._tokens_within(start, end, room)
        if n_tokens is not None:
            yield start, end, n_tokens
            return
        for first, last in _cuts(self._document, start, end):
            yield start + first, start + last, self._tokens_within(start + first, start + last, room)

    def _tokens_within(self, start: int, end: int, room: int) -> int | None:
        """How many tokens a stretch has; None where it is too long for the room."""
        if end - start > room * _CHARACTERS_PER_TOKEN:
            return None
        n_tokens = self._tokens(start, end)
        return n_tokens if n_tokens <= room else None

    def _parts(self, start: int, end: int, section: Section) -> Iterator[_Piece]:
        """Halves of halves, cut between words where there are any."""
        if end - start <= _FINE_TOKENS * _CHARACTERS_PER_TOKEN:
            n_tokens = self._tokens(start, end)
            is_fine = n_tokens <= (_WORD_TOKENS if self._is_word(start, end) else _FINE_TOKENS)
            if is_fine or end - start == 1:
                yield _Piece(start, end, n_tokens, section)
                return
        middle = self._middle(start, end)
        yield from self._parts(start, middle, section)
        yield from self._parts(middle, end, section)

    def _all_halves(self, start: int, end: int) -> Iterator[str]:
        """The texts that `_parts` may count of a stretch."""
        if end - start <= _FINE_TOKENS * _CHARACTERS_PER_TOKEN:
            yield self._text[start:end]
        if end - start > _CHARACTERS_MIN:
            middle = self._middle(start, end)
            yield from self._all_halves(start, middle)
            yield from self._all_halves(middle, end)

    def _halves(self, piece: _Piece) -> list[_Piece]:
        middle = self._middle(piece.start, piece.end)
        spans = ((piece.start, middle), (middle, piece.end))
        return [_Piece(start, end, self._tokens(start, end), piece.section) for start, end in spans]

    def _is_word(self, start: int, end: int) -> bool:
        """Whether it has no white space within. Chinese and its like have none anywhere, and may be cut."""
        word = self._text[start:end].strip()
        return word.isascii() and not any(map(str.isspace, word))

    def _middle(self, start: int, end: int) -> int:
        """The place behind the white space that is nearest to the middle; the middle itself where there is none."""
        middle = (start + end + 1) // 2
        first, last = trimmed(self._text, start, end)
        before = max(self._text.rfind(space, first, middle) for space in " \n\t") + 1
        after = min((at + 1 for space in " \n\t" if (at := self._text.find(space, middle, last)) >= 0), default=0)
        places = [place for place in (before, after) if first < place < last]
        return min(places, key=lambda place: abs(place - middle), default=middle)

    def _tokens(self, start: int, end: int) -> int:
        return self._count(self._text[start:end]) - self._n_end


def _cuts(document: Document, start: int, end: int) -> Iterable[tuple[int, int]]:
    """The sentences of a stretch, or its lines where it is code, by their places in it."""
    text = document.text[start:end]
    return (line.span() for line in _LINES.finditer(text)) if document.kind == "code" else sentences(text)


def _without_repeated_headings(sections: Sequence[Section]) -> Iterator[Section]:
    """All sections but headings that stand in the heading path of the next section."""
    for section, following in zip_longest(sections, sections[1:]):
        is_repeated = section.is_heading and following is not None
        if not (is_repeated and following.headings[: len(section.headings)] == section.headings):
            yield section


def _place(section: Section) -> tuple[tuple[str, ...], int | None]:
    return section.headings, section.page
