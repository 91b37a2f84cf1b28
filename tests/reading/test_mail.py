"""Mails as they come: wrong encodings, pages alone, mails in mails, and what is no mail."""

from __future__ import annotations

from email.message import EmailMessage

import made_files
import odfdo
import pytest

from q3e_local.errors import InputError
from q3e_local.reading import read_bytes


def text_of(name: str, data: bytes) -> str:
    return read_bytes(name, data).text


# What stands in a mail: its bytes, and the text that is read.
MAILS = {
    "a page alone": (
        b"Subject: Offer\nContent-Type: text/html; charset=utf-8\n\n<nav>x</nav><h1>Prices</h1><p>Twelve euros.</p>",
        "Offer\n\nPrices\n\nTwelve euros.",
    ),
    "an encoding that nobody knows": (
        "Subject: =?x-nobody?B?5L2g?=\nContent-Type: text/plain; charset=x-nobody\n\n会议改到周四。\n".encode(),
        "=?x-nobody?B?5L2g?=\n\n会议改到周四。",
    ),
    "bytes of GBK that say they are GB2312": (
        b"Content-Type: text/plain; charset=gb2312\n\n" + "朱镕基在北京。".encode("gbk"), "朱镕基在北京。",
    ),
    "a header in raw GBK": (
        b"Subject: plan\nX: " + "北京".encode("gbk") + b"\n\nthe plan\n", "plan\n\nthe plan",
    ),
    "an empty plain text beside a page": (
        b'Subject: s\nContent-Type: multipart/alternative; boundary="b"\n\n--b\nContent-Type: text/plain\n\n \n'
        b"--b\nContent-Type: text/html\n\n<p>the page</p>\n--b--\n",
        "s\n\nthe page",
    ),
    "a text that is attached is named, not read": (
        b'Subject: s\nContent-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/plain\n\nhello\n'
        b'--b\nContent-Type: text/plain\nContent-Disposition: attachment; filename="log.txt"\n\nsecret\n--b--\n',
        "s\n\nhello\n\nAttachments: log.txt",
    ),
    "a boundary that never comes": (
        b'Subject: s\nContent-Type: multipart/mixed; boundary="b"\n\nhello\n', "s\n\nhello",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAILS)
def test_what_is_read_of_a_mail(name: str) -> None:
    data, expected = MAILS[name]
    assert text_of("a.eml", data) == expected


def test_mails_in_mails_have_an_end() -> None:
    message = EmailMessage()
    message.set_content("the innermost")
    for number in range(60):
        outer = EmailMessage()
        outer["Subject"] = f"level {number}"
        outer.add_attachment(message)
        message = outer
    with pytest.raises(InputError, match="parts 20 deep in each other"):
        text_of("a.eml", message.as_bytes())


def test_a_mail_of_very_many_parts_is_refused() -> None:
    parts = b"".join(b"--b\nContent-Type: image/png\n\nx\n" for _ in range(2000))
    data = b'Subject: s\nContent-Type: multipart/mixed; boundary="b"\n\n' + parts + b"--b--\n"
    with pytest.raises(InputError, match="more than 1,000 parts"):
        text_of("a.eml", data)


def other_kind() -> bytes:
    parts = {"mimetype": b"application/vnd.oasis.opendocument.spreadsheet", "content.xml": b"<x/>"}
    return made_files.zipped(parts)


def encrypted() -> bytes:
    parts = {
        "mimetype": odfdo.Document("text").mimetype.encode(),
        "META-INF/manifest.xml": b"<manifest:manifest><manifest:encryption-data/></manifest:manifest>",
        "content.xml": b"\x93\x12",
    }
    return made_files.zipped(parts)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.eml", b"\n\nno header at all\n", "is no mail: it has no headers"),
        ("a.rtf", b"just words", "is no Rich Text Format"),
        ("a.odt", other_kind(), "is no text document but application/vnd.oasis.opendocument.spreadsheet"),
        ("a.odt", encrypted(), "is encrypted; save a copy without its password"),
        ("a.odt", b"no zip", "cannot be read as OpenDocument text"),
        ("a.xlsx", b"no zip", "cannot be read as an Excel workbook"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 with a password", "is encrypted, or from Office 2003"),
    ],
)
def test_what_is_something_else_is_refused_with_the_reason(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        text_of(name, data)


def test_a_bullet_of_a_symbol_font_is_a_dash_and_pictures_are_no_text() -> None:
    data = rb"{\rtf1\ansi {\pict " + b"00ff" * 50_000 + rb"}{\f1 \u61623?}\tab first\par \bullet  second\par}"
    assert text_of("a.rtf", data) == "- first\n\n- second"
