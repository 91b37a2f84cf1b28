"""Two rankings made one, whether a query gains by it, and which chunks share enough of its words.

Knows ranks, words and counts: nothing of vectors, files or SQL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from q3e_local.search.database.query_words import Term, folded, is_paired
from q3e_local.search.database.records import COUNTED_MAX, TERMS_SEARCHED, Counted, Sharing

# Cormack, Clarke, Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods,
# SIGIR 2009, where 60 was found and has been kept by everyone since.
RRF_K = 60

# A term that every fourth chunk has tells chunks apart too little, however exact it is.
_COMMON = 4
# A word is rare if at most one chunk in so many has it, which is rarer than a subject and as common as a name.
_RARE = 200
# Short words, and words of questions and of grammar, name nothing though they are rare: notes seldom ask.
_WORD_CHARACTERS_MIN = 4
_FOUND_CHARACTERS_MIN = 3  # of a word that some chunk has: one that none has may be grammar of another language
_OF_QUESTIONS = frozenset(
    """
    about after all also and any anyone are been before being between but can could did does doing done during each
    else ever for from get gets got had has have having her his how into its know let like made make many may more
    most much need not off only other our out over own per please same see shall she should show some such tell than
    that the their them then there these they thing things this those till too under until upon use very via was way
    were what when where whether which while who whom whose why will with within without would yet you your
    """.split()  # noqa: SIM905 (a list of words, to be read)
)
# A chunk that shares less with a query has its words by chance: fused, it would stand before the chunk that says the
# same in other words. Of 120 questions in other words about 60 texts (the dev part of scripts/bench/understanding, by
# the demo model), 98 have their text first by meaning alone and with this share, and 62 without the rule. A larger
# share would lose answers that words find: tests/search/test_sharing.py has some of two words in five.
_ENOUGH = 0.4
_INSIDE_A_SENTENCE = re.compile(r"(?:(?<=[^\W_] )|(?<=[,;] ))[^\W_]{3,}")
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


def sharing(query: str, terms: Sequence[Term], counted: Counted, n_chunks: int) -> Sharing:
    """What a chunk must share with a query of these terms, so that it does not share words by chance.

    A term weighs as much as it tells chunks apart, log((N + 1) / (n + 1/2)) where n of N chunks have it: the idf of
    Robertson and Spärck Jones, smoothed. A term that no chunk has counts too: its chunk says it in other words. What
    is meant to the letter is enough by itself, and so is a rare name. Of a query as long as a text only the terms
    count that are searched.
    """
    letters = [term for term in terms if term.exact]
    whole = dict.fromkeys(term for term in terms if not _is_part(term, letters))
    found = [term for term in counted.found if term in whole and counted.found[term] < COUNTED_MAX]
    found = [term for term in found if term.exact or _is_telling(term, _FOUND_CHARACTERS_MIN)][:TERMS_SEARCHED]
    absent = [term for term in whole if term not in counted.found and (term.exact or _is_telling(term))]
    telling = [*found, *(_not_across_words(found, absent) if not counted.n_passed_over else ())]
    weights = {term: math.log((n_chunks + 1) / (counted.found.get(term, 0) + 0.5)) for term in telling}
    enough = _ENOUGH * sum(weights.values())
    names = _rare_names(query, {term: counted.found[term] for term in found}, n_chunks)
    return Sharing(weights | dict.fromkeys([*to_the_letter(counted.found, n_chunks), *names], enough), enough)


def _is_part(term: Term, letters: Sequence[Term]) -> bool:
    return any(other != term and set(term.tokens) <= set(other.tokens) for other in letters)


def _not_across_words(found: Sequence[Term], absent: Sequence[Term]) -> list[Term]:
    """Terms without the pairs of characters that lie across two words: those next to a pair that is counted."""
    kept: list[Term] = []
    begins, ends = ({term.tokens[0][place] for term in found if _is_pair(term)} for place in (0, -1))
    for term in absent:
        if _is_pair(term):
            first, last = term.tokens[0][0], term.tokens[0][1]
            if first in ends or last in begins:
                continue
            begins.add(first)
            ends.add(last)
        kept.append(term)
    return kept


def _is_pair(term: Term) -> bool:
    return len(term.tokens) == 1 and len(term.tokens[0]) == 2 and is_paired(term.tokens[0])


def _rare_names(query: str, counts: Mapping[Term, int], n_chunks: int) -> list[Term]:
    """Rare words that a query writes as names: capitalized inside a sentence, or in Latin letters beside Chinese.

    Where most words are capitalized, as in a title or in capitals alone, none is a name for that.
    """
    inside = _INSIDE_A_SENTENCE.findall(query)
    written = [word for word in inside if word[0].isupper()]
    if 2 * len(written) > len(inside):
        written = []
    if any(map(is_paired, query)):
        written += re.findall("[A-Za-z]{3,}", query)
    names = {folded(word) for word in written}
    most = max(1, n_chunks // _RARE)
    return [term for term, n in counts.items() if n <= most and _is_telling(term) and names.issuperset(term.tokens)]


def _is_telling(term: Term, n_characters: int = _WORD_CHARACTERS_MIN) -> bool:
    """Whether it may say what a text is about; a rare one names it."""
    if len(term.tokens) > 1 or term.is_prefix:
        return False
    (word,) = term.tokens
    if is_paired(word):
        return not _PARTICLES & set(word)
    return len(word) >= n_characters and word not in _OF_QUESTIONS
