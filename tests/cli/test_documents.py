"""`embed` and the jobs read what `index` reads: PDF, Word and other documents, and text in any encoding."""

from __future__ import annotations

import sys

import made_files
import numpy as np
import pytest
from command import embed, expected, ids, records, run, write

from q3e_local.reading import read

PLAIN = {"letter.txt", "便条.txt", "harbour.md", "bees.rst", "stock.csv", "chat.jsonl", "circle.py"}
INSTALL = "needs pypdf; install it with: pip install 'q3e-local[documents]'"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("Q3E_MODEL", "demo")
    return tmp_path


def assert_embedded(result, *texts):
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal([record["embedding"] for record in records(result.stdout)], expected(texts).vectors)


def test_every_kind_of_file_is_one_text(folder):
    made_files.folder(folder / "n")
    names = sorted(made_files.FILES)
    texts = []
    for name in names:
        data = made_files.FILES[name]()
        plain = data.decode("gb18030" if name == "便条.txt" else "utf-8", "replace").removesuffix("\n")
        texts.append(plain if name in PLAIN else read(folder / "n" / name).text)
    result = embed("n")
    assert_embedded(result, *texts)
    assert ids(result.stdout) == [f"n/{name}" for name in names]


@pytest.mark.parametrize("layout", [[], ["--lines"], ["--jsonl", "text"], ["--csv", "text"]], ids="".join)
@pytest.mark.parametrize(("name", "advice"), [("a.PDF", "is a PDF; name a file that ends in .pdf"),
                                              ("a.rtf", "is RTF; name a file that ends in .rtf")])  # fmt: skip
def test_a_document_on_stdin_is_refused_whatever_its_bytes_could_be_read_as(name, advice, layout):
    """pypdf's and reportlab's PDFs may have no NUL, and their bytes look like GB18030."""
    result = run("embed", "-", *layout, input=DOCUMENTS[name][0])
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"stdin {advice}" in result.stderr


