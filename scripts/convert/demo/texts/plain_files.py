"""Readers of texts in one language: conversations in YAML and tables of SQLite."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from lines import Language, Line, Pair, Sentence

SAYING = re.compile(r"^(?:- |  )- (.+)$", re.M)


def conversations(tree: Path, files: dict[Language, str]) -> Iterator[Sentence]:
    """What is said in conversations: lists of lists in YAML, of one line each."""
    for language, pattern in files.items():
        for path in sorted(tree.glob(pattern)):
            for saying in SAYING.findall(path.read_text(encoding="utf-8")):
                yield Sentence(language, saying.strip("'\""))


def table(tree: Path, files: str, language: Language, alone: str, headed: str) -> Iterator[Line]:
    """Texts of a database: one query gives them alone, another gives a title and a text."""
    for path in sorted(tree.glob(files)):
        with closing(sqlite3.connect(path)) as database:
            for (text,) in database.execute(alone):
                yield Sentence(language, text)
            for title, text in database.execute(headed):
                yield Pair("title", language, title, language, text)
