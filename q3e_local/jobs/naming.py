"""The words that name a group of texts: those that its texts have and the texts of other groups do not.

Class-based TF-IDF (Grootendorst 2022, https://arxiv.org/abs/2203.05794): a word of a group counts by how many of the
group's texts have it, times log(1 + A / f), where A is the mean number of words of a group and f how many texts have
the word in all. Knows words and groups; the caller says how a text is parted into words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from q3e_local.errors import OptionError

N_WORDS = 3
_LETTERS_MIN = 3  # of a word of a script with spaces
_COMMON = 0.4  # a word that more of all texts have says nothing of a group
_FEW = 10  # texts: among fewer, any word of a theme is that common
_CANDIDATES = 8  # words of each group that are looked at, for each that is wanted
_READ = 200  # texts of a group in which pairs of characters are put together
_GOES_ON = 0.8  # of a pair's places must have the same character beside it
_LONGEST = 6  # characters of a word that is put together
# What c-TF-IDF lets through in small collections: words of grammar that some groups use more than others.
_GRAMMAR = frozenset((
    "about", "after", "again", "all", "also", "and", "any", "are", "because", "been", "before", "being",
    "between", "both", "but", "can", "could", "did", "does", "doing", "down", "each", "few", "for", "from",
    "further", "had", "has", "have", "having", "her", "here", "hers", "him", "his", "how", "into", "its",
    "itself", "just", "more", "most", "nor", "not", "now", "off", "once", "one", "only", "other", "our",
    "ours", "out", "over", "own", "same", "she", "should", "some", "such", "than", "that", "the", "their",
    "them", "then", "there", "these", "they", "this", "those", "through", "too", "two", "under", "until",
    "upon", "use", "used", "using", "very", "was", "way", "were", "what", "when", "where", "which", "while",
    "who", "whom", "why", "will", "with", "would", "you", "your", "yours",
))  # fmt: skip
_PARTICLES = frozenset("的了着是在和与及或也就都很把被让这那")  # a pair with one of them is no word of a theme
_GRAMMAR_PAIRED = frozenset((
    "我们", "你们", "他们", "一个", "可以", "这个", "那个", "没有", "因为", "所以", "但是",
    "以后", "以前", "已经", "就是", "不是", "这些", "那些", "如果",
))  # fmt: skip


def key_words(
    texts: Sequence[str], labels: Sequence[int], split: Callable[[str], Iterable[str]], n: int = N_WORDS
) -> tuple[tuple[str, ...], ...]:
    """The `n` words that say most of each group, best first; fewer where there are no more, none for a group without.

    `labels` are the numbers of the texts' groups, from 0. `split` parts a text into words. A script without spaces
    may come as pairs of characters, as `tokens` of search/database/query_words.py gives them: pairs that go on in the
    same way are put together. Raises OptionError where texts and labels are not as many.
    """
    if len(texts) != len(labels):
        raise OptionError(f"there must be one label for each of the {len(texts)} texts, got {len(labels)}")
    groups: list[list[str]] = [[] for _ in range(max(labels, default=-1) + 1)]
    having: list[Counter[str]] = [Counter() for _ in groups]
    for text, label in zip(texts, labels, strict=True):
        groups[label].append(text)
        having[label].update(set(split(text)))
    in_all = sum(having, Counter[str]())
    n_mean = sum(in_all.values()) / max(1, len(groups))
    most = _COMMON * len(texts) if len(texts) >= _FEW else math.inf

    def weight(word: str, n_having: int, n_texts: int) -> float:
        # The root keeps a word that nearly every text has from outweighing a rarer one of the theme.
        return math.sqrt(n_having / n_texts) * math.log(1 + n_mean / in_all[word])

    named = []
    for members, counts in zip(groups, having, strict=True):
        n_least = 2 if len(members) >= 4 else 1
        found = [
            (-weight(word, n_having, len(members)), word)
            for word, n_having in counts.items()
            if n_having >= n_least and in_all[word] <= most and _is_telling(word)
        ]
        best = [word for _, word in sorted(found)[: _CANDIDATES * n]]
        named.append(_distinct(best, members, n))
    return tuple(named)


def _distinct(words: Sequence[str], members: Sequence[str], n: int) -> tuple[str, ...]:
    """The first `n` of the words, each whole, none of them a part of another."""
    chosen: list[str] = []
    for word in words:
        whole = _whole(word, members) if _is_paired(word) else word
        if not any(whole in other or other in whole or _overlap(whole, other) for other in chosen):
            chosen.append(whole)
        if len(chosen) == n:
            break
    return tuple(chosen)


def _is_telling(word: str) -> bool:
    if _is_paired(word):
        return len(word) > 1 and word not in _GRAMMAR_PAIRED and _PARTICLES.isdisjoint(word)
    return len(word) >= _LETTERS_MIN and not word.isdigit() and word not in _GRAMMAR


def _is_paired(word: str) -> bool:
    """Whether a word is of a script that is written without spaces, or a piece of such a word."""
    return word[:1] >= "\u2e80"


def _whole(pair: str, members: Sequence[str]) -> str:
    """The word that a pair of characters is a part of: it goes on while the same character nearly always follows."""
    text, word = "\n".join(members[:_READ]), pair
    while len(word) < _LONGEST:
        found = re.escape(word)
        for pattern, before in ((f"{found}(.)", False), (f"(.){found}", True)):
            beside = Counter(re.findall(pattern, text))
            n_places = text.count(word)
            character, n_most = max(beside.items(), key=lambda item: (item[1], item[0]), default=("", 0))
            if (
                n_places > 1
                and n_most >= _GOES_ON * n_places
                and _is_paired(character)
                and character not in _PARTICLES
            ):
                word = character + word if before else word + character
                break
        else:
            return word
    return word


def _overlap(word: str, other: str) -> bool:
    """Whether one begins as the other ends, as pairs of one word do."""
    return _is_paired(word) and (word[0] == other[-1] or word[-1] == other[0])
