"""Labelled data from a file or a BEIR folder: `read_data`, `read_corpus`.

A BEIR folder has corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv (https://github.com/beir-cellar/beir/wiki). Knows
names of fields; leaves formats to records.py, and what a label stands for to judging.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from q3e_local import reading
from q3e_local.errors import InputError, OptionError
from q3e_local.evaluation.data import (
    Corpus,
    Data,
    Document,
    LabelledText,
    LabelledTexts,
    Pair,
    Pairs,
    Question,
    Questions,
)
from q3e_local.evaluation.records import Record, read_records, shown
from q3e_local.wording.counts import counted

QUESTIONS_MIN = 2  # of one question no interval can be had
_IDS = ("_id", "id")
_QUERY, _FIRST, _SECOND, _SCORE, _LABEL = "query", "sentence1", "sentence2", "score", "label"
_TITLE, _TEXT = "title", "text"
_SPLITS = ("train", "test")
_ASKED = (
    "questions have 'query' and 'relevant', pairs 'sentence1', 'sentence2' and 'score', labelled texts 'text' and "
    "'label'"
)


def is_beir(path: Path) -> bool:
    """Whether a folder has questions and labels as BEIR lays them out."""
    return (path / "queries.jsonl").is_file()


def read_data(path: Path, split: str | None = None, *, is_labelled: bool = True) -> Data:
    """The labelled questions, pairs or texts of a file, which its fields tell apart; of a BEIR folder its questions.

    `split` names the qrels of a BEIR folder; None: "test", or the only ones. Without `is_labelled` questions need no
    labels, and a BEIR folder no qrels. Raises InputError, which names the line, OptionError for a split of what has
    none.
    """
    if path.is_dir():
        if not is_beir(path):
            raise InputError(
                f"{path} has no queries.jsonl, so it is no BEIR folder; name a file of labelled questions"
            )
        return _beir(path, split, is_labelled)
    if split is not None:
        raise OptionError(f"a split is one of a BEIR folder's qrels, and {path} is a file; leave it out", "split")
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    records = list(read_records(path))
    if not records:
        raise InputError(f"{path} has no records in it; {_ASKED}")
    fields = records[0].fields
    if _QUERY in fields:
        return _questions(path, records, is_labelled)
    if _FIRST in fields:
        return _pairs(path, records)
    if _TEXT in fields and _LABEL in fields:
        return _labelled_texts(path, records)
    raise InputError(f"{records[0].place} has the fields {', '.join(fields) or '(none)'}; {_ASKED}")


def read_corpus(path: Path) -> Corpus:
    """The texts of a JSON Lines file (`_id` or `id`, `title`, `text`), of a BEIR folder, or of the files of a folder.

    A file of another folder is one text, whose id is its path in the folder. Raises InputError.
    """
    if path.is_dir() and (path / "corpus.jsonl").is_file():
        path = path / "corpus.jsonl"
    if path.is_dir():
        documents = list(_files(path))
    elif path.exists():
        documents = [_document(record) for record in read_records(path)]
    else:
        raise InputError(f"there is no file or folder {path}")
    if not documents:
        raise InputError(f"{path} has no texts in it")
    _check_once(path, (document.id for document in documents), "text")
    return Corpus(str(path), tuple(documents))


def _questions(path: Path, records: Iterable[Record], is_labelled: bool) -> Questions:
    found = []
    for number, record in enumerate(records, 1):
        name = record.name(*_IDS) if any(field in record.fields for field in _IDS) else str(number)
        relevant = _relevant(record) if is_labelled else {}
        found.append(Question(name, record.text(_QUERY), relevant, record.place))
    return _checked(path, found)


def _relevant(record: Record) -> dict[str, int]:
    """The grades of a question's labels: of a list each is 1, an object has its own."""
    written: Any = record.fields.get("relevant")
    given: Any = [written] if isinstance(written, str) else written
    if isinstance(given, list) and all(isinstance(label, str | int) for label in given):
        given = dict.fromkeys(map(str, given), 1)
    is_graded = isinstance(given, dict) and all(type(grade) is int and grade >= 0 for grade in given.values())
    if not is_graded or not any(given.values()):
        raise InputError(
            f"{record.place}: 'relevant' must be the ids or paths of what answers the question, as a list, or as an "
            f"object with grades above 0, got {shown(written) if 'relevant' in record.fields else 'none'}; without "
            "labels there is --agree"
        )
    return dict(given)


