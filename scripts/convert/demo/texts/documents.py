"""Readers of documents in HTML and of XML like it: the same blocks in two languages, and headings with what follows.

A block is a heading, a paragraph or an item of a list. Blocks of code are left out.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

from lines import Language, Pair, translation

HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6", "title"}
PARAGRAPHS = {"p", "desc", "div"}
BLOCKS = HEADINGS | PARAGRAPHS | {"li", "item", "dt", "dd", "td", "th", "section", "body", "figcaption"}
LEFT_OUT = {
    "script", "style", "pre", "screen", "nav", "header", "footer", "aside", "button",
    "comment", "credit", "mal:credit", "math",
}  # fmt: skip
LEFT_OUT_CLASSES = {"docnav", "navheader", "navfooter", "toc", "MAC", "WIN", "UNIX"}
VOID = {"br", "img", "meta", "link", "input", "hr", "col"}
MOST_ALIKE = 3  # a heading that more sections share says nothing of them
SHORTEST = 4  # characters of a heading


@dataclass(frozen=True)
class Block:
    tag: str
    id: str
    text: str


class BlockParser(HTMLParser):
    """Collects the blocks of one document. Text belongs to the innermost block that is open."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self.open: list[tuple[str, str]] = []
        self.skipped: list[str] = []
        self.text = ""

    def finish(self) -> None:
        text = re.sub(r"\s+", " ", self.text).strip()
        if text and self.open:
            self.blocks.append(Block(*self.open[-1], text))
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in VOID:
            self.text += " " if tag == "br" else ""
        elif self.skipped or tag in LEFT_OUT or named.get("class") in LEFT_OUT_CLASSES:
            self.skipped.append(tag)
        elif tag in BLOCKS:
            self.finish()
            self.open.append((tag, named.get("id") or ""))

    def handle_endtag(self, tag: str) -> None:
        if self.skipped:
            while self.skipped and self.skipped.pop() != tag:
                pass
        elif tag in BLOCKS:
            self.finish()
            while self.open and self.open.pop()[0] != tag:
                pass

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.text += data


def blocks(path: Path) -> list[Block]:
    parser = BlockParser()
    parser.feed(path.read_text(encoding="utf-8", errors="replace"))
    parser.close()
    return parser.blocks


def same_blocks(english: list[Block], chinese: list[Block]) -> Iterator[Pair]:
    """Blocks with the same id; where ids tell nothing, all in turn, if both documents have the same blocks."""
    by_id = {block.id: block.text for block in chinese if block.id}
    in_turn = [block.tag for block in english] == [block.tag for block in chinese]
    for i, block in enumerate(english):
        if block.id in by_id:
            yield translation(block.text, by_id[block.id])
        elif in_turn:
            yield translation(block.text, chinese[i].text)


def titles(language: Language, found: list[Block]) -> Iterator[Pair]:
    """Headings with the paragraph that follows, where it is whole sentences."""
    for block, following in pairwise(found):
        is_heading = block.tag in HEADINGS and len(block.text) >= SHORTEST and not block.text.endswith((":", "："))
        if is_heading and following.tag in PARAGRAPHS and following.text.endswith(tuple(".!?。！？")):
            yield Pair("title", language, block.text, language, following.text)


def documents(tree: Path, beside: Path, english: str, replace: dict[str, str]) -> Iterator[Pair]:
    """Documents in both languages. `replace` makes the path of the Chinese one out of the path of the English."""
    headed: list[Pair] = []
    for path in sorted(tree.glob(english)):
        place = str(path.relative_to(tree))
        for old, new in replace.items():
            place = place.replace(old, new)
        if (beside / place).exists():
            found, other = blocks(path), blocks(beside / place)
            yield from same_blocks(found, other)
            headed += [*titles("en", found), *titles("zh", other)]
    counts = Counter(pair.a for pair in headed)
    yield from (pair for pair in headed if counts[pair.a] <= MOST_ALIKE)
