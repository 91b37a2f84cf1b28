"""Find out in which encoding a file's bytes are text.

Knows bytes, not formats. UTF-8 comes first, then what a file says of itself, then the encodings of East Asia; of the
rest charset-normalizer is the judge, and this the only module that imports it.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass

from q3e_local.errors import InputError
from q3e_local.reading.assembling import clean
from q3e_local.reading.east_asian import decoded, east_asian, is_daily, share
from q3e_local.reading.limits import Limits

SAMPLE = 65_536  # bytes of a stretch that is judged; the whole file is then decoded
BEFORE = 1024  # bytes before the first one outside ASCII that are judged with it
_HIGH = re.compile(rb"[\x80-\xff]")
_READABLE_MIN = 0.95  # share of characters in daily use or of an alphabet, for bytes to be UTF-16
_WRONG_MAX = 0.02  # damaged characters for each sound one outside ASCII, in a file that still is UTF-8
_RIGHT_MIN = 20  # sound ones outside ASCII, or five Chinese ones, before a file with damaged ones is UTF-8
_MESS_MAX = 0.4  # what charset-normalizer bears; titles in spaced letters and frames of signs are more than its 0.2
_HANZI_MIN = 16  # in daily use, before a text is GB 18030 unasked: fewer may as well be Korean, Russian or Thai
_CONTROL_MAX = 0.01  # share of control characters in a text
_CONTROLS = re.compile(rb"[\x01-\x07\x0b\x0e-\x19\x1c-\x1f\x7f]")  # but those that texts have, ESC of colours too

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
MARK_BYTES = max(map(len, _MARKS))
_SINGLE_BYTE = [
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "cp866",
    "koi8_r", "iso8859_2", "iso8859_5", "iso8859_15", "mac_roman", "cp437", "cp850",
]  # fmt: skip
# What browsers take for an encoding that pages name too narrowly (encoding.spec.whatwg.org).
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932", "euc_kr": "cp949"}
# A sign between two letters; but Catalan has a dot there, and an accent is used for an apostrophe.
_SIGN_IN_A_WORD = re.compile(r"[^\W\d_][\xa1-\xac\xae-\xb3\xb5\xb6\xb8-\xbb\xbf\xd7\xf7](?=[^\W\d_])")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file's text, lines ended by \\n, and the encoding its bytes were in."""

    text: str
    encoding: str


def decode(data: bytes, limits: Limits, declared: str | None = None, encoding: str | None = None) -> Decoded:
    """The text of a file; `declared` is the encoding it says of itself, as HTML does. Wrong bytes show as U+FFFD.

    Where somebody knows the `encoding`, only a byte order mark is believed before it, and wrong bytes are an error.
    Raises InputError for what is not text, and above the limit of characters.
    """
    errors = "replace" if encoding is None else "strict"
    encoding = _encoding(data, declared) if encoding is None else marked_encoding(data) or encoding
    try:
        text = data.decode(encoding, errors).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"is not {shown(encoding)} at byte {error.start}") from None
    limits.check_characters(len(text))
    if share(text[:SAMPLE], _is_control) > _CONTROL_MAX:
        raise InputError("is not text")
    return Decoded(clean(text.replace("\r\n", "\n").replace("\r", "\n")), encoding)


def guess(sample: bytes, is_whole: bool) -> str:
    """UTF-8, unless a byte order mark or many characters in daily use leave no doubt about another encoding.

    `sample` is a text, or a part of it that includes the first byte outside ASCII. For callers that must not
    turn a wrong guess into wrong text: `decode` is for those who can show both.
    """
    marked = marked_encoding(sample)
    if marked is not None:
        return marked
    if is_strictly(sample, "utf-8", is_whole) or b"\0" in sample or _is_nearly_utf8(sample):
        return "utf-8"
    if east_asian(sample) != "gb18030" or not is_strictly(sample, "gb18030", is_whole):
        return "utf-8"
    text = codecs.getincrementaldecoder("gb18030")("ignore").decode(sample)
    n_daily = sum(is_daily(character) for character in text if character > "\x7f")
    return "gb18030" if n_daily >= _HANZI_MIN else "utf-8"


def marked_encoding(data: bytes) -> str | None:
    """The encoding whose byte order mark a text begins with."""
    return next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), None)


def likely(data: bytes) -> str:
    """The encoding in which `decode` reads a file; UTF-8 where its bytes are no text."""
    try:
        return _encoding(data, None)
    except InputError:
        return "utf-8"


def shown(encoding: str) -> str:
    """The name of an encoding for people: GB18030, UTF-16."""
    return encoding.removesuffix("-le").removesuffix("-be").upper()


def is_strictly(sample: bytes, encoding: str, is_whole: bool) -> bool:
    """Whether all bytes are of the encoding; a character may be cut where the sample ends before its text."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample, is_whole)
    except UnicodeDecodeError:
        return False
    return True


def is_utf8(text: str) -> bool:
    """False where bytes that are no text passed as surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def may_be_utf16(sample: bytes) -> bool:
    """Whether a text with zero bytes makes sense as UTF-16, which no byte order mark says."""
    return _utf16(sample[:SAMPLE]) is not None