def _beir(folder: Path, split: str | None, is_labelled: bool) -> Questions:
    path = folder / "queries.jsonl"
    texts = list(read_records(path))
    by_name = {record.name(*_IDS): record for record in texts}
    if len(by_name) < len(texts):
        _check_once(path, (record.name(*_IDS) for record in texts), "question")
    if not is_labelled and not any((folder / "qrels").glob("*.tsv")):
        unlabelled = [Question(name, each.text(_TEXT), {}, each.place) for name, each in by_name.items()]
        return _checked(path, unlabelled)
    qrels = _qrels_file(folder, split)
    grades: dict[str, dict[str, int]] = {}
    for place, question, document, grade in _qrels(qrels):
        if question not in by_name:
            raise InputError(f"{place}: there is no question {question!r} in {path}")
        of_question = grades.setdefault(question, {})
        if document in of_question:
            raise InputError(f"{place}: question {question!r} has a grade for {document!r} already")
        of_question[document] = grade
    judged = [name for name, of_question in grades.items() if any(of_question.values())]
    found = [
        Question(name, by_name[name].text(_TEXT), grades[name], f"{qrels}: question {name!r}") for name in judged
    ]
    n_left = len(grades) - len(judged)
    note = f"{counted(n_left, 'question')} of {qrels} left out: nothing that answers it is named"
    return _checked(qrels, found, (note,) if n_left else ())


def _qrels_file(folder: Path, split: str | None) -> Path:
    names = sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))
    if not names:
        raise InputError(f"{folder} has no qrels/*.tsv, which say what answers which question")
    if split is None:
        split = names[0] if len(names) == 1 else "test"
    if split not in names:
        raise OptionError(f"split must be one of the qrels of {folder}: {', '.join(names)}, got {split}", "split")
    return folder / "qrels" / f"{split}.tsv"


def _qrels(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """Place, question, document and grade of each line. A first line whose grade is no number is the header."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        cells = line.split("\t")
        if not line.strip() or (number == 1 and not _is_whole(cells[-1])):
            continue
        if len(cells) != 3 or not _is_whole(cells[2]):
            raise InputError(
                f"{path}:{number} must be a question's id, a text's id and a whole number, with tabs between them"
            )
        yield f"{path}:{number}", cells[0], cells[1], int(cells[2])


def _is_whole(cell: str) -> bool:
    return cell.strip().isdecimal()


def _checked(path: Path, questions: list[Question], notes: tuple[str, ...] = ()) -> Questions:
    """Raises InputError for too few questions, or an id that is there twice."""
    if len(questions) < QUESTIONS_MIN:
        raise InputError(
            f"{path} has {counted(len(questions), 'question')}; to compare columns takes at least {QUESTIONS_MIN}"
        )
    _check_once(path, (question.id for question in questions), "question")
    return Questions(tuple(questions), notes)


def _pairs(path: Path, records: Iterable[Record]) -> Pairs:
    found = [Pair(each.text(_FIRST), each.text(_SECOND), each.number(_SCORE), each.place) for each in records]
    if len({pair.score for pair in found}) < 2:
        raise InputError(f"{path} has {counted(len(found), 'pair')} of one score; to rank takes two scores at least")
    return Pairs(tuple(found))


def _labelled_texts(path: Path, records: Iterable[Record]) -> LabelledTexts:
    found = []
    for record in records:
        split = record.name("split") if record.fields.get("split") else None
        if split not in (*_SPLITS, None):
            raise InputError(f"{record.place}: 'split' must be {' or '.join(_SPLITS)}, got {split!r}")
        found.append(LabelledText(record.text(_TEXT), record.name(_LABEL), split, record.place))
    if len({text.label for text in found}) < 2:
        raise InputError(f"{path} has texts of one label; to tell classes apart takes two at least")
    return LabelledTexts(tuple(found))


def _document(record: Record) -> Document:
    """A text of a corpus. A title stands before it, with a space between them, as MTEB joins the two.

    Both may be empty: some corpora of BEIR have such lines, which are embedded as MTEB embeds them.
    """
    if not {_TITLE, _TEXT} & set(record.fields):
        raise InputError(f"{record.place} has no {_TITLE!r} or {_TEXT!r}; its fields are {', '.join(record.fields)}")
    text = f"{record.optional_text(_TITLE)} {record.optional_text(_TEXT)}".strip()
    return Document(record.name(*_IDS), text)


def _files(folder: Path) -> Iterator[Document]:
    for found in reading.walk([folder]):
        if isinstance(found, reading.Skipped):
            if found.is_expected:
                continue
            raise InputError(f"{found.path}: {found.reason}; take it out of the folder, or index the folder first")
        try:
            text = reading.read(found.path).text
        except InputError as error:
            raise InputError(f"{found.path} {error}") from None
        if text.strip():
            yield Document(found.path.relative_to(folder).as_posix(), text)


def _check_once(path: Path, names: Iterable[str], what: str) -> None:
    """Raise InputError for a name that is there twice: nobody could say which of the two a label means."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{path} has the id {name!r} twice; give each {what} an id of its own")
        seen.add(name)
