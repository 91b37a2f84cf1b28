"""What a label stands for: a passage, a file by any end of its path, lines of a file; and what stands for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from q3e_local.errors import InputError
from q3e_local.evaluation import Question
from q3e_local.evaluation.judging import Judged, judge
from q3e_local.evaluation.passages import Passages, of_index
from q3e_local.search.database import Database
from q3e_local.search.database.records import Chunk, FileRecord, IndexSpace

# Of each file the first and last lines of its passages, of which the second begins before the first ends.
FILES = {
    "/home/me/notes/a.md": [(1, 10), (9, 20)],
    "/home/me/notes/sub/b.md": [(1, 5)],
    "/home/me/other/b.md": [(1, 5)],
    "/home/me/notes/page.pdf": [(None, None)],
}


@pytest.fixture
def passages() -> Iterator[Passages]:
    with Database.create("i.q3e", IndexSpace("m", "d1" * 32, 2)) as database:
        for path, places in FILES.items():
            chunks = [Chunk(f"text {place}", line=place[0], last_line=place[1]) for place in places]
            vectors = np.tile(np.array([1, 0], np.float32), (len(chunks), 1))
            database.replace_file(FileRecord(path, 1, 1, "x"), chunks, vectors)
    with of_index(Path("i.q3e")) as found:
        yield found


def judged(passages: Passages, relevant: Mapping[str, int]) -> Judged:
    (found,) = judge([Question("1", "who?", relevant, "q.jsonl:4")], passages)
    return found


A = "/home/me/notes/a.md"


@pytest.mark.parametrize(
    ("label", "names", "by_file"),
    [
        (f"{A}#1", [f"{A}#1"], False),
        ("notes/a.md#1", [f"{A}#1"], False),
        (A, [A], True),
        ("a.md", [A], True),
        ("./notes/a.md", [A], True),
        ("notes\\a.md", [A], True),
        ("sub/b.md", ["/home/me/notes/sub/b.md"], True),
        ("page.pdf", ["/home/me/notes/page.pdf"], True),
        ("a.md:3", [f"{A}#0"], False),
        ("a.md:9", [f"{A}#0", f"{A}#1"], False),
        ("notes/a.md:11-99", [f"{A}#1"], False),
    ],
)
def test_a_label_stands_for_passages_or_for_a_file(passages, label, names, by_file):
    found = judged(passages, {label: 2})
    assert (found.grades, found.by_file) == (dict.fromkeys(names, 2), by_file)


def test_of_two_grades_the_higher_counts(passages):
    assert judged(passages, {"a.md:9": 1, "a.md#1": 3}).grades == {f"{A}#0": 1, f"{A}#1": 3}


def test_hits_are_named_as_the_labels_are(passages):
    of_passages, of_files = judged(passages, {"a.md#1": 1}), judged(passages, {"a.md": 1})
    assert of_passages.names(passages.entries[:3]) == (f"{A}#0", f"{A}#1", "/home/me/notes/sub/b.md#0")
    assert of_files.names(passages.entries[:3]) == (A, "/home/me/notes/sub/b.md")


@pytest.mark.parametrize(
    ("relevant", "said"),
    [
        ({"c.md": 1}, "q.jsonl:4 names 'c.md', neither a passage nor a file of i.q3e; did you mean "),
        ({"a.md#9": 1}, "names 'a.md#9', neither a passage nor a file"),
        ({"a.md:21": 1}, "names 'a.md:21', neither a passage nor a file"),
        ({"page.pdf:1": 1}, "names 'page.pdf:1', neither a passage nor a file"),
        ({"xa.md": 1}, "names 'xa.md', neither a passage nor a file of i.q3e; did you mean a.md"),
        ({"b.md": 1}, "may be /home/me/notes/sub/b.md or /home/me/other/b.md; give more of its path"),
        ({"a.md": 1, "sub/b.md#0": 1}, "q.jsonl:4 has labels of passages and of whole files"),
    ],
)
def test_a_label_that_stands_for_nothing_is_named_with_its_line(passages, relevant, said):
    with pytest.raises(InputError) as error:
        judged(passages, relevant)
    assert said in str(error.value)
