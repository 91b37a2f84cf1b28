"""EPUB: the chapters of a book in reading order, under their titles.

Knows the package file and its spine (EPUB 3.3, and 2); the text of a chapter is markup's. Protected books are
refused.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote
from zipfile import ZipFile

from q3e_local.errors import InputError
from q3e_local.reading.assembling import Outline, Piece, assemble
from q3e_local.reading.document import Document
from q3e_local.reading.encodings import decode
from q3e_local.reading.failures import parsing
from q3e_local.reading.limits import Limits
from q3e_local.reading.markup import Element, blocks, name, parse_html, parse_xml
from q3e_local.reading.zipped import open_checked

_CHAPTERS = {"application/xhtml+xml", "text/html", "application/x-dtbook+xml"}
# Fonts are often obfuscated; that is encryption in name only (EPUB 3.3, section 4.4).
_OBFUSCATIONS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def read(data: bytes, limits: Limits) -> Document:
    with open_checked(data, limits) as archive:
        return assemble(_pieces(archive, limits), limits)


def _pieces(archive: ZipFile, limits: Limits) -> Iterator[Piece]:
    _refuse_protected(archive)
    package = _package_path(archive)
    tree = parse_xml(archive.read(package))
    items = {element.get("id", ""): element for element in tree.iter() if name(element) == "item"}
    titles = _titles(archive, package, items, limits)
    for reference in (element for element in tree.iter() if name(element) == "itemref"):
        item = items.get(reference.get("idref", ""))
        if item is None or item.get("media-type") not in _CHAPTERS or "nav" in item.get("properties", "").split():
            continue
        path = _inside(package, item.get("href", ""))
        chapter = parse_html(decode(archive.read(path), limits, "utf-8").text)
        if chapter is not None:
            yield from _chapter(chapter, titles.get(path, ""))


def _chapter(tree: Element, title: str) -> Iterator[Piece]:
    """A chapter's blocks; one without a heading of its own is under its title in the table of contents."""
    outline = Outline()
    if title and not any(name(element) in ("h1", "h2", "h3") for element in tree.iter()):
        yield Piece(title, outline.enter(1, title), is_heading=True)
    for piece in blocks(tree, outline):
        # A line counts within its part of the book, not within the file.
        yield replace(piece, line=None)


def _package_path(archive: ZipFile) -> str:
    container = parse_xml(archive.read("META-INF/container.xml"))
    path = next((element.get("full-path", "") for element in container.iter() if name(element) == "rootfile"), "")
    if not path:
        raise InputError("is no EPUB: its container names no book")
    return path


def _refuse_protected(archive: ZipFile) -> None:
    if "META-INF/encryption.xml" not in archive.namelist():
        return
    tree = parse_xml(archive.read("META-INF/encryption.xml"))
    methods = [element.get("Algorithm", "") for element in tree.iter() if name(element) == "encryptionmethod"]
    if not all(method in _OBFUSCATIONS for method in methods):
        raise InputError("is protected (DRM), only its shop's reader opens it")


def _titles(archive: ZipFile, package: str, items: dict[str, Element], limits: Limits) -> dict[str, str]:
    """What the table of contents calls each file: of EPUB 3 a page of links, of EPUB 2 an NCX."""
    titles: dict[str, str] = {}
    for item in items.values():
        is_page = "nav" in item.get("properties", "").split()
        if not is_page and item.get("media-type") != "application/x-dtbncx+xml":
            continue
        path = _inside(package, item.get("href", ""))
        if path not in archive.namelist():
            continue
        tree = _contents(archive.read(path), limits, is_page)
        for entry in () if tree is None else tree.iter():
            if is_page and name(entry) == "a":
                target = entry.get("href", "")
            elif not is_page and name(entry) == "navpoint":
                target = next((each.get("src", "") for each in entry if name(each) == "content"), "")
            else:
                continue
            label = entry if is_page else next((each for each in entry if name(each) == "navlabel"), entry)
            title = " ".join("".join(label.itertext()).split())
            titles.setdefault(_inside(path, target.partition("#")[0]), title)
    return titles


def _contents(data: bytes, limits: Limits, is_page: bool) -> Element | None:
    """The tree of a table of contents. A broken one is taken as none: the text can do without titles."""
    try:
        with parsing("EPUB"):
            return parse_html(decode(data, limits, "utf-8").text) if is_page else parse_xml(data)
    except InputError:
        return None


def _inside(base: str, reference: str) -> str:
    """The name in the zip file of what a part of it refers to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(reference)))
