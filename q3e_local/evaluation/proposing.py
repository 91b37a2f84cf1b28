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

# Shorter texts say too little to be a question, longer ones are none. The second number is for Chinese and its like,
# where a character says as much as half a word.
_OF_HEADING, _OF_SENTENCE = (12, 5), (30, 12)
_CHARACTERS_MAX = 200
_MARKUP = re.compile(r"^[\s#>*+\-|`_=~]+|[\s#*|`_=~]+$")


def propose(passages: Passages, n: int) -> tuple[Question, ...]:
    """Up to `n` questions, spread over the files: the same ones each time. Each names the passages that answer it.

    A passage gives its heading, where that is no other file's and not the title of the whole file; else its first
    sentence. Raises InputError where no passage gives one.
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
    """The last heading above a passage, answered by all passages under it; not the title of a whole file."""
    if not entry.chunk.headings:
        return None
    text = _plain(entry.chunk.headings[-1])
    under = by_heading[text]
    is_of_one = all((other.file, other.chunk.headings) == (entry.file, entry.chunk.headings) for other in under)
    is_title = len(under) > 1 and len(under) == sum(other.file == entry.file for other in passages.entries)
    if not is_of_one or is_title or not _is_long_enough(text, _OF_HEADING):
        return None
    return _question(text, under, passages)


def _of_sentence(entry: Entry, passages: Passages) -> Question | None:
    """The first sentence of a passage that says enough, answered by all passages that have it, as neighbours may."""
    headings = {_plain(heading) for heading in entry.chunk.headings}
    for start, end in sentences(entry.chunk.text):
        sentence = entry.chunk.text[start:end].strip()
        text = _plain(sentence)
        if text not in headings and _is_long_enough(text, _OF_SENTENCE):
            return _question(text, [other for other in passages.entries if sentence in other.chunk.text], passages)
    return None


def _is_long_enough(text: str, least: tuple[int, int]) -> bool:
    """Whether the text has the length of a question: the first number or more, the second where it is not ASCII."""
    return least[not text.isascii()] <= len(text) <= _CHARACTERS_MAX


def _question(text: str, answered_by: list[Entry], passages: Passages) -> Question:
    return Question("", text, {entry.id: 1 for entry in answered_by}, passages.name)


def _plain(text: str) -> str:
    """One line without the marks of Markdown at its ends, and without bold."""
    return _MARKUP.sub("", " ".join(text.replace("**", "").split()))
