"""Trees of HTML and XML, and the text blocks of an HTML tree under their headings.

Knows elements; what of a page is worth reading the callers decide. The only module that imports lxml. No entity of a
file's own is expanded, nothing is fetched, and libxml2's bounds on depth and size stay on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from lxml import etree

from q3e_local.errors import InputError
from q3e_local.reading.assembling import Outline, Piece

Element: TypeAlias = Any  # lxml brings no types

HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_BLOCKS = HEADINGS | {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "dir",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "html",
    "legend", "li", "main", "menu", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot",
    "th", "thead", "tr", "ul",
}  # fmt: skip
_NO_TEXT = {
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "embed", "canvas", "audio", "video",
    "button", "select", "input", "textarea", "datalist", "head", "rt", "rp",
}  # fmt: skip
_LISTS = {"ul", "ol", "dl", "table"}
# A table with any of these in it lays out a page; its cells are no values.
_LAYOUT = etree.XPath("boolean(.//table | .//h1 | .//h2 | .//h3 | .//h4 | .//ul | .//ol | .//td/p[2] | .//td/div[2])")
_WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
# A line break between two Chinese characters is no space.
_BREAK_IN_CHINESE = re.compile(f"(?<=[{_WIDE}])[ \t\r]*\n[ \t\r\n]*(?=[{_WIDE}])")
_LINE_MAX = 65_535
_SPACES = re.compile("[ \t\r\n\f\xa0]+")


def parse_html(text: str) -> Element | None:
    """The tree of a page, as forgiving as a browser; None where there is nothing in it."""
    parser = etree.HTMLParser(
        encoding="utf-8", no_network=True, huge_tree=False, remove_pis=True, remove_comments=True
    )
    if not text.strip():
        return None
    tree = etree.fromstring(text.encode("utf-8"), parser)
    # Where a page is nested too deep, libxml2 stops and says so only here.
    fatal = next((entry.message for entry in parser.error_log if entry.level == etree.ErrorLevels.FATAL), None)
    if fatal is not None:
        raise InputError(f"cannot be read as HTML to its end ({fatal.partition(',')[0]})")
    return tree


def parse_xml(data: bytes) -> Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    return etree.fromstring(data, parser)


def name(element: Element) -> str:
    """The element's name in lower case without its namespace."""
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def _line(element: Element) -> int | None:
    """The line an element begins in; libxml2 counts to 65535 and then calls every line that."""
    line: int | None = element.sourceline
    return line if line is not None and line < _LINE_MAX else None


def has_text(element: Element) -> bool:
    """Whether what stands in it is read at all; scripts, pictures and fields are not."""
    return name(element) not in _NO_TEXT


def blocks(
    root: Element, outline: Outline, is_left_out: Callable[[Element], bool] = lambda _: False
) -> Iterator[Piece]:
    """The text below `root` block by block, in order; list items and table rows go with their list or table."""
    return _Blocks(outline).of(root, is_left_out)


class _Blocks:
    """What has been gathered of the block that reading is in."""

    def __init__(self, outline: Outline) -> None:
        self._outline = outline
        self._words: list[str] = []
        self._line: int | None = None
        self._bullet = ""
        self._n_pre = 0  # open <pre>
        self._lists: list[bool] = []  # of each open list or table, whether it is one of data, not of layout
        self._n_cells = 0  # open cells of tables of data
        self._is_begun = False  # a block of the outermost open list has come out

    def of(self, root: Element, is_left_out: Callable[[Element], bool]) -> Iterator[Piece]:
        walk = etree.iterwalk(root, events=("start", "end"))
        left_out: Element | None = None
        for event, element in walk:
            if event == "start":
                if not has_text(element) or is_left_out(element):
                    walk.skip_subtree()
                    left_out = element
                    continue
                yield from self._open(element)
                self._add(element.text, element)
            else:
                if element is left_out:
                    left_out = None
                else:
                    yield from self._close(element)
                if element is not root:
                    self._add(element.tail, element)
        yield from self._flush()

    def _open(self, element: Element) -> Iterator[Piece]:
        tag = name(element)
        if tag == "br":
            self._words.append("\n")
        elif tag in _BLOCKS and self._n_cells == 0 and not self._is_cell(tag):
            yield from self._flush()
        if tag in _LISTS:
            self._is_begun = self._is_begun and bool(self._lists)
            self._lists.append(tag != "table" or not _LAYOUT(element))
        elif tag == "li":
            self._bullet = "- "
        elif tag == "pre":
            self._n_pre += 1
        elif self._is_cell(tag):
            self._n_cells += 1

    def _close(self, element: Element) -> Iterator[Piece]:
        tag = name(element)
        if tag in ("td", "th") and self._n_cells:
            self._n_cells -= 1
            self._words.append(" | ")
        elif tag in _BLOCKS and self._n_cells == 0:
            level = int(tag[1]) if tag in HEADINGS else None
            yield from self._flush(level)
        elif tag in _BLOCKS:
            self._words.append(" ")
        if tag in _LISTS and self._lists:
            self._lists.pop()
        elif tag == "li":
            self._bullet = ""  # an empty one leaves none to what follows
        elif tag == "pre":
            self._n_pre -= 1

    def _is_cell(self, tag: str) -> bool:
        """Whether it opens a cell of data, which goes into one line with the others of its row."""
        return tag in ("td", "th") and self._in_data()

    def _in_data(self) -> bool:
        return bool(self._lists) and self._lists[-1]

    def _add(self, text: str | None, element: Element) -> None:
        if not text:
            return
        if self._n_pre == 0:
            text = _SPACES.sub(" ", _BREAK_IN_CHINESE.sub("", text))
        if self._line is None and text.strip():
            self._line = _line(element)
        self._words.append(text)

    def _flush(self, level: int | None = None) -> Iterator[Piece]:
        text, line, bullet = "".join(self._words), self._line, self._bullet
        self._words, self._line = [], None
        if self._n_pre == 0:
            text = re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", text)).strip()
            text = text.removesuffix(" |").rstrip()
        if not text.strip(" |\n"):
            return
        self._bullet = ""
        path = self._outline.path if level is None else self._outline.enter(level, text)
        joins = self._in_data() and self._is_begun and level is None
        self._is_begun = bool(self._lists)
        yield Piece(bullet + text, path, line=line, is_heading=level is not None, joins=joins)
