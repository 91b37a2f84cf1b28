"""Mails (.eml): the subject as heading, who wrote to whom and when, the text, and the names of attachments.

Knows messages and their parts; an HTML part is read as a page is. Attachments are named and not read; a mail that was
attached is read as part of the one it is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import Message

from q3e_local.errors import InputError
from q3e_local.reading.assembling import Outline, Piece, assemble
from q3e_local.reading.document import Document
from q3e_local.reading.encodings import decode
from q3e_local.reading.formats.html import pieces_of
from q3e_local.reading.limits import Limits
from q3e_local.reading.lines import paragraphs

_SHOWN = ("From", "To", "Cc", "Date")
_DEPTH_MAX = 20  # mails in mails, and parts in parts
_N_PARTS_MAX = 1_000


def read(data: bytes, limits: Limits) -> Document:
    message = message_from_bytes(data, policy=policy.compat32)  # the newer policy fails on headers of real mails
    if not message.keys():
        raise InputError("is no mail: it has no headers")
    return assemble(_pieces(message, Outline(), limits, depth=0), limits)


def _pieces(message: Message, outline: Outline, limits: Limits, depth: int) -> Iterator[Piece]:
    subject = _header(message, "Subject")
    path = outline.enter(depth + 1, subject) if subject else outline.path
    if subject:
        yield Piece(subject, path, is_heading=True)
    for number, name in enumerate(name for name in _SHOWN if _header(message, name)):
        yield Piece(f"{name}: {_header(message, name)}", path, joins=number > 0)
    attachments: list[str] = []
    for part in _read_parts(message, attachments, depth):
        if part.get_content_type() == "message/rfc822":
            inside = part.get_payload(0)
            if isinstance(inside, Message):
                yield from _pieces(inside, outline, limits, depth + 1)
        else:
            yield from _text_pieces(part, path, limits)
    if attachments:
        yield Piece(f"Attachments: {', '.join(attachments)}", path)


def _text_pieces(part: Message, path: tuple[str, ...], limits: Limits) -> Iterator[Piece]:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not payload.strip():
        return
    text = decode(payload, limits, part.get_content_charset()).text
    if part.get_content_subtype() == "html":
        yield from (Piece(piece.text, (*path, *piece.headings), joins=piece.joins) for piece in pieces_of(text))
    else:
        yield from (Piece(text[start:end], path) for start, end in paragraphs(text))


def _read_parts(message: Message, attachments: list[str], depth: int) -> Iterator[Message]:
    """The parts to read, in order: of alternatives the plain text if it has words, else the page.

    Names of attachments are added to `attachments`.
    """
    waiting = [(message, depth)]
    n_parts = 0
    while waiting:
        part, level = waiting.pop(0)
        n_parts += 1
        if n_parts > _N_PARTS_MAX or level > _DEPTH_MAX:
            raise InputError(f"has more than {_N_PARTS_MAX:,} parts, or parts {_DEPTH_MAX} deep in each other")
        kind = part.get_content_type()
        if part is not message and (part.get_content_disposition() == "attachment" and kind != "message/rfc822"):
            attachments.append(_attachment_name(part))
        elif kind == "multipart/alternative":
            waiting[:0] = [(_best(part), level + 1)] if part.get_payload() else []
        elif part.is_multipart() and kind != "message/rfc822":
            waiting[:0] = [(inner, level + 1) for inner in part.get_payload() if isinstance(inner, Message)]
        elif kind == "message/rfc822" or _has_text(part):
            yield part
        elif part is not message:
            attachments.append(_attachment_name(part))


def _has_text(part: Message) -> bool:
    """Whether a part is plain text or a page, or of parts whose boundary never came, so that all of it is text."""
    is_unparted = part.get_content_maintype() == "multipart" and not part.is_multipart()
    return is_unparted or part.get_content_type() in ("text/plain", "text/html")


def _best(part: Message) -> Message:
    """Of several forms of one text the plain one, unless it is empty; else the last, which the sender likes best."""
    forms = [form for form in part.get_payload() if isinstance(form, Message)]
    for form in forms:
        payload = form.get_payload(decode=True) if form.get_content_type() == "text/plain" else None
        if isinstance(payload, bytes) and payload.strip():
            return form
    return forms[-1] if forms else part


def _attachment_name(part: Message) -> str:
    name = part.get_filename()
    return " ".join(_decoded(name).split()) if name else f"a part of type {part.get_content_type()}"


def _header(message: Message, name: str) -> str:
    """A header's words in one line, decoded; empty where there is none."""
    value = message.get(name)
    return "" if value is None else " ".join(_decoded(str(value)).split())


def _decoded(value: str) -> str:
    try:
        return str(make_header(decode_header(value)))
    except (LookupError, UnicodeError, ValueError):  # an encoding that nobody knows, or bytes that are not of it
        return value
