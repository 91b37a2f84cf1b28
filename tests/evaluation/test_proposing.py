"""Questions that are proposed from an index: what they say, what answers them, and how they are spread."""

from __future__ import annotations

import pytest
from command import write
from indexed_folder import IndexedFolder

from q3e_local.errors import InputError
from q3e_local.evaluation.passages import of_index
from q3e_local.evaluation.proposing import propose

NOTES = {
    "a.md": "# Introduction\n\nFirst a word about who pays for repairs.\n\n## Who pays for the boiler\n\nThe owner.",
    "b.md": "# Introduction\n\nShort. **The office** moves in April, all of it. No.\n\n# 预算是多少钱\n\n十万。",
    "c.txt": "Short.\n\n- The roof leaks over the reading room.",
}


@pytest.fixture
def index(tmp_path) -> IndexedFolder:
    indexed = IndexedFolder(tmp_path)
    write(indexed.folder, NOTES)
    return indexed


def proposed(index: IndexedFolder, n: int) -> dict[str, list[str]]:
    """Each question with the files of the passages that answer it."""
    with of_index(index.db) as passages:
        files = {entry.id: (entry.file or "").rpartition("/")[2] for entry in passages.entries}
        found = propose(passages, n)
    assert all(question.relevant == dict.fromkeys(question.relevant, 1) for question in found)
    return {question.text: [files[name] for name in question.relevant] for question in found}


def test_headings_that_one_file_has_and_first_sentences_are_questions(index):
    index.index()
    found = proposed(index, 100)
    assert found["Who pays for the boiler"] == ["a.md"]
    assert found["预算是多少钱"] == ["b.md"]
    assert found["First a word about who pays for repairs."] == ["a.md"]  # two files have its heading
    assert found["The office moves in April, all of it."] == ["b.md"]
    assert "Introduction" not in found
    assert not [text for text in found if "Short" in text]


def test_the_same_few_are_proposed_each_time_and_of_each_file_one_first(index):
    index.index()
    assert proposed(index, 3) == proposed(index, 3)
    assert len({file for files in proposed(index, 3).values() for file in files}) >= 2
    assert len(proposed(index, 1)) == 1


def test_an_index_without_anything_to_ask(index):
    for name in NOTES:
        (index.folder / name).unlink()
    write(index.folder, {"x.txt": "No."})
    index.index()
    with of_index(index.db) as passages, pytest.raises(InputError, match="no heading and no sentence"):
        propose(passages, 5)
