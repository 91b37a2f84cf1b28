"""Find out in which encoding a file's bytes are text.

Knows bytes and languages, not formats. UTF-8 comes first; then the encodings of East Asia, told apart by which of
their characters are in daily use, so that one sentence is enough; charset-normalizer judges the rest.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from q3e_local.errors import InputError
from q3e_local.reading.limits import Limits
from q3e_local.reading.pieces import clean

_SAMPLE = 65_536  # bytes that are judged; the whole file is then decoded
_DAILY_MIN = 0.85  # share of a text's characters that must be in daily use, for an encoding to be its own
_READABLE_MIN = 0.95  # share of characters in daily use or of an alphabet, for bytes to be UTF-16
_WRONG_MAX = 0.02  # damaged characters for each one outside ASCII, in a file that still is of an encoding
_RIGHT_MIN = 20  # sound ones outside ASCII, before a file with damaged ones is UTF-8
_MESS_MAX = 0.4  # what charset-normalizer bears; titles in spaced letters and frames of signs are more than its 0.2
_CONTROL_MAX = 0.01  # share of control characters in a text
_CONTROLS = re.compile(rb"[\x01-\x07\x0b\x0e-\x19\x1c-\x1f\x7f]")  # but those that texts have, ESC of colours too

_SINGLE_BYTE = (
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "cp866",
    "koi8_r", "iso8859_2", "iso8859_5", "iso8859_15", "mac_roman", "cp437", "cp850",
)  # fmt: skip
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file's text, lines ended by \\n, and the encoding its bytes were in."""

    text: str
    encoding: str


def decode(data: bytes, limits: Limits, declared: str | None = None) -> Decoded:
    """The text of a file; `declared` is the encoding it says of itself, as HTML does.

    Raises InputError for what is not text, and above the limit of characters.
    """
    encoding = _encoding(data, declared)
    # The places where bytes are wrong show as U+FFFD, and `encoding` said that there are few of them.
    text = data.decode(encoding, "replace").removeprefix("\ufeff")
    limits.check_characters(len(text))
    if _share(text[:_SAMPLE], _is_control) > _CONTROL_MAX:
        raise InputError("is not text")
    return Decoded(clean(text.replace("\r\n", "\n").replace("\r", "\n")), encoding)


def is_text(head: bytes) -> bool:
    """Whether a file that begins so can be text; a character that is cut at the end is no reason against it."""
    try:
        decode(head, Limits())
    except InputError:
        return False
    return True


def _encoding(data: bytes, declared: str | None) -> str:
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding
    sample = data[:_SAMPLE]
    if b"\0" in sample:
        return _utf16(sample)
    if len(_CONTROLS.findall(sample)) > _CONTROL_MAX * len(sample):
        raise InputError("is not text")
    if _is_utf8(data):
        return "utf-8"
    if declared is not None and _decodes(sample, declared):
        return _wider(declared)
    return _east_asian(sample) or _utf16_without_zeros(sample) or _western(sample)


