"""Broken, hostile and locked files end in an InputError that says why, and never in anything else."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import zipfile
from itertools import pairwise

import made_files
import pytest
from documents import section_texts, sections
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, StreamObject

from q3e_local.errors import InputError
from q3e_local.reading import Limits, read, read_bytes
from q3e_local.reading.failures import parsing


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Cut short, with wrong bytes, or with a hole."""
    bad, at = bytearray(data), chance.randrange(len(data))
    match chance.randrange(3):
        case 0:
            del bad[at:]
        case 1:
            for _ in range(chance.randint(1, 20)):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
        case _:
            del bad[at : at + chance.randint(1, 300)]
    return bytes(bad)


@pytest.mark.parametrize("name", made_files.FILES)
def test_a_damaged_file_is_read_or_refused(name, capfd):
    data, chance = made_files.FILES[name](), random.Random(name)
    reasons = []
    for _ in range(60):
        try:
            document = read_bytes(name, damaged(data, chance))
        except InputError as error:
            reasons.append(str(error))
        else:
            assert all(text.strip() for text in section_texts(document))
    assert all(len(reason) < 300 for reason in reasons)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", ["word/document.xml", "word/styles.xml", "[Content_Types].xml"])
def test_damage_inside_the_parts_of_a_zip_is_found_too(part):
    """The checksums are right here, the XML is not."""
    parts = word_parts()
    chance, whole = random.Random(part), bytes(parts[part])
    n_refused = 0
    for _ in range(25):
        parts[part] = damaged(whole, chance)
        try:
            read_bytes("a.docx", made_files.zipped(parts))
        except InputError:
            n_refused += 1
    assert n_refused


def entities(root: str) -> bytes:
    """A billion laughs: nine entities, each ten times the one before."""
    laughs = "".join(f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in pairwise("abcdefghij"))
    return f'<!DOCTYPE x [<!ENTITY a "ha ha ha">{laughs}]>{root}'.encode()


def lying(part_size: int) -> bytes:
    """A zip file whose directory says that its part is smaller than it is."""
    data = made_files.zipped({"word/document.xml": bytes(part_size)})
    said, true = (1000).to_bytes(4, "little"), part_size.to_bytes(4, "little")
    assert data.count(true) == 2
    return data.replace(true, said)


WORD = (
    '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
    "<w:body>&j;</w:body></w:document>"
)
PROTECTION = (
    '<encryption><EncryptedData xmlns="http://www.w3.org/2001/04/xmlenc#">'
    '<EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/></EncryptedData></encryption>'
)


SPREADSHEET = "application/vnd.oasis.opendocument.spreadsheet"
MAIL_OF_PARTS = b'Subject: s\nContent-Type: multipart/mixed; boundary="b"\n\n'


