"""Mails as they come: wrong encodings, pages alone, and mails in mails."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from q3e_local.errors import InputError
from q3e_local.reading import read_bytes

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


@pytest.mark.parametrize(("data", "expected"), MAILS.values(), ids=MAILS)
def test_what_is_read_of_a_mail(data, expected):
    assert read_bytes("a.eml", data).text == expected


def test_mails_in_mails_have_an_end():
    message = EmailMessage()
    message.set_content("the innermost")
    for number in range(60):
        outer = EmailMessage()
        outer["Subject"] = f"level {number}"
        outer.add_attachment(message)
        message = outer
    with pytest.raises(InputError, match="parts 20 deep in each other"):
        read_bytes("a.eml", message.as_bytes())
