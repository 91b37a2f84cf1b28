"""What tests see of a document: the text and the place of each of its sections."""

from __future__ import annotations

from q3e_local.reading import Document, read_bytes


def document_of(name: str, data: bytes | str) -> Document:
    return read_bytes(name, data.encode("utf-8") if isinstance(data, str) else data)


def section_texts(document: Document) -> list[str]:
    return [document.text[section.start : section.end] for section in document.sections]


def sections(document: Document) -> list[tuple]:
    """(place, heading path, text) of each section; the place is a page where there are pages, else a line."""
    places = [(section.page or section.line, section.headings) for section in document.sections]
    return [(*place, text) for place, text in zip(places, section_texts(document), strict=True)]