def word_parts() -> dict[str, bytes | str]:
    with zipfile.ZipFile(io.BytesIO(made_files.FILES["minutes.docx"]())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def word_of(document: bytes) -> bytes:
    return made_files.zipped(word_parts() | {"word/document.xml": document})


def book_with(parts: dict[str, bytes | str]) -> bytes:
    return made_files.book([("A", "<p>b</p>")], parts)


# Name, how the file is made, how the reason begins.
REFUSED = {
    "a locked PDF": (
        "a.pdf", lambda: made_files.encrypted_pdf("x", "pw"), "is encrypted; save a copy without its password",
    ),
    "a scan": (
        "a.pdf", made_files.scanned_pdf, "has no text in its 2 pages, as scans have none; run OCR over it first",
    ),
    "no PDF": ("a.pdf", lambda: b"hello", "cannot be read as PDF (PdfStreamError: Stream has ended"),
    "a PDF of nameless characters": (
        "a.pdf", lambda: made_files.pdf(["\ue001\ue002\ue003 a"], chinese=True), "has fonts that do not tell which",
    ),
    "an empty PDF": ("a.pdf", lambda: b"", "cannot be read as PDF (EmptyFileError"),
    "an empty Word document": ("a.docx", lambda: b"", "cannot be read as Word document (BadZipFile"),
    "no Word document": (
        "a.docx", lambda: b"hello", "cannot be read as Word document (BadZipFile: File is not a zip file); it may be",
    ),
    "a locked Word document": (
        "a.docx", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is encrypted, or from Office",
    ),
    "slides under a wrong name": ("a.docx", made_files.slides, "cannot be read as Word document (ValueError"),
    "a mail without headers": ("a.eml", lambda: b"\n\nno header at all\n", "is no mail: it has no headers"),
    "a mail of very many parts": (
        "a.eml", lambda: MAIL_OF_PARTS + b"--b\nContent-Type: image/png\n\nx\n" * 2000, "has more than 1,000 parts",
    ),
    "words called Rich Text": ("a.rtf", lambda: b"just words", "is no Rich Text Format"),
    "a spreadsheet called a text": (
        "a.odt", lambda: made_files.zipped({"mimetype": SPREADSHEET, "content.xml": b"<x/>"}),
        f"is no text document but {SPREADSHEET}",
    ),
    "a locked OpenDocument text": (
        "a.odt", lambda: made_files.zipped({"META-INF/manifest.xml": "<encryption-data/>", "content.xml": b"\x93"}),
        "is encrypted; save a copy without its password",
    ),
    "no OpenDocument text": ("a.odt", lambda: b"no zip", "cannot be read as OpenDocument text (BadZipFile"),
    "no workbook": ("a.xlsx", lambda: b"no zip", "cannot be read as an Excel workbook (BadZipFile"),
    "a locked workbook": (
        "a.xlsx", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 with a password", "is encrypted, or from Office 2003",
    ),
    "a protected book": (
        "a.epub", lambda: book_with({"META-INF/encryption.xml": PROTECTION}), "is protected (DRM), only",
    ),
    "a zip bomb": (
        "a.docx", lambda: made_files.zipped({"a.bin": bytes(450_000_000)}), "unpacks to more than the limit of 400",
    ),
    "a part that would be a huge tree": (
        "a.epub", lambda: made_files.zipped({"a.xml": bytes(60_000_000)}), "has a part 'a.xml' larger than the limit",
    ),
    "a huge tree under another name": (
        "a.epub", lambda: book_with({"OEBPS/b.dat": b"<package>" + b"<item/>" * 6_000_000}),
        "has a part 'OEBPS/b.dat' larger than the limit",
    ),
    "a huge tree among the pictures": (
        "a.docx",
        lambda: made_files.zipped(word_parts() | {"word/media/a.png": b"\xef\xbb\xbf <a>" + bytes(40_000_000)}),
        "has a part 'word/media/a.png' larger than the limit",
    ),
    "a zip bomb that lies": (
        "a.docx", lambda: lying(60_000_000), "cannot be read as Word document (BadZipFile: Bad CRC-32",
    ),
    "a billion laughs in Word": (
        "a.docx", lambda: word_of(entities(WORD)), "cannot be read as Word document (XMLSyntaxError",
    ),
    "a billion laughs in a book": (
        "a.epub", lambda: book_with({"OEBPS/book.opf": entities("<package>&j;</package>")}),
        "cannot be read as EPUB (XMLSyntaxError",
    ),
    "a page nested too deep": (
        "a.html", lambda: b"<div>" * 9000 + b"x", "cannot be read as HTML to its end (Excessive depth",
    ),
    "a record nested too deep": ("a.jsonl", lambda: b"[" * 100_000, "cannot be read as JSON Lines (RecursionError"),
    "JSON that is no notebook": ("a.ipynb", lambda: b"[1]", "is JSON, but no Jupyter notebook"),
    "a quote left open for long": (
        "a.csv", lambda: b'a,b\n1,"' + b"x\n" * 90_000, "has a value of 179,999 characters in the row at line 2",
    ),
    "a quote left open": (
        "a.csv", lambda: b'a,b\n1,"' + b"x\n" * 60_000, "has a value of 119,999 characters in the row at line 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "make", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(name, make, reason):
    with pytest.raises(InputError) as caught:
        read_bytes(name, make())
    assert str(caught.value).startswith(reason)


# Limit, and a file of each sort just above it: (limits, name, content, reason).
ABOVE = [
    (Limits(size_bytes=9), "a.txt", b"0123456789", "is too large: 1e-05 MB, the limit is 9e-06 MB; split it"),
    (Limits(n_characters=3), "a.md", "四个字符".encode(), "has more than 3 characters of text, which is the limit"),
    (Limits(n_characters=3), "a.docx", made_files.FILES["minutes.docx"](), "has more than 3 characters"),
    (Limits(n_pages=1), "a.pdf", made_files.pdf(["one", "two"]), "has 2 pages, the limit is 1; split it"),
    (Limits(n_pages=1), "a.pptx", made_files.slides(), "has 2 pages, the limit is 1; split it"),
    (Limits(unpacked_bytes=9), "a.epub", made_files.book([("A", "<p>b</p>")]), "unpacks to more than the limit of"),
    (Limits(part_bytes=9), "a.docx", made_files.FILES["minutes.docx"](), "larger than the limit of"),
]  # fmt: skip


@pytest.mark.parametrize(("limits", "name", "content", "reason"), ABOVE)
def test_a_file_above_a_limit_says_which(limits, name, content, reason):
    with pytest.raises(InputError) as caught:
        read_bytes(name, content, limits)
    assert reason in str(caught.value)


def test_a_pdf_that_draws_without_end_is_stopped(monkeypatch):
    # A page that draws as much as the real limit allows takes minutes to make.
    monkeypatch.setattr("q3e_local.reading.formats.pdf._OPERATIONS_OF_PAGE", 100)
    with pytest.raises(InputError, match=r"^draws more than 100 strokes and letters up to page 2; split it$"):
        read_bytes("a.pdf", made_files.pdf(["short", "\n".join(["line"] * 40)]))


def test_an_external_entity_is_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the secret", encoding="utf-8")
    kind = f'<!DOCTYPE x [<!ENTITY s SYSTEM "{secret.as_uri()}">]>'
    pages = {
        "a.epub": book_with({"OEBPS/nav.xhtml": f'{kind}<html><a href="c%200.xhtml">A&s;</a></html>'}),
        "a.html": f"{kind}<p>&s; text</p>".encode(),
    }
    for name, data in pages.items():
        text = read_bytes(name, data).text
        assert text
        assert "the secret" not in text


@pytest.mark.parametrize("raised", [RecursionError("deep"), MemoryError(), KeyError("x"), UnicodeError("b" * 999)])
def test_whatever_a_parser_raises_is_an_input_error_that_names_it(raised):
    with pytest.raises(InputError, match=rf"^cannot be read as PDF \({type(raised).__name__}"), parsing("PDF"):
        raise raised


def test_an_interrupt_is_no_broken_file():
    with pytest.raises(KeyboardInterrupt), parsing("PDF"):
        raise KeyboardInterrupt


def test_what_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(InputError, match=r"^cannot be read: No such file"):
        read(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"^is no regular file"):
        read(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"ab")
    with pytest.raises(InputError, match=r"^is too large"):
        read(tmp_path / "a.txt", Limits(size_bytes=1))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs on this system")
def test_a_fifo_does_not_keep_us_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"^is no regular file"):
        read(tmp_path / "a.txt")


def test_parsers_that_complain_leave_stderr_clean(tmp_path):
    """A PDF that pypdf repairs, read by a program that has set up no logging."""
    data = made_files.pdf(["still here"])
    path = tmp_path / "a.pdf"
    path.write_bytes(data.replace(b"startxref\n", b"startxref\n9"))
    script = f"import pathlib, q3e_local.reading as r; print(r.read(pathlib.Path({str(path)!r})).text)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("still here\n", "")


def test_pages_of_a_pdf_that_are_pictures_are_counted():
    parts = made_files.pdf(["The cover"]), made_files.scanned_pdf(20), made_files.pdf([""])
    document = read_bytes("a.pdf", made_files.joined(*parts))
    assert document.text == "The cover"
    assert document.problems == (
        "20 of its 22 pages are pictures without text, the first is page 2; run OCR over it first, as "
        "ocrmypdf --skip-text",
    )


def test_a_broken_page_of_a_pdf_costs_that_page(tmp_path):
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(made_files.pdf(["one", "two", "three"]))))
    broken = StreamObject()
    broken[NameObject("/Filter")] = NameObject("/NoSuchFilter")
    broken.set_data(b"x")
    writer.pages[1][NameObject("/Contents")] = writer._add_object(broken)
    path = tmp_path / "a.pdf"
    writer.write(path)
    document = read(path)
    assert sections(document) == [(1, (), "one"), (3, (), "three")]
    assert len(document.problems) == 1
    assert document.problems[0].startswith("1 of its 3 pages left out: the first cannot be read as PDF at page 2 (")


@pytest.mark.parametrize("nav", ["<html><body><a href='c%200.xhtml'>A&nbsp;&nbsp;B</a></body></html>", "", "<<<&"])
def test_a_flawed_table_of_contents_does_not_cost_the_book(nav):
    book = made_files.book([("A", "<p>the text</p>")], {"OEBPS/nav.xhtml": nav})
    assert "the text" in read_bytes("a.epub", book).text


def test_lines_beyond_what_libxml2_counts_are_unknown():
    document = read_bytes("a.html", b"".join(b"<p>%d</p>\n" % number for number in range(1, 70_001)))
    lines = {text: line for line, _, text in sections(document)}
    assert (lines["65534"], lines["65535"], lines["70000"]) == (65_534, None, None)
