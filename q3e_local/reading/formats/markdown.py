"""Markdown: headings, paragraphs, lists, fenced code and tables, with the lines markdown-it says they are on.

Knows blocks and headings; nothing of rendering. The only module that imports markdown_it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt

from q3e_local.reading.assembling import SECTION_MAX, Outline
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits
from q3e_local.reading.lines import Block, document_of, line_starts

# What static site generators put before the text: YAML between ---, TOML between +++.
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[^\S\n]*\n(?:.*\n)*?\1[^\S\n]*(?:\n|\Z)")

_INLINE = MarkdownIt("commonmark")
# Blocks alone: what stands inside a paragraph matters in headings only.
_BLOCKS = MarkdownIt("commonmark").enable("table")
_BLOCKS.core.ruler.enableOnly(["normalize", "block"])


def read(text: str, limits: Limits) -> Document:
    return document_of(text, blocks(text, Outline()))


def blocks(text: str, outline: Outline) -> Iterator[Block]:
    """The top-level blocks of a text under the headings so far, which its own go on with."""
    front = _FRONT_MATTER.match(text)
    n_front = len(text[: front.end()].rstrip("\n").split("\n")) if front else 0
    if front:
        yield Block(0, n_front, outline.path)
    starts = line_starts(text)
    is_long = False
    tokens = _BLOCKS.parse(text[front.end() :] if front else text)
    for at, token in enumerate(tokens):
        if token.map is None or token.nesting < 0:
            continue
        first, end = token.map[0] + n_front, token.map[1] + n_front
        if token.type == "heading_open" and token.level == 0:
            yield Block(first, end, outline.enter(int(token.tag[1:]), _plain(tokens[at + 1].content)), True)
        elif token.level == 0:
            is_long = token.type.endswith("_list_open") and starts[end] - starts[first] > SECTION_MAX
            if not is_long:
                yield Block(first, end, outline.path)
        elif is_long and token.level == 1 and token.type == "list_item_open":
            yield Block(first, end, outline.path)


def plain_text(text: str) -> str:
    """The words of a Markdown text, a line a block: no marks, no addresses of links, no HTML, no front matter."""
    front = _FRONT_MATTER.match(text)
    lines = []
    for token in _BLOCKS.parse(text[front.end() :] if front else text):
        if token.type == "inline":
            lines.append(_plain(token.content))
        elif token.type in ("fence", "code_block"):
            lines.append(token.content.rstrip())
    return "\n".join(lines)


def _plain(inline: str) -> str:
    """The words of a heading or a paragraph without its marks."""
    children = [child for token in _INLINE.parseInline(inline) for child in token.children or []]
    words = (
        " " if child.type.endswith("break") else child.content for child in children if child.type != "html_inline"
    )
    return "".join(words)
