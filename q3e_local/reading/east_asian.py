"""Tell the encodings of Chinese, Japanese and Korean apart, for texts as short as a word.

Knows which characters are in daily use: they lie in the first half of the old national standards, and bytes read in
the wrong encoding give rare ones. Knows nothing of files, UTF-8 or the rest of the world.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Callable
from functools import cache

_DAILY_MIN = 0.85  # share of a text's characters that must be in daily use, for an encoding to be its own
_WRONG_MAX = 0.02  # damaged characters for each one outside ASCII, in a text that still is of an encoding
_KANA_MIN = 0.1  # share of kana in Japanese


def east_asian(sample: bytes) -> str | None:
    """The East Asian encoding in which nearly all characters are in daily use; in doubt GB 18030."""
    n_high = len(re.findall(rb"[\x80-\xff]", sample))
    if not re.search(rb"[\x80-\xff]{2}", sample) and len(re.findall(rb"[A-Za-z]", sample)) > 2 * n_high:
        return None  # single letters with accents among others without
    if (text := decoded(sample, "cp949")) is not None and _is_korean(text):
        return "cp949"
    scores: dict[str, float] = {}
    for name in ("gb18030", "euc_jp", "cp932", "cp950", "big5hkscs"):
        text = decoded(sample, name)
        if text is None:
            continue
        n_kana, is_japanese = _others(text, _is_kana), name in ("cp932", "euc_jp")
        # Kana of GB 2312 lie where those of EUC-JP do: a text full of them is Japanese. Signs alone are nothing.
        if n_kana > _KANA_MIN if is_japanese else n_kana <= _KANA_MIN and _others(text, _is_hanzi):
            scores[name] = _others(text, _is_japanese if is_japanese else is_daily)
    best = max(scores, key=lambda name: scores[name], default=None)  # the first of equals
    return best if best is not None and scores[best] >= _DAILY_MIN else None


def decoded(sample: bytes, encoding: str) -> str | None:
    """The sample as text, if nearly all its bytes are of this encoding; a character may be cut at its end."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
    n_wrong = text.count("\ufffd")
    return text if n_wrong <= _WRONG_MAX * sum(character > "\x7f" for character in text) else None


def is_daily(character: str) -> bool:
    """Whether it is a character of Chinese, Japanese or Korean in daily use, or their punctuation."""
    if "\u3000" <= character < "\u3100" or "\uff00" <= character < "\uffa0" or "\uac00" <= character < "\ud7a4":
        return True
    return character in "“”‘’—…·" or _is_hanzi(character)  # noqa: RUF001


def share(text: str, is_one: Callable[[str], bool]) -> float:
    """The share of a text's characters that are of some sort."""
    counts = Counter(text)
    return sum(n for character, n in counts.items() if is_one(character)) / max(1, len(text))


def _others(text: str, is_one: Callable[[str], bool]) -> float:
    return share("".join(character for character in text if character > "\x7f"), is_one)


@cache
def _is_hanzi(character: str) -> bool:
    """In daily use in the mainland (GB 2312, level 1) or in Taiwan and Hong Kong (Big5, level 1)."""
    simplified, traditional = character.encode("gb2312", "ignore"), character.encode("big5", "ignore")
    is_simplified = len(simplified) == 2 and 0xB0 <= simplified[0] <= 0xD7
    return is_simplified or (len(traditional) == 2 and 0xA4 <= traditional[0] <= 0xC6)


def _is_kana(character: str) -> bool:
    return "\u3041" <= character <= "\u30fe"


def _is_japanese(character: str) -> bool:
    """Kana, punctuation, or a kanji of JIS X 0208, level 1."""
    found = character.encode("euc_jp", "ignore")
    return _is_kana(character) or (len(found) == 2 and (found[0] == 0xA1 or 0xB0 <= found[0] <= 0xCF))


def _is_hangul(character: str) -> bool:
    """A syllable in daily use (KS X 1001), or a part of one."""
    found = character.encode("euc_kr", "ignore")
    return len(found) == 2 and (0xB0 <= found[0] <= 0xC8 or found[0] == 0xA4)


def _is_korean(text: str) -> bool:
    """Hangul lie where GB 2312 has its first hanzi. But Chinese goes on beyond those, and has no spaces in it."""
    others = [character for character in text if character > "\x7f"]
    hangul = [character for character in others if _is_hangul(character)]
    if len(hangul) < max(8, 0.9 * len(others)):
        return False
    n_spaces = len(re.findall(r"[\uac00-\ud7a3][.,!?]? (?=[\uac00-\ud7a3\w])", text))
    return n_spaces * 6 >= len(hangul) or len(set(hangul)) >= 24
