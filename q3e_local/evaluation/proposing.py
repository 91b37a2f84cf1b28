"""Questions proposed from an index, for those who have none: headings, and first sentences of passages.

Such questions are easy, since they share their words with what answers them. Knows texts and headings; no model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from q3e_local.errors import InputError
from q3e_local.evaluation.data import Question
from q3e_local.evaluation.passages import Passages
from q3e_local.search.database.records import Entry
from q3e_local.search.sentences import sentences

# Shorter texts say too little to be a question, longer ones are none.
_CHARACTERS_MIN, _CHARACTERS_MAX = 12, 200
_CHARACTERS_MIN_WIDE = 5  # of Chinese and its like, where a character says as much as half a word
_MARKUP = re.compile(r"^[\s#>*+\-|`_=~]+|[\s#*|`_=~]+$")


def propose(passages: Passages, n: int) -> tuple[Question, ...]:
    """Up to `n` questions, spread over the files: the same ones each time. Each names the passages that answer it.

    A passage gives its heading, where no other file has that heading, else its first sentence. Raises InputError
    where no passage gives one.
    """
    by_heading: dict[str, list[Entry]] = {}
    for entry in passages.entries:
        if entry.chunk.headings:
            by_heading.setdefault(_plain(entry.chunk.headings[-1]), []).append(entry)
    proposed: dict[str, Question] = {}
    for entry in _spread(passages):
        if len(proposed) == n:
            break
        question = _of_heading(entry, by_heading, passages) or _of_sentence(entry, passages)
        if question is not None:
            proposed.setdefault(question.text, question)
    if not proposed:
        raise InputError(
            f"{passages.name} has no heading and no sentence that could be a question; write some yourself"
        )
    return tuple(proposed.values())


def _spread(passages: Passages) -> Iterator[Entry]:
    """All passages in an order without meaning that takes the files in turns."""
    seen: Counter[str | None] = Counter()
    in_rounds: list[tuple[int, Entry]] = []
    for place in np.argsort(passages.turns):
        entry = passages.entries[place]
        in_rounds.append((seen[entry.file], entry))
        seen[entry.file] += 1
    for _, entry in sorted(in_rounds, key=lambda pair: pair[0]):  # stable: a round keeps the order above
        yield entry


def _of_heading(entry: Entry, by_heading: Mapping[str, list[Entry]], passages: Passages) -> Question | None:
    """The last heading above a passage, answered by all passages under it."""
    if not entry.chunk.headings:
        return None
    text = _plain(entry.chunk.headings[-1])
    under = by_heading[text]
    is_of_one = all((other.file, other.chunk.headings) == (entry.file, entry.chunk.headings) for other in under)
    return _question(text, under, passages) if is_of_one else None


def _of_sentence(entry: Entry, passages: Passages) -> Question | None:
    """The first sentence of a passage, answered by all passages that have it, as neighbours may."""
    for start, end in sentences(entry.chunk.text):
        sentence = entry.chunk.text[start:end].strip()
        if not _plain(sentence) or _plain(sentence) in map(_plain, entry.chunk.headings):
            continue
        having = [other for other in passages.entries if sentence in other.chunk.text]
        return _question(_plain(sentence), having, passages)
    return None


def _question(text: str, answered_by: list[Entry], passages: Passages) -> Question | None:
    """The question, if its text has the length of one."""
    least = _CHARACTERS_MIN if text.isascii() else _CHARACTERS_MIN_WIDE
    if not least <= len(text) <= _CHARACTERS_MAX:
        return None
    return Question("", text, {entry.id: 1 for entry in answered_by}, passages.name)


def _plain(text: str) -> str:
    """One line without the marks of Markdown at its ends, and without bold."""
    return _MARKUP.sub("", " ".join(text.replace("**", "").split()))
