"""From the raw texts of readers to lines of plain English or Chinese; what can't be made plain is dropped."""

import html
import re
from collections.abc import Iterator

from lines import Language, Line, Pair, Sentence

LONGEST = 300
WORDS_ALONE = {"definition", "synonym"}  # kinds whose sides may be one word

TAGS = re.compile(
    r"</?(?:a|b|big|br|bold|center|code|color|em|emph|font|good|bad|neutral|header|i|info|item\w*|li|"
    r"mark|p|pre|small|span|strong|sub|sup|tt|u|ul|ol|div|kbd|q|var)\b[^<>]*/?>|</?color_\w+>|<\w+_icon>"
    r"|\[/?(?:b|i|u|em|color\w*)\]",
    re.I,
)
MARKS = str.maketrans("「」『』\u00a0\u3000", "“”‘’  ", "`\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad")
BREAKS = re.compile(r"<(?:br|p|li|div)\b[^<>]*/?>", re.I)
LINKS = re.compile(r"!?\[([^\[\]]+)\]\([^()\s]*\)")
ACCELERATORS = re.compile(r"\s*[(（][_&~][A-Za-z0-9][)）]")
PLACEHOLDERS = re.compile(
    r"%(?:\d+\$)?[-+ #0]*\d*(?:\.\d+)?(?:l{0,2}[diouxXeEfgGcsSp](?![a-z])|\(\w+\)[sdf]|[A-Z]{2,}|\d)|%%|\$\{?\w+|"
    r"\{[^{}]*\}|<[^<>]*>|\[\[|\]\]|#\w+#"
)
CODE = re.compile(
    r"[\[\]\\{}<>|_=`~^$@*\x7f-\x9f\ufffd\u2190-\u2bff\ue000-\uf8ff\U0001f000-\U0001ffff]"
    r"|://|www\.|&\w+;|--|\w/\w+/|\.\w+\(|\(\)"
)
NOTES = re.compile(r"[（(](?:译?注|译者注)[:：].*?[)）](?![)）])")
EMPHASIS = re.compile(r"(?<!\w)\*{1,2}(\w[^*]*)\*{1,2}")
AROUND_MARKS = re.compile(r"\s+(?=[，。；：！？、）”])|(?<=[，。；：！？、（“])\s+")
BULLETS = re.compile(r"^(?:[-*•·>#—–.,;:，。；：、]+|\(?(?:\d{1,3}[.)）、])+(?!\d))\s*")
HAN = re.compile(r"[\u3400-\u9fff]")
LATIN = re.compile(r"[A-Za-z][A-Za-z'’-]*")
OTHER_SCRIPTS = re.compile(r"[\u0100-\u02ff\u0370-\u1dff\u3040-\u30ff\uac00-\ud7af]")
ENDS = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)]))\s+(?=[A-Z\"'“‘(])|(?<=[。！？])(?![”’」』）])|(?<=[。！？][”’」』）])"
)
ABBREVIATIONS = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|Mr|Mrs|Dr|St|No|cf|approx|[A-Z])\.)$")


def plain(text: str) -> str:
    """Without markup, accelerators and doubled blanks; empty where placeholders or code remain."""
    text = html.unescape(LINKS.sub(r"\1", text)).translate(MARKS)
    text = ACCELERATORS.sub("", TAGS.sub("", BREAKS.sub(" ", text)))
    text = EMPHASIS.sub(r"\1", NOTES.sub("", text))
    if text.count("_") == 1:
        text = re.sub(r"_(?=\w)", "", text)
    text = re.sub(r"(?<!\S)&(?=\w)", "", text)
    text = BULLETS.sub("", re.sub(r"\s+", " ", text).strip())
    if HAN.search(text):
        text = AROUND_MARKS.sub("", text)
    return "" if PLACEHOLDERS.search(text) or CODE.search(text) else unquoted(text)


def unquoted(text: str) -> str:
    """Without the quotes that go round the whole text, and without those that have lost their other half."""
    for opening, closing in ('""', "“”", "''"):
        if re.fullmatch(f"{opening}[^{opening}{closing}]+{closing}", text):
            text = text[1:-1]
    if text.count("“") != text.count("”"):
        text = re.sub("[“”]", "", text)
    if text.count('"') % 2:
        text = text.replace('"', "")
    return text.strip()


