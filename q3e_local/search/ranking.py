"""Two rankings made one, and whether a query gains by it.

Knows ranks, words and counts: nothing of vectors, files or SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from q3e_local.search.database.query_words import Term, tokens
from q3e_local.search.database.records import COUNTED_MAX

# Cormack, Clarke, Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods,
# SIGIR 2009, where 60 was found and has been kept by everyone since.
RRF_K = 60

# A term that every fourth chunk has tells chunks apart too little, however exact it is.
_COMMON = 4
# A word is rare if at most one chunk in so many has it, which is rarer than a subject and as common as a name.
_RARE = 200
# Short words, and words of questions, are no names though they are rare: notes seldom ask.
_WORD_CHARACTERS_MIN = 4
_OF_QUESTIONS = frozenset(
    """
    about after also anyone been before being between could does doing done during each else ever from give have
    having into know like made make many more most much need only other ours over please same shall should show some
    such tell than that their them then there these they thing things this those till under until upon very want were
    what when where whether which while whom whose will with within without would your
    """.split()  # noqa: SIM905 (a list of words, to be read)
)
# A chunk that shares fewer of a query's telling words shares them by chance: fused, it would stand before the chunk
# that says the same in other words.
_SHARED = 0.4
# A pair of characters with one of these lies across two words more often than it is one.
_PARTICLES = frozenset(
    "的了是我你他她它们这那在有和与就不也都很么什怎哪谁吗呢吧啊把被让给对从到为以之其及或几个多少はがをにでとものかられ"
)


def fuse(rankings: Sequence[Sequence[int]]) -> list[int]:
    """The rows of all rankings by the sum of 1 / (60 + rank). Among equal sums, earlier rankings come first."""
    sums: dict[int, float] = {}
    for ranking in rankings:
        for place, row in enumerate(ranking, start=1):
            sums[row] = sums.get(row, 0.0) + 1 / (RRF_K + place)
    return sorted(sums, key=lambda row: -sums[row])  # stable: rows of earlier rankings are in `sums` first


def to_the_letter(counts: Mapping[Term, int], n_chunks: int) -> dict[Term, int]:
    """The terms that are meant to the letter, that are found, but not everywhere, and that are no part of another.

    `counts` says in how many chunks each term is found, without terms that are in none.
    """
    most = min(max(1, n_chunks // _COMMON), COUNTED_MAX - 1)
    found = {term: n for term, n in counts.items() if term.exact and n <= most}
    return {
        term: n
        for term, n in found.items()
        if not any(term.exact in other.exact and term.exact != other.exact for other in found)
    }


def reasons_for_words(counts: Mapping[Term, int], n_chunks: int) -> list[str]:
    """The parts of a query that are meant to the letter or rare, which words find better than meaning."""
    letters = to_the_letter(counts, n_chunks)
    most = max(1, n_chunks // _RARE)
    rare = {term: n for term, n in counts.items() if n <= most and not term.exact and _is_telling(term)}
    reasons = {term.exact: n for term, n in letters.items()}
    reasons |= {
        term.tokens[0]: n
        for term, n in rare.items()
        if not any(term.tokens[0] in letter.tokens for letter in letters)
    }
    return [f"{word!r} (in {n:,} of {n_chunks:,})" for word, n in reasons.items()]


def shares_enough(terms: Sequence[Term], letters: Collection[Term], text: str) -> bool:
    """Whether a text has one of `letters`, or two fifths of the telling ones among the terms of a query."""
    telling = [term for term in terms if term.exact or _is_telling(term)]
    words = f" {' '.join(tokens(text))} "
    if any(_has(words, term) for term in letters):
        return True
    return sum(_has(words, term) for term in telling) >= _SHARED * len(telling)


def _has(words: str, term: Term) -> bool:
    return f" {' '.join(term.tokens)}{'' if term.is_prefix else ' '}" in words


def _is_telling(term: Term) -> bool:
    """Whether it says what a text is about; being rare makes it a name."""
    if len(term.tokens) > 1 or term.is_prefix:
        return False
    (word,) = term.tokens
    if word[0] >= "\u2e80":
        return not _PARTICLES & set(word)
    return len(word) >= _WORD_CHARACTERS_MIN and word not in _OF_QUESTIONS
