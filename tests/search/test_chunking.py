"""Chunks keep to the budget, hold the text as it is, and end where a reader would cut."""

from __future__ import annotations

import re

import pytest
from command import demo
from hypothesis import given
from hypothesis import strategies as st

from q3e_local.errors import OptionError
from q3e_local.reading.document import Document, Section
from q3e_local.search.database.records import Chunk
from q3e_local.search.indexing.chunking import chunks
from q3e_local.search.sentences import sentences


def words(text: str) -> int:
    """Count tokens as a reader does: each word and each Chinese character is a token, and the end token."""
    return len(re.findall(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+", text)) + 1


def of_bytes(text: str) -> int:
    return len(text.encode()) + 1


def of_demo(text: str) -> int:
    return len(demo().engine.tokenize(demo().normalized(text))) + 1


def document(*paragraphs: str, headings: tuple[str, ...] = (), kind: str = "text") -> Document:
    """A document as the readers make it: paragraphs with an empty line between them, each a section."""
    text = "\n\n".join(paragraphs)
    sections, place = [], 0
    for paragraph in paragraphs:
        line = 1 + text.count("\n", 0, place)
        sections.append(Section(place, place + len(paragraph), headings, None, line))
        place += len(paragraph) + 2
    return Document(text, tuple(sections), kind, True)


def texts(chunked: list[Chunk]) -> list[str]:
    return [chunk.text for chunk in chunked]


def numbered(n_words: int, first: int = 0) -> str:
    return " ".join(f"w{n}" for n in range(first, first + n_words))


TWENTY = [f"{numbered(9, 10 * n).capitalize()} end{n}." for n in range(20)]  # sentences of ten words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("One. Two! Three? Four", ["One. ", "Two! ", "Three? ", "Four"]),
        (
            "Dr. Lee met J. Smith at 3.15 p.m. on e.g. Monday. It rained.",
            ["Dr. Lee met J. Smith at 3.15 p.m. on e.g. Monday. ", "It rained."],
        ),
        ("Pi is 3.14. E is 2.72.", ["Pi is 3.14. ", "E is 2.72."]),
        ("It grew by 6 percent. 12 people left.", ["It grew by 6 percent. ", "12 people left."]),
        ("Fig. 3 and No. 5 on pp. 7 show it. No. Yes.", ["Fig. 3 and No. 5 on pp. 7 show it. ", "No. ", "Yes."]),
        ("He said “no.” Then he left.", ["He said “no.” ", "Then he left."]),
        ("see file.txt. and more", ["see file.txt. and more"]),
        ("第一句。第二句！“第三句？”第四句；第五句", ["第一句。", "第二句！", "“第三句？”", "第四句；", "第五句"]),
        ("预算是3.5万元。实际4.2万元。", ["预算是3.5万元。", "实际4.2万元。"]),
        ("Heading\n\nBody goes on\nwrapped here. End", ["Heading\n\n", "Body goes on\nwrapped here. ", "End"]),
        ("To do:\n- call Rosa\n- write\n2. third", ["To do:\n", "- call Rosa\n", "- write\n", "2. third"]),
        ("1. First thing. 2nd", ["1. First thing. ", "2nd"]),
        ("wait... what? yes", ["wait... what? yes"]),
        ("\n\n  lead", ["\n\n  lead"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


@pytest.mark.parametrize(
    ("paragraphs", "headings", "expected"),
    [
        ([], (), []),
        (["one two"], (), ["one two"]),
        # 31 words and an end token fit, 32 do not.
        ([numbered(31)], (), [numbered(31)]),
        ([numbered(20), numbered(11, 20)], (), [f"{numbered(20)}\n\n{numbered(11, 20)}"]),
        ([numbered(20), numbered(12, 20)], (), [numbered(20), numbered(12, 20)]),
        # The heading path is counted: "A > B" are three words.
        ([numbered(20), numbered(8, 20)], ("A", "B"), [f"{numbered(20)}\n\n{numbered(8, 20)}"]),
        ([numbered(20), numbered(9, 20)], ("A", "B"), [numbered(20), numbered(9, 20)]),
    ],
)
def test_sections_share_a_chunk_while_they_fit(paragraphs, headings, expected):
    found = chunks(document(*paragraphs, headings=headings), words, n_tokens=32)
    assert texts(found) == expected
    assert {chunk.headings for chunk in found} <= {headings}


def test_sections_of_other_headings_or_pages_do_not_share():
    text = "a\nb\nc\nd"
    places = [(("H",), None), (("H", "I"), None), (("H", "I"), 2), (("H", "I"), 2)]
    sections = tuple(Section(2 * n, 2 * n + 1, *place) for n, place in enumerate(places))
    found = chunks(Document(text, sections, "pdf", False), words)
    assert [(chunk.text, chunk.headings, chunk.page) for chunk in found] == [
        ("a", ("H",), None),
        ("b", ("H", "I"), None),
        ("c\nd", ("H", "I"), 2),
    ]


def test_a_heading_is_embedded_once():
    text = "# A\n\n## B\n\ntext\n\n# C"
    sections = (
        Section(0, 3, ("A",), None, 1, is_heading=True),
        Section(5, 9, ("A", "B"), None, 3, is_heading=True),
        Section(11, 15, ("A", "B"), None, 5),
        Section(17, 20, ("C",), None, 7, is_heading=True),
    )
    found = chunks(Document(text, sections, "markdown", True), words)
    assert [(chunk.embedded, chunk.line) for chunk in found] == [("A > B\ntext", 5), ("C\n# C", 7)]


@pytest.mark.parametrize(
    ("paragraphs", "overlap", "first_sentences"),
    [
        ([" ".join(TWENTY)], 12, [0, 3, 6, 9, 12, 15, 18]),  # a chunk repeats the last sentence of the chunk before
        ([" ".join(TWENTY)], 9, [0, 4, 8, 12, 16]),  # no sentence has so few tokens
        (TWENTY, 12, [0, 4, 8, 12, 16]),  # a chunk that ends with a section is not repeated
    ],
)
def test_sentences_stay_whole_and_may_be_repeated_after_a_cut(paragraphs, overlap, first_sentences):
    found = chunks(document(*paragraphs), words, n_tokens=45, overlap=overlap)
    between = " " if len(paragraphs) == 1 else "\n\n"
    assert texts(found) == [between.join(TWENTY[n : n + 4]) for n in first_sentences]


def test_chinese_is_cut_at_its_own_stops():
    sentence = "预算超支百分之六，需要财务审批。"  # 48 bytes
    found = chunks(document(sentence * 6), of_bytes, n_tokens=100, overlap=0)
    assert texts(found) == [sentence * 2] * 3


def test_code_is_cut_at_line_ends():
    lines = [f"    value_{n} = call({n}). Next()" for n in range(40)]
    found = chunks(document("\n".join(lines), kind="code"), words, n_tokens=32, overlap=0)
    for chunk in found:
        assert set(chunk.text.splitlines()) <= set(lines) | {line.strip() for line in lines}
    assert "\n".join(texts(found)).split() == "\n".join(lines).split()


@pytest.mark.parametrize("n_tokens", [64, 256])
def test_a_table_without_sentences_is_cut_between_words(n_tokens):
    """Rows of a table are one sentence to `sentences`; words were cut where none ended just before the middle."""
    row = "| {0} | [CONTRIBUTING.md](../CONTRIBUTING.md#add-a-job-{0}) | `vector_cosine_ops`, `plist`, {0}00 rows |"
    table = "\n".join(row.format(n) for n in range(60))
    found = chunks(document(table), of_demo, n_tokens)
    assert len(found) > 10
    for chunk in found:
        assert set(chunk.text.split()) <= set(table.split())


def test_a_heading_path_that_is_too_long_loses_its_outermost_headings():
    headings = (numbered(40), numbered(9), "inner")
    found = chunks(document("text", headings=headings), words, n_tokens=32)
    assert [chunk.headings for chunk in found] == [headings[1:]]
    assert chunks(document("text", headings=(numbered(40),)), words, n_tokens=32)[0].headings == ()


def test_lines_are_those_of_the_file():
    text = "# Title\n\n" + "\n".join(TWENTY)
    sections = (Section(0, 7, ("Title",), None, 1), Section(9, len(text), ("Title",), None, 3))
    found = chunks(Document(text, sections, "markdown", True), words, n_tokens=45, overlap=12)
    lines = text.split("\n")
    assert all("\n".join(lines[chunk.line - 1 : chunk.last_line]) == chunk.text for chunk in found)
    of_html = chunks(Document(text, sections, "html", False), words, n_tokens=45)
    assert {(chunk.line, chunk.last_line) for chunk in of_html} == {(1, 3), (3, 3)}


def test_a_budget_that_is_too_small_is_refused():
    with pytest.raises(OptionError, match="a chunk must have 32 tokens or more, got 31"):
        chunks(document("a"), words, n_tokens=31)


def test_the_time_grows_with_the_text_alone():
    """Counts the characters that the tokenizer gets, because a test that asserts a time would fail at times."""
    for text in ("word " * 40_000, "字" * 100_000, "a" * 200_000, " ".join(TWENTY) * 200, " \n" * 50_000 + "x"):
        lengths: list[int] = []

        def count(part: str, lengths: list[int] = lengths) -> int:
            lengths.append(len(part))
            return of_bytes(part)

        found = chunks(document(text.strip()), count, n_tokens=256)
        assert sum(lengths) < 16 * len(text)
        assert len(found) >= len(text.strip()) // 255


any_text = st.text(st.sampled_from("ab é字。！. ?\n\n\t-1👍\u0301") | st.characters(codec="utf-8"), max_size=400)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text, sections = "", []
    for part in draw(st.lists(any_text, max_size=6)):
        text += draw(st.sampled_from(["", "\n", " \n\n"]))
        if part.strip():
            headings = draw(st.sampled_from([(), ("A",), ("A", "B b"), ("x" * 300, "B")]))
            page = draw(st.sampled_from([None, 1, 2]))
            sections.append(Section(len(text), len(text) + len(part), headings, page, 1 + text.count("\n")))
        text += part if part.strip() else ""
    return Document(text, tuple(sections), draw(st.sampled_from(["text", "code"])), True)


@given(documents(), st.integers(32, 90), st.sampled_from([0, 8, 32]), st.sampled_from([of_bytes, words, of_demo]))
def test_chunks_hold_what_they_promise(document, n_tokens, overlap, count):
    found = chunks(document, count, n_tokens, overlap)
    covered = set()
    for chunk in found:
        assert document.text[chunk.start : chunk.end] == chunk.text
        assert chunk.text == chunk.text.strip() != ""
        assert count(chunk.embedded) <= n_tokens
        assert chunk.line == 1 + document.text.count("\n", 0, chunk.start)
        assert chunk.last_line == chunk.line + chunk.text.count("\n")
        covered |= set(range(chunk.start, chunk.end))
    assert [chunk.start for chunk in found] == sorted({chunk.start for chunk in found})
    assert not "".join(character for place, character in enumerate(document.text) if place not in covered).strip()
