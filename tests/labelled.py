"""The labelled corpus of the tests: questions in two languages, each with the passage that answers it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from command import demo
from paths import TESTS

from q3e_local import VectorIndex
from q3e_local.search.documents import space_of
from q3e_local.search.indexing.folders import index_folders
from q3e_local.search.indexing.tally import Tally

CORPUS = TESTS / "corpus"


class Labelled(NamedTuple):
    """A question, and the words that only the passage which answers it has."""

    file: str
    answer: str
    question: str

    def is_answered_by(self, file: str | None, text: str) -> bool:
        """Whether a passage of this file has the words, wherever its lines break."""
        return Path(file or "").name == self.file and self.answer in " ".join(text.split())


QUESTIONS = [
    Labelled(*line.split("\t")) for line in (CORPUS / "questions.tsv").read_text(encoding="utf-8").splitlines()
]


def index_corpus(path: Path) -> None:
    """Index the corpus with the demo model."""
    embedder = demo()
    index_folders(path, [CORPUS], lambda space: (embedder, space_of(embedder)), Tally(), globs=["*.md"])


def answers(index: VectorIndex) -> Iterator[tuple[str, str]]:
    """Each question with the id of the passage that answers it."""
    entries = [entry for window in index.entries() for entry in window.entries]
    for label in QUESTIONS:
        (answer,) = [entry.id for entry in entries if label.is_answered_by(entry.file, entry.chunk.text)]
        yield label.question, answer