def _is_utf8(data: bytes) -> bool:
    """Whether all of it is, or nearly all: a log with a broken line in it is still UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        text = data[:_SAMPLE].decode("utf-8", "replace")
        n_wrong = text.count("\ufffd")
        n_right = sum(character > "\x7f" for character in text) - n_wrong
        # One more for the cut at the end of the sample. Two or three bytes may be UTF-8 by accident.
        return n_right >= _RIGHT_MIN and n_wrong <= 1 + _WRONG_MAX * n_right
    return True


def _utf16(sample: bytes) -> str:
    """Zero bytes: UTF-16 without a mark, if that makes a text of it."""
    best = max(("utf-16-le", "utf-16-be"), key=lambda encoding: _readable(sample, encoding))
    if _readable(sample, best) < _READABLE_MIN:
        raise InputError("is not text")
    return best


def _utf16_without_zeros(sample: bytes) -> str | None:
    """UTF-16 of Chinese or Japanese alone has no zero byte; here nothing else made sense of it."""
    if len(sample) % 2:
        return None
    return next((name for name in ("utf-16-le", "utf-16-be") if _readable(sample, name) >= _READABLE_MIN), None)


def _readable(sample: bytes, encoding: str) -> float:
    text = sample[: len(sample) // 2 * 2].decode(encoding, "replace")
    return _share(text, lambda character: character in "\n\r\t" or _is_letter(character) or _is_daily(character))


def _is_letter(character: str) -> bool:
    """Of Latin, Greek, Cyrillic, Hebrew and what lies between."""
    return " " <= character < "\u0600"


def _is_daily(character: str) -> bool:
    """Whether it is a character of Chinese, Japanese or Korean in daily use, or their punctuation."""
    if "\u3000" <= character < "\u3100" or "\uff00" <= character < "\uffa0" or "\uac00" <= character < "\ud7a4":
        return True
    return character in "“”‘’—…·" or _is_hanzi(character)  # noqa: RUF001


@cache
def _is_hanzi(character: str) -> bool:
    """In daily use in the mainland (GB 2312, level 1) or in Taiwan and Hong Kong (Big5, level 1)."""
    simplified = _bytes_of(character, "gb2312")
    traditional = _bytes_of(character, "big5")
    return (len(simplified) == 2 and 0xB0 <= simplified[0] <= 0xD7) or (
        len(traditional) == 2 and 0xA4 <= traditional[0] <= 0xC6
    )


def _is_kana(character: str) -> bool:
    return "\u3041" <= character <= "\u30fe"


def _is_japanese(character: str) -> bool:
    """Kana, punctuation, or a kanji of JIS X 0208, level 1."""
    found = _bytes_of(character, "euc_jp")
    return _is_kana(character) or (len(found) == 2 and (found[0] == 0xA1 or 0xB0 <= found[0] <= 0xCF))


def _is_hangul(character: str) -> bool:
    return "\uac00" <= character < "\ud7a4" or "\u3131" <= character < "\u3190"  # syllables, and their parts


def _bytes_of(character: str, encoding: str) -> bytes:
    return character.encode(encoding, "ignore")


def _east_asian(sample: bytes) -> str | None:
    """The East Asian encoding in which nearly all characters are in daily use; in doubt GB 18030."""
    if not re.search(rb"[\x80-\xff]{2}", sample) and len(re.findall(rb"[A-Za-z]", sample)) > 2 * _n_high(sample):
        return None  # single letters with accents among others without
    if (text := _text(sample, "cp949")) is not None and _is_korean(text):
        return "cp949"
    japanese = [(name, text) for name in ("cp932", "euc_jp") if (text := _text(sample, name)) is not None]
    scores = {name: _daily(text, _is_japanese) for name, text in japanese if _kana(text) > 0.1}
    for name in ("gb18030", "cp950", "big5hkscs"):
        if (text := _text(sample, name)) is not None:
            # Kana of GB 2312 lie where those of EUC-JP do: a text full of them is Japanese.
            scores[name] = _daily(text, _is_daily) if _kana(text) < 0.1 else 0.0
    order = sorted(scores, key=lambda name: (-scores[name], name != "gb18030"))
    return order[0] if order and scores[order[0]] >= _DAILY_MIN else None


def _n_high(sample: bytes) -> int:
    return len(re.findall(rb"[\x80-\xff]", sample))


def _is_korean(text: str) -> bool:
    """Hangul lie where GB 2312 has its first hanzi. But Chinese goes on beyond those, and has no spaces in it."""
    others = [character for character in text if character > "\x7f"]
    hangul = [character for character in others if _is_hangul(character)]
    if len(hangul) < max(6, 0.9 * len(others)):
        return False
    n_spaces = len(re.findall(r"[\uac00-\ud7a3][.,!?]? (?=[\uac00-\ud7a3\w])", text))
    return n_spaces * 12 >= len(hangul) or len(set(hangul)) >= 24


def _kana(text: str) -> float:
    return _share("".join(character for character in text if character > "\x7f"), _is_kana)


def _daily(text: str, is_daily: Callable[[str], bool]) -> float:
    return _share("".join(character for character in text if character > "\x7f"), is_daily)


def _share(text: str, is_one: Callable[[str], bool]) -> float:
    counts = Counter(text)
    return sum(n for character, n in counts.items() if is_one(character)) / max(1, len(text))


def _is_control(character: str) -> bool:
    return character not in "\t\n\r\f\x1b\x1a\b" and unicodedata.category(character) == "Cc"


def _text(sample: bytes, encoding: str) -> str | None:
    """The sample decoded, if nearly all its bytes are of this encoding; a character may be cut at its end."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
    n_wrong = text.count("\ufffd")
    return text if n_wrong <= _WRONG_MAX * sum(character > "\x7f" for character in text) else None


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        b" ".decode(encoding)  # raises for the codecs that are no encodings of text, as hex
        return _text(sample, _wider(encoding)) is not None
    except (LookupError, ValueError):
        return False


def _wider(encoding: str) -> str:
    """What browsers take for an encoding that pages name too narrowly (encoding.spec.whatwg.org)."""
    name = codecs.lookup(encoding).name
    return {
        "gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932", "euc_kr": "cp949",
        "iso8859-1": "cp1252", "ascii": "cp1252",
    }.get(name, name)  # fmt: skip


def _western(sample: bytes) -> str:
    """A single-byte encoding: cp1252 where it makes words, else what charset-normalizer thinks."""
    text = sample.decode("cp1252", "replace")
    if "\ufffd" not in text and _makes_words(text):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(_SINGLE_BYTE), threshold=_MESS_MAX).best()
    if best is None:
        raise InputError("is not text, or in an encoding that cannot be told; save it as UTF-8")
    return best.encoding


def _makes_words(text: str) -> bool:
    """Whether letters outside ASCII are the fewer ones in it, and no sign stands between two letters."""
    letters = [character for character in text if character.isalpha()]
    n_others = sum(character > "\x7f" for character in letters)
    return n_others < 0.4 * max(1, len(letters)) and not re.search(r"[^\W\d_][¡-¬®-³µ¶¸-»¿×÷](?=[^\W\d_])", text)  # noqa: RUF001