def is_simplified(text: str) -> bool:
    """Whether all Chinese characters are in GB 2312, which has no traditional ones."""
    try:
        "".join(HAN.findall(text)).encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def is_chinese(text: str, least: int = 2) -> bool:
    n_han = len(HAN.findall(text))
    n_latin = len(LATIN.findall(text))
    return n_han >= max(least, 2 * n_latin) and not OTHER_SCRIPTS.search(text) and is_simplified(text)


def is_english(text: str, least: int = 2) -> bool:
    words = LATIN.findall(text)
    n_letters = sum(map(len, words))
    lasting = [word for word in words if len(word) > 1 or word in ("a", "A", "I")]
    return (
        len(lasting) >= least
        and n_letters >= 0.7 * len(text.replace(" ", ""))
        and not HAN.search(text)
        and not OTHER_SCRIPTS.search(text)
        and not (text.isupper() and len(words) > 1)
    )


def is_in(language: Language, text: str, least: int = 2) -> bool:
    return is_chinese(text, least) if language == "zh" else is_english(text, least)


def sentences(text: str) -> list[str]:
    """The text cut at the ends of its sentences."""
    pieces: list[str] = []
    for piece in filter(None, (part and part.strip() for part in ENDS.split(text))):
        if pieces and ABBREVIATIONS.search(pieces[-1]):
            pieces[-1] += f" {piece}"
        else:
            pieces.append(piece)
    return pieces


def cut(text: str) -> list[str]:
    """Pieces of whole sentences, each as long as it may be; a longer sentence is dropped."""
    pieces = [""]
    for sentence in sentences(text):
        blank = " " if pieces[-1] and not HAN.search(sentence) else ""
        if len(sentence) > LONGEST:
            pieces.append("")  # what stands behind it does not follow what stands before it
        elif len(pieces[-1]) + len(blank) + len(sentence) <= LONGEST:
            pieces[-1] += blank + sentence
        else:
            pieces.append(sentence)
    return [piece for piece in pieces if piece]


def cut_pair(pair: Pair, a: str, b: str) -> Iterator[tuple[str, str]]:
    """Long translations sentence by sentence, where both have as many; else as much of each side as may be."""
    if max(len(a), len(b)) <= LONGEST:
        yield a, b
    elif pair.kind == "translation":
        if len(sentences(a)) == len(sentences(b)):
            for one, other in zip(sentences(a), sentences(b), strict=True):
                yield unquoted(one), unquoted(other)
    elif cut(a) and cut(b):
        yield cut(a)[0], cut(b)[0]


def is_as_long(english: str, chinese: str) -> bool:
    """Whether a long text is about as long as its translation: else that says more, or less."""
    return max(len(english) / 3, len(chinese)) < 20 or 0.9 < len(english) / len(chinese) < 9


def is_right(pair: Pair) -> bool:
    least = 1 if pair.kind in WORDS_ALONE else 2
    return (
        max(len(pair.a), len(pair.b)) <= LONGEST
        and is_in(pair.la, pair.a, least)
        and is_in(pair.lb, pair.b, least)
        and pair.a.casefold() != pair.b.casefold()
        and (pair.kind != "translation" or is_as_long(pair.a, pair.b))
    )


def clean(line: Line) -> Iterator[Line]:
    """The plain lines that a reader's line gives: none, one, or several where it is long."""
    if isinstance(line, Pair) and line.kind == "code":  # which has all that is dropped elsewhere
        about = plain(line.a)
        if is_english(about) and len(about) <= LONGEST:
            yield Pair("code", "en", about, "en", line.b)
    elif isinstance(line, Sentence):
        pieces = (Sentence(line.language, text) for text in cut(plain(line.text)))
        yield from (piece for piece in pieces if is_in(piece.language, piece.text))
    elif (a := plain(line.a)) and (b := plain(line.b)):
        pairs = (Pair(line.kind, line.la, one, line.lb, other) for one, other in cut_pair(line, a, b))
        yield from filter(is_right, pairs)