def wider(name: str) -> str:
    """The encoding in which a file named so is read: GB 18030 has all of GBK. Raises LookupError for no encoding."""
    bytes(4).decode(name)  # raises for codecs that are not of text, such as hex
    found = codecs.lookup(name).name
    if found in ("utf-16", "utf-32"):  # without a byte order mark
        return f"{found}-le"
    if found == "utf-8-sig":
        return "utf-8"
    return _WIDER.get(found, found)


def is_text(head: bytes) -> bool:
    """Whether a file that begins so can be text; a character that is cut at the end is no reason against it."""
    try:
        decode(head, Limits())
    except InputError:
        return False
    return True


def _encoding(data: bytes, declared: str | None) -> str:
    marked = marked_encoding(data)
    if marked is not None:
        return marked
    head = data[:SAMPLE]
    if b"\0" in head:
        utf16 = _utf16(head)
        if utf16 is None:
            raise InputError("is not text")
        return utf16
    if len(_CONTROLS.findall(head)) > _CONTROL_MAX * len(head):
        raise InputError("is not text")
    if is_strictly(data, "utf-8", is_whole=True):
        return "utf-8"
    sample = _sample(data)
    if _is_nearly_utf8(sample):
        return "utf-8"
    found = _declared(sample, declared) or east_asian(sample)
    if found is None and len(sample) % 2 == 0:
        # UTF-16 of Chinese or Japanese alone has no zero byte; nothing else has made sense of these bytes.
        found = _utf16(sample)
    return found or ("utf-8" if _is_utf8_rather_than_wrong(sample) else _single_byte(sample))


def _sample(data: bytes) -> bytes:
    """What a file is judged by: where it first leaves ASCII, and stretches of lines from the rest of it.

    Of the encodings here none has a line end inside a character, and before the first byte outside ASCII there is
    nothing but ASCII; so no stretch begins inside a character.
    """
    if len(data) <= SAMPLE:
        return data
    found = _HIGH.search(data)
    first = max(0, found.start() - BEFORE) if found else 0
    parts = [data[first : first + SAMPLE]]
    for quarter in range(1, 4):
        found = _HIGH.search(data, max(first + SAMPLE, len(data) * quarter // 4))
        start = data.rfind(b"\n", found.start() - BEFORE, found.start()) + 1 if found else 0
        if start:
            parts.append(data[start : start + SAMPLE // 4])
    return b"\n".join(part[: part.rfind(b"\n") + 1] or part for part in parts)


def _is_nearly_utf8(sample: bytes) -> bool:
    """Whether nearly all of it is: a log with a broken line in it is still UTF-8."""
    text = sample.decode("utf-8", "replace")
    n_wrong = text.count("\ufffd")
    # Three bytes are seldom UTF-8 by accident, two often are: 目录 in GBK.
    n_right = sum((character > "\x7f") + 3 * (character > "\u07ff") for character in text) - 4 * n_wrong
    # One more for the cut at the end of the sample.
    return n_right >= _RIGHT_MIN and n_wrong <= 1 + _WRONG_MAX * n_right


def _is_utf8_rather_than_wrong(sample: bytes) -> bool:
    """Whether, in what is not East Asian, more characters of UTF-8 stand than bytes that are none.

    An alphabet of single bytes seldom makes one: é would be Ã and a sign behind it.
    """
    text = sample.decode("utf-8", "replace")
    n_wrong = text.count("\ufffd")
    return sum(character > "\x7f" for character in text) - n_wrong > n_wrong


def _declared(sample: bytes, declared: str | None) -> str | None:
    """What the file says of itself, if it is an encoding of text and the bytes bear it out."""
    try:
        name = None if declared is None else wider(declared)
    except (LookupError, ValueError):
        return None
    if name in ("iso8859-1", "ascii"):
        name = "cp1252"
    return None if name is None or decoded(sample, name) is None else name


def _utf16(sample: bytes) -> str | None:
    """The UTF-16 without a byte order mark that makes a text of the sample; None where neither does."""
    best = max(("utf-16-le", "utf-16-be"), key=lambda encoding: _readable(sample, encoding))
    return best if _readable(sample, best) >= _READABLE_MIN else None


def _readable(sample: bytes, encoding: str) -> float:
    text = sample[: len(sample) // 2 * 2].decode(encoding, "replace")
    # From the space on come Latin, Greek, Cyrillic, Hebrew and what lies between.
    return share(text, lambda character: character in "\n\r\t" or " " <= character < "\u0600" or is_daily(character))


def _is_control(character: str) -> bool:
    return character not in "\t\n\r\f\x1b\x1a\b" and unicodedata.category(character) == "Cc"


def _single_byte(sample: bytes) -> str:
    """cp1252 where it makes words, else what charset-normalizer thinks. Lines of ASCII say nothing for either."""
    sample = b"\n".join(line for line in sample.split(b"\n") if not line.isascii())
    text = sample.decode("cp1252", "replace")
    if "\ufffd" not in text and _makes_words(text):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=_SINGLE_BYTE, threshold=_MESS_MAX).best()
    if best is None:
        raise InputError("is not text, or in an encoding that cannot be told; save it as UTF-8")
    return best.encoding


def _makes_words(text: str) -> bool:
    """Whether letters outside ASCII are the fewer ones in it, and no sign stands inside a word."""
    letters = [character for character in text if character.isalpha()]
    n_others = sum(character > "\x7f" for character in letters)
    return n_others < 0.4 * max(1, len(letters)) and not _SIGN_IN_A_WORD.search(text)
