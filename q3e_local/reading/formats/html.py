"""HTML: the main text of a page, without its navigation, banners and scripts.

Knows how pages are furnished; the blocks of the text come from markup. A page of which nothing would be left is read
whole: a saved note may be all in what looks like furniture.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from q3e_local.reading.assembling import Outline, Piece, assemble
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits
from q3e_local.reading.markup import HEADINGS, Element, blocks, has_text, name, parse_html

_HEAD = 4096  # bytes in which a page names its encoding; the standard says 1024, pages differ
_CHARSET = re.compile(rb"""(?:<meta[^>]+charset|<\?xml[^>]+encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_FURNITURE = {"nav", "footer", "aside", "header", "dialog"}
_ROLES = {
    "navigation",
    "banner",
    "contentinfo",
    "search",
    "dialog",
    "alertdialog",
    "complementary",
    "menu",
    "menubar",
}
_NAMES = re.compile(
    r"(?:^|[\s_-])(?:cookies?|consent|gdpr|nav|navbar|navigation|menu|breadcrumbs?|sidebar|share|sharing|social|"
    r"newsletter|subscribe|subscription|popup|modal|overlay|banner|ads?|advert|advertisement|promo|sponsored|related|"
    r"recommend(?:ed|ations?)|pagination|pager|toolbar|footer|skip|print-?only)(?:$|[\s_-])",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_SHARE_MAX = 0.4  # furniture has less of the page's text than this
_MAIN_MIN = 0.25  # and what calls itself the main part at least this


@dataclass(frozen=True, slots=True)
class _Weight:
    """How many characters stand in an element and in its links, how many links there are, and whether a title is."""

    n_text: int = 0
    n_linked: int = 0
    n_links: int = 0
    has_title: bool = False


def declared(data: bytes) -> str | None:
    """The encoding that a page says it is in."""
    found = _CHARSET.search(data[:_HEAD])
    return found[1].decode("ascii") if found else None


def read(text: str, limits: Limits) -> Document:
    return assemble(pieces_of(text), limits)


def pieces_of(text: str) -> list[Piece]:
    """The main text of a page, piece by piece."""
    tree = parse_html(text)
    return [] if tree is None else _pieces(tree)


def _pieces(tree: Element) -> list[Piece]:
    weights = _weigh(tree)
    body = next((element for element in tree.iter("body")), tree)
    title = next((" ".join("".join(element.itertext()).split()) for element in tree.iter("title")), "")
    for root, is_left_out in ((_main(body, weights), _furniture(body, weights)), (body, lambda element: False)):
        outline = Outline()
        pieces = list(blocks(root, outline, is_left_out))
        if pieces:
            break
    if title and not any(piece.is_heading for piece in pieces):
        below = (replace(piece, headings=(title,)) for piece in pieces)
        pieces = [Piece(title, (title,), is_heading=True), *below]
    return pieces


def _weigh(tree: Element) -> dict[Element, _Weight]:
    """The weight of every element, from the leaves up."""
    weights: dict[Element, _Weight] = {}
    for element in reversed(list(tree.iter())):
        if not has_text(element):
            weights[element] = _Weight()
            continue
        inside = [weights[child] for child in element]
        n_text = len((element.text or "").strip()) + sum(len((child.tail or "").strip()) for child in element)
        n_text += sum(each.n_text for each in inside)
        is_link = name(element) == "a"
        weights[element] = _Weight(
            n_text,
            n_text if is_link else sum(each.n_linked for each in inside),
            is_link + sum(each.n_links for each in inside),
            name(element) == "h1" or any(each.has_title for each in inside),
        )
    return weights


def _main(body: Element, weights: dict[Element, _Weight]) -> Element:
    """The part that says it is the main one, if it is large enough to be it."""
    mains = [element for element in body.iter() if name(element) == "main" or element.get("role") == "main"]
    articles = list(body.iter("article"))
    for found in (mains, articles):
        if len(found) == 1 and weights[found[0]].n_text >= _MAIN_MIN * weights[body].n_text:
            return found[0]
    return body


def _furniture(body: Element, weights: dict[Element, _Weight]) -> Callable[[Element], bool]:
    n_all = weights[body].n_text

    def is_furniture(element: Element) -> bool:
        tag, weight = name(element), weights[element]
        if tag in ("html", "body", "main", "article") or tag in HEADINGS:
            return False
        if "hidden" in element.attrib or _HIDDEN.search(element.get("style", "")):
            return True
        if weight.has_title or weight.n_text >= _SHARE_MAX * n_all:
            return False
        names = f"{element.get('id', '')} {element.get('class', '')}"
        is_links = tag in ("div", "ul", "ol", "table", "p") and weight.n_links >= 8
        return (
            tag in _FURNITURE
            or element.get("role") in _ROLES
            or _NAMES.search(names) is not None
            or (is_links and weight.n_linked > 0.8 * weight.n_text)
        )

    return is_furniture
