"""The sentence of a passage that answers a query best: by the words they share, or by meaning where they share none.

Knows sentences, words and an embedder; nothing of how passages were found.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from q3e_local.embedding.request import Embedded
from q3e_local.embedding.text_model import TextModel
from q3e_local.search.database.query_words import Term, terms_of, tokens
from q3e_local.search.documents import document_request
from q3e_local.search.sentences import sentences, trimmed
from q3e_local.vectors import Vectors

# Tokens embedded for one search: under a second for 0.6b on two cores, about four for 4b.
TOKENS_MAX = 512
# Texts whose tokens a server counts in one request: seldom do more fit into the limit above.
_EXPECTED = 8
# Short words of languages with spaces are in every sentence, and count less.
_SHORT = 3
_SHORT_WEIGHT = 0.1
_LINES_MAX = 4
_BYTES_MIN = 10  # of the words in a sentence: two words of English, or three characters of Chinese, in two pairs


@dataclass(frozen=True)
class Best:
    """Characters of a passage."""

    start: int
    end: int


def by_words(query: str, text: str, absent: Collection[Term] = ()) -> Best | None:
    """The sentence that shares most words with the query; None where no shared word tells sentences apart.

    `absent` are codes of the query that no chunk has: their parts do not count.
    """
    spans = candidates(text)
    words = [set(tokens(text[start:end])) for start, end in spans]
    weights = [0.0] * len(spans)
    for term in terms_of(query, absent):
        having = [number for number, sentence in enumerate(words) if _has(sentence, term)]
        for number in having:
            weights[number] += _weight(term) * math.log(1 + len(words) / len(having))
    if not weights or max(weights) < _SHORT_WEIGHT * 3:
        return None
    return Best(*trimmed(text, *spans[weights.index(max(weights))]))


def candidates(text: str) -> list[tuple[int, int]]:
    """The sentences that may be best, without titles and marks between sentences unless there is nothing else."""
    spans = [part for span in sentences(text) for part in _lines_of_code(text, *span)]
    telling = [span for span in spans if len("".join(tokens(text[slice(*span)])).encode()) >= _BYTES_MIN]
    return telling or spans


def _lines_of_code(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The sentence; but each of its lines where it has so many lines that it must be code or a list."""
    lines = text[start:end].splitlines(keepends=True)
    if len(lines) <= _LINES_MAX:
        return [(start, end)]
    ends = list(accumulate(map(len, lines), initial=start))
    return list(pairwise(ends))


def _has(words: set[str], term: Term) -> bool:
    """Whether a sentence has all words of a term, in any order."""
    if term.is_prefix:
        *whole, beginning = term.tokens
        return words.issuperset(whole) and any(word.startswith(beginning) for word in words)
    return words.issuperset(term.tokens)


def _weight(term: Term) -> float:
    word = "".join(term.tokens)
    is_short = not term.exact and len(word) <= _SHORT and word.isascii() and word.isalpha()
    return _SHORT_WEIGHT if is_short else 1.0


def by_vectors(
    embedder: TextModel, query: Vectors, texts: Sequence[str], tokens_max: int = TOKENS_MAX
) -> list[Best | None]:
    """The sentence of each text nearest to the query (dim,); None once `tokens_max` tokens are embedded."""
    found: list[Best | None] = []
    wanted: list[tuple[int, tuple[int, int]]] = []
    n_tokens = 0
    embedder.expect_counts(texts[:_EXPECTED])
    for number, text in enumerate(texts):
        spans = candidates(text)
        found.append(Best(*trimmed(text, *spans[0])) if len(spans) == 1 else None)
        if len(spans) > 1:
            n_tokens += embedder.count_tokens([text])[0] - 1  # each sentence gets its own end token
            if n_tokens > tokens_max:
                break
            wanted += [(number, span) for span in spans]
    found += [None] * (len(texts) - len(found))
    parts = (texts[number][start:end].strip() for number, (start, end) in wanted)
    request = document_request(parts, len(query), truncate=True)
    scores: dict[int, float] = {}
    for (number, span), result in zip(wanted, embedder.stream(request), strict=True):
        if not isinstance(result, Embedded):
            continue
        score = float(np.dot(result.vector, query))
        if score > scores.get(number, -2.0):
            scores[number], found[number] = score, Best(*trimmed(texts[number], *span))
    return found
