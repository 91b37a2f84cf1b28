"""Whatever a file holds, its sections are in order, do not overlap, and leave out nothing but white space."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from documents import section_texts
from hypothesis import event, given
from hypothesis import strategies as st

from q3e_local.errors import InputError
from q3e_local.reading import Document, read
from q3e_local.reading.formats.code import blocks
from q3e_local.reading.lines import document_of

LINES = st.sampled_from([
    "", " ", "\t", "\u3000", "\f", "\u2028", "text", "会议纪要。", "# A", "### B", "## `c` *d*", "===", "---", "~~~~",
    "- item", "  - inner", "1. one", "> quote", "```", "| a | b |", "|---|---|", "[x]: http://y", "<div>", "</div>",
    "+++", "title: x", "def f():", "    return 1", "class C:", "    def g(self):", "\t\tpass", "}", "{", "  })",
    "@decorator", "# comment", "end", "else:", ".. note::", "   inside", ".. include:: x", "::", "*open", "|", '"a,b',
    'c"', "x;y;z", "a\tb",
])  # fmt: skip
TEXTS = st.lists(LINES | st.text(max_size=12), max_size=30).map("\n".join)


def check(document: Document) -> None:
    at = 0
    for section, text in zip(document.sections, section_texts(document), strict=True):
        assert at <= section.start < section.end <= len(document.text)
        assert not document.text[at : section.start].strip()
        assert text == text.strip()
        at = section.end
    assert not document.text[at:].strip()


@pytest.mark.parametrize("suffix", [".txt", ".md", ".rst", ".py", ".csv", ".jsonl", ".html"])
@given(text=TEXTS)
def test_sections_leave_out_nothing_but_white_space(suffix, text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8", "replace"))
        try:
            document = read(path)
        except InputError as error:
            event(str(error))
            return
    check(document)
    if document.has_lines:
        assert "".join(document.text.split()) == "".join(text.replace("\0", " ").split()).removeprefix("\ufeff")
        for section in document.sections:
            assert section.line == document.text.count("\n", 0, section.start) + 1


@pytest.mark.parametrize("line", [" " * 200_000 + "x = 1", "[" + "a" * 200_000])
def test_a_long_line_of_code_takes_no_longer_than_its_length(line):
    """Where the time grew with its square, this took minutes."""
    text = f"head\n{line}\n{line}\n"
    check(document_of(text, blocks(text)))