# Name: what is in the file, and the text that is embedded.
DOCUMENTS = {
    "a.PDF": (made_files.pdf(["the turbine stood still", "repairs cost much"]),
              "the turbine stood still\n\nrepairs cost much"),
    "a.docx": (made_files.word(lambda document: document.add_paragraph("a crane is leased")), "a crane is leased"),
    "a.htm": (b"<nav><a href=/>Home</a></nav><main><h1>Bread</h1><p>A starter needs\nflour.</p></main>",
              "Bread\n\nA starter needs flour."),
    "a.eml": (b"Subject: plan\n\nthe plan\n", "plan\n\nthe plan"),
    "a.rtf": (rb"{\rtf1 forty trees\par}", "forty trees"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_text_of_a_document_is_what_people_read_in_it(name, folder):
    data, text = DOCUMENTS[name]
    write(folder, {name: data})
    assert_embedded(embed(name), text)


def test_a_workbook_is_one_text_and_its_rows_are_hinted_at(folder):
    write(folder, {"costs.xlsx": made_files.workbook()})
    result = embed("costs.xlsx")
    assert_embedded(result, read(folder / "costs.xlsx").text)
    assert "costs.xlsx is embedded as one text; for its records give --csv COLUMN" in result.stderr


@pytest.mark.parametrize(
    ("encoding", "text", "said"),
    [
        ("gbk", "价格表", "GB18030"),
        ("big5", "請在週五之前把合約寄給王經理。", "CP950"),
        ("shift_jis", "会議の議事録です", "CP932"),
        ("cp1252", "déjà vu à l'école", "CP1252"),
        ("cp1251", "Сегодня хорошая погода, и мы пойдём гулять в парк.", "CP1251"),
        ("utf-16-le", "hello world", "UTF-16"),  # without a byte order mark
    ],
)
def test_a_file_that_is_one_text_may_be_in_any_encoding(encoding, text, said, folder):
    data = f"{text}\r\n".encode(encoding)
    write(folder, {"a.txt": data, "page.html": "<p>".encode(encoding) + data})
    for arguments, name in ((["a.txt"], "a.txt"), (["page.html"], "page.html"), ([], "stdin")):
        result = embed(*arguments, input=None if arguments else data)
        assert_embedded(result, text)
        assert f"{name}: read as {said}, not UTF-8; if that is wrong, give --encoding\n" in result.stderr


def test_nothing_is_asked_where_a_byte_order_mark_says_the_encoding(folder):
    """The advice was to give --encoding, which does not go before a byte order mark."""
    text = "plans for the week"
    write(folder, {"a.txt": text.encode("utf-16"), "page.html": f"<p>{text}".encode("utf-16")})
    for arguments in (["a.txt"], ["page.html"], ["--lines", "a.txt"], []):
        result = embed(*arguments, input=None if arguments else text.encode("utf-16"))
        assert_embedded(result, text)
        assert "read as" not in result.stderr


def test_the_encoding_of_a_page_can_be_given(folder):
    page = "<meta charset=utf-8><p>请把合同寄给王经理。".encode("gbk")
    write(folder, {"a.html": page, "b.html": page + b"\xff", "c.html": b"\xff\xfe" + "<p>一".encode("utf-16-le")})
    result = embed("a.html", "b.html", "c.html", "--encoding", "gbk", "--skip-errors")
    assert (result.exit_code, ids(result.stdout)) == (3, ["a.html", "c.html"])
    assert "1 skipped:\n  b.html is not GB18030 at byte 43\n" in result.stderr
    assert "c.html: read as UTF-16, as its byte order mark says, not as GB18030\n" in result.stderr
    assert result.stderr.count("read as") == 1


BROKEN = {
    "locked.pdf": (made_files.encrypted_pdf("one", "secret"), "is encrypted; save a copy without its password"),
    "scan.pdf": (made_files.scanned_pdf(), "has no text in its 2 pages, as scans have none; run OCR over it first"),
    "cut.docx": (made_files.word(made_files.minutes)[:300], "cannot be read as Word document ("),
    "bomb.docx": (made_files.zipped({"a.xml": "<a>" + " " * 31_000_000}), "has a part 'a.xml' larger than the limit"),
    "empty.html": (b"<p> </p>", "has no text in it"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_document_that_cannot_be_read_is_named_and_the_others_are_embedded(name, folder):
    data, said = BROKEN[name]
    write(folder, {name: data, "a.txt": "one", "z.txt": "two"})
    result = embed("a.txt", name, "z.txt")
    assert (result.exit_code, ids(result.stdout)) == (1, ["a.txt"])
    assert f"Error: {name} {said}" in result.stderr
    result = embed("a.txt", name, "z.txt", "--skip-errors")
    assert (result.exit_code, ids(result.stdout)) == (3, ["a.txt", "z.txt"])
    assert f"1 skipped:\n  {name} {said}" in result.stderr


def test_what_is_not_read_of_a_document_is_said(folder):
    write(folder, {"half.pdf": made_files.joined(made_files.pdf(["one"]), made_files.scanned_pdf(1))})
    result = embed("half.pdf")
    assert_embedded(result, "one")
    assert "half.pdf: 1 of its 2 pages are pictures without text, the first is page 2; run OCR" in result.stderr
    write(folder, {"a.html": "<p>第三季度预算已经获批".encode() + b"\xff"})
    assert "a.html: bytes that are not utf-8, shown as U+FFFD: 1, the first is byte 34; " in embed("a.html").stderr


def test_a_package_that_is_missing_is_an_error_of_the_files_that_need_it(folder, monkeypatch):
    write(folder, {"n/a.pdf": made_files.pdf(["one"]), "n/b.md": "two"})
    monkeypatch.setitem(sys.modules, "pypdf", None)
    result = embed("n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: n/a.pdf cannot be read: reading PDF files {INSTALL}; ")
    result = embed("n", "--skip-errors")
    assert (result.exit_code, ids(result.stdout)) == (3, ["n/b.md"])


@pytest.mark.parametrize("option", [("--lines",), ("--csv", "text"), ("--jsonl", "text")])
def test_a_document_has_no_lines_or_records(option, folder):
    write(folder, {"a.pdf": made_files.pdf(["one"])})
    result = embed("a.pdf", *option)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "a.pdf is PDF, which is one text without lines or records; for its parts index it" in result.stderr


def test_lines_of_a_page_are_those_of_its_file(folder):
    write(folder, {"a.html": "<p>one\n<p>two\n"})
    assert_embedded(embed("a.html", "--lines"), "<p>one", "<p>two")


def test_jobs_read_documents_too(folder):
    text = "the crane is leased for two more years"
    write(folder, {
        "a.pdf": made_files.pdf([text]), "b.docx": made_files.word(lambda document: document.add_paragraph(text)),
        "c.txt": text.encode("utf-16-le"),
    })  # fmt: skip
    assert run("similar", "a.pdf", "b.docx").stdout == "1.0000\n"
    # A PDF has no lines, so that --lines, which is else advised, would not help.
    too_few = "Error: there is 1 text in the input, this needs at least 2\n"
    assert run("duplicates", "a.pdf").stderr == too_few
    result = run("duplicates", "a.pdf", "b.docx", "c.txt")
    assert (result.exit_code, '"size":3' in result.stdout) == (0, True)
