"""What the labels of questions stand for among the passages: `judge`.

A label is the id of a passage; or a file, as `search` prints it, or any end of its path; or lines of a file, as in
`notes/a.md:12` and `notes/a.md:12-20`. Knows names and lines; nothing of rankings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from q3e_local.errors import InputError
from q3e_local.evaluation.data import Question
from q3e_local.evaluation.passages import Passages
from q3e_local.search.database.records import Entry
from q3e_local.search.hits import Hit
from q3e_local.wording.spelling import either, nearest

_LINES = re.compile(r"(?P<file>.+):(?P<first>\d+)(?:-(?P<last>\d+))?")
_PASSAGE = re.compile(r"(?P<file>.+)#(?P<number>\d+)")


@dataclass(frozen=True)
class Judged:
    """A question with the grades of passages, or, where its labels are files, of files."""

    question: Question
    grades: Mapping[str, int]
    by_file: bool

    def names(self, hits: Iterable[Hit | Entry]) -> tuple[str, ...]:
        """What these hits are among the graded: ids, or files, each at its first place."""
        return tuple(dict.fromkeys(hit.file if self.by_file and hit.file is not None else hit.id for hit in hits))


def judge(questions: Iterable[Question], passages: Passages) -> tuple[Judged, ...]:
    """Each question with the passages or files that its labels stand for.

    Raises InputError for a label that stands for nothing here, or for several files, and for a question that has
    labels of both kinds.
    """
    labels = _Labels(passages)
    return tuple(labels.judged(question) for question in questions)


class _Labels:
    def __init__(self, passages: Passages) -> None:
        self._name = passages.name
        self._ids = set(passages.ids)
        self._of_file: dict[str, list[Entry]] = {}
        for entry in passages.entries:
            if entry.file is not None:
                self._of_file.setdefault(entry.file, []).append(entry)
        self._by_last: dict[str, list[str]] = {}  # files, by the last part of their paths
        for file in self._of_file:
            self._by_last.setdefault(file.rpartition("/")[2], []).append(file)

    def judged(self, question: Question) -> Judged:
        of_passages: dict[str, int] = {}
        of_files: dict[str, int] = {}
        for label, grade in question.relevant.items():
            is_file, names = self._meant(question, label)
            grades = of_files if is_file else of_passages
            for name in names:
                grades[name] = max(grade, grades.get(name, 0))
        if of_passages and of_files:
            raise InputError(
                f"{question.place} has labels of passages and of whole files; give a question labels of one kind"
            )
        return Judged(question, of_files or of_passages, bool(of_files))

    def _meant(self, question: Question, label: str) -> tuple[bool, list[str]]:
        """Whether a label stands for a file, and what it stands for."""
        if label in self._ids:
            return False, [label]
        file = self._file(question, label)
        if file is not None:
            return True, [file]
        if (found := _PASSAGE.fullmatch(label)) and (file := self._file(question, found["file"])) is not None:
            name = f"{file}#{found['number']}"
            if name in self._ids:
                return False, [name]
        if (found := _LINES.fullmatch(label)) and (file := self._file(question, found["file"])) is not None:
            first, last = int(found["first"]), int(found["last"] or found["first"])
            names = [entry.id for entry in self._of_file[file] if _has_lines(entry, first, last)]
            if names:
                return False, names
        raise InputError(f"{question.place} names {label!r}, {self._missing(label)}")

    def _file(self, question: Question, label: str) -> str | None:
        """The file whose path is the label, or ends with it."""
        path = label.replace("\\", "/").removeprefix("./")
        named = self._by_last.get(path.rpartition("/")[2], [])
        found = [file for file in named if file == path or file.endswith(f"/{path}")]
        if len(found) > 1:
            raise InputError(
                f"{question.place} names {label!r}, which may be {either(found[:3])}; give more of its path"
            )
        return found[0] if found else None

    def _missing(self, label: str) -> str:
        near = nearest(label, self._by_last or list(self._ids)[:10_000])
        hint = f"; did you mean {either(near)}?" if near else ""
        what = "neither a passage nor a file of" if self._by_last else "which is not in"
        return f"{what} {self._name}{hint}"


def _has_lines(entry: Entry, first: int, last: int) -> bool:
    """Whether a passage has a part of these lines."""
    chunk = entry.chunk
    return chunk.line is not None and chunk.line <= last and first <= (chunk.last_line or chunk.line)
