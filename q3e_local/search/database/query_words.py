"""Words of a text for the index, and of a query: folded, and cut so that writing without spaces can be found too.

Knows characters; nothing of SQL. Tokens are letters and digits alone, so that no query language misreads them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

# Scripts without spaces between words, and Korean, which adds endings to words: Han, kana, Hangul, Thai, Lao,
# Myanmar, Khmer. Such texts are indexed by pairs of characters, as Lucene's CJKAnalyzer does.
_PAIRED = (
    "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uac00-\ud7a3\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u1049\u1780-\u17d3\U00020000-\U0003ffff"
)
# Accents, and the vowel points of Hebrew and Arabic, which writers mostly leave out.
_ACCENT = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670]")
# Indic vowel signs belong to their word, but are no letters to Python.
_LETTER = f"(?:[^\\W_{_PAIRED}]|[\u0900-\u0963\u0966-\u0dff])"
# Numbers with thousands separators. For examples of each pattern see tests/search/test_query_words.py.
_BY = "[.,'\u2019]"
_GROUPED = f"(?<![0-9]{_BY})[0-9]{{1,3}}(?P<by>{_BY})[0-9]{{3}}(?:(?P=by)[0-9]{{3}})*+(?!{_LETTER}|(?P=by)[0-9])"
_TOKEN = re.compile(f"[{_PAIRED}]+|{_GROUPED}|{_LETTER}+")
_THOUSANDS = re.compile(_GROUPED)
# Numbers of several runs of digits, but not inside names.
_NUMBER = re.compile(
    f"(?<!{_LETTER})(?<!{_LETTER}[-_./:@#,'\u2019])[0-9]++(?:{_BY}[0-9]++)++(?!{_LETTER}|[-_/:@#]{_LETTER})"
)
_IS_PAIRED = re.compile(f"[{_PAIRED}]").match
# Words that belong together.
_JOINED = re.compile(f"(?<![^\\W_]){_LETTER}++(?:(?:::|[-_./:@#]){_LETTER}++)+")
# Letters, then a number behind - _ or . as in PRJ-2041, GPT-5, DE-AB-12; no measure (90-day), date, path or label.
_CODE = re.compile(r"[^\W\d_]+(?:[-_.][^\W_]+)*?[-_.][0-9]+[^\W\d_]?")
_QUOTED = re.compile(
    '"([^"]{1,200})"|“([^”]{1,200})”|「([^」]{1,200})」|『([^』]{1,200})』|《([^》]{1,200})》|«([^»]{1,200})»'
)
_CAPITALS = re.compile(r"\b[A-Z][A-Z0-9]+\b")
_CAMEL = re.compile(r"\b\w*[a-z][A-Z]\w*\b")
_SHOUTED = 4  # in a query of capitals alone, so many words are no abbreviations

TOKEN_CHARACTERS = 64  # a longer token is no word, and is cut


@dataclass(frozen=True)
class Term:
    """Tokens that stand one after the other. With `is_prefix` the last is only the beginning of a token."""

    tokens: tuple[str, ...]
    is_prefix: bool = False
    exact: str = field(default="", compare=False)  # as the user wrote it, where it is meant to the letter

    @property
    def match(self) -> str:
        """The term in the query language of FTS5. Tokens hold no quotes."""
        return f'"{" ".join(self.tokens)}"{"*" if self.is_prefix else ""}'

    @property
    def is_code(self) -> bool:
        """Whether this is a code such as PRJ-2041. Another code may have the same half."""
        return _CODE.fullmatch(self.exact) is not None


def is_paired(text: str) -> bool:
    """Whether a text begins with a character of a script whose texts are indexed by pairs."""
    return _IS_PAIRED(text) is not None


def folded(text: str) -> str:
    """The text without differences of width, case and accents."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFC", _ACCENT.sub("", text))


def tokens(text: str) -> list[str]:
    """The tokens of a text as they are indexed.

    A run of a script without spaces becomes its pairs and its last character, so that each character begins a token:
    预算复盘 is 预算 算复 复盘 盘. A number with thousands separators is indexed without them too: 1,250 is
    1 250 1250.
    """
    found: list[str] = []
    for match in _TOKEN.finditer(folded(text)):
        run = match[0]
        if match["by"]:
            found += run.split(match["by"])
            found.append(run.replace(match["by"], "")[:TOKEN_CHARACTERS])
        elif _IS_PAIRED(run):
            found += map("".join, pairwise(run))
            found.append(run[-1])
        else:
            found.append(run[:TOKEN_CHARACTERS])
    return found


def terms_of(query: str, without: Collection[Term] = ()) -> tuple[Term, ...]:
    """The terms of a query, each once: first the terms that are meant to the letter, then all words.

    Quotes, codes, numbers, identifiers and abbreviations are meant to the letter. The codes of `without` are passed
    over, with their parts.
    """
    query = unicodedata.normalize("NFKC", query)
    terms = [_phrase(match[match.lastindex or 0], is_exact=True) for match in _QUOTED.finditer(query)]
    for match in _NUMBER.finditer(query):
        terms += _number(match[0])
    query = _NUMBER.sub(" ", query)  # the 250 of 1,250 is no term
    if without:
        query = _JOINED.sub(lambda match: " " if _phrase(match[0], is_exact=True) in without else match[0], query)
    terms += [_phrase(match[0], is_exact=_is_exact(match[0])) for match in _JOINED.finditer(query)]
    capitals = _CAPITALS.findall(query)
    if len(capitals) < _SHOUTED or query.upper() != query:
        terms += [_phrase(word, is_exact=True) for word in capitals]
    terms += [_phrase(word, is_exact=True) for word in _CAMEL.findall(query)]
    for run in _runs(query):
        if len(run) == 1 or not _IS_PAIRED(run):
            terms.append(_phrase(run, is_exact=any(map(str.isdigit, run))))
        else:
            terms += [Term((pair,)) for pair in map("".join, pairwise(run))]
    return tuple(dict.fromkeys(term for term in terms if term.tokens))


def _phrase(text: str, *, is_exact: bool) -> Term:
    """The term that the index has wherever a text contains this text."""
    found, runs, exact = tuple(tokens(text)), _runs(text), text.strip() if is_exact else ""
    if not runs or not _IS_PAIRED(runs[-1]):
        return Term(found, exact=exact)
    if len(runs[-1]) == 1:  # where the run goes on in a text, its token is a pair that begins so
        return Term(found, is_prefix=True, exact=exact)
    # The last character of a run stands in the pair before it, so that the pair is enough.
    return Term(found[:-1], exact=exact)


def _number(text: str) -> list[Term]:
    """The terms that find a number with separators, however its thousands are written."""
    grouped = _THOUSANDS.fullmatch(text)
    if grouped and grouped["by"] == ".":  # it may be an address or a version as well
        parts = text.split(".")
        return [Term(tuple(parts), exact=text), Term(("".join(parts)[:TOKEN_CHARACTERS],))]
    joined = _THOUSANDS.sub(lambda match: match[0].replace(match["by"], ""), text)
    return [Term(tuple(part[:TOKEN_CHARACTERS] for part in re.findall("[0-9]+", joined)), exact=text)]


def _runs(text: str) -> list[str]:
    return [match[0] for match in _TOKEN.finditer(folded(text))]


def _is_exact(joined: str) -> bool:
    """Whether this is a name, as `max_tokens` and `B-17` are, rather than words with a hyphen."""
    return any(each.isdigit() or each in "_:.@#" for each in joined)
