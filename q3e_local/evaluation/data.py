"""What a model is measured on: labelled questions, pairs of sentences with scores, labelled texts, and a corpus.

Frozen records. Knows nothing of the files they come from, nor of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["retrieval", "sts", "classification", "clustering"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Question:
    """What somebody asks, and what answers it.

    `relevant` has the grade of each passage or file that was judged: 0 for what is no answer, higher is better; where
    nobody graded, 1. It is empty where nobody judged. `place` is where the question stands, for errors.
    """

    id: str
    text: str
    relevant: Mapping[str, int]
    place: str


@dataclass(frozen=True)
class Questions:
    """Questions, of which each id is there once."""

    questions: tuple[Question, ...]
    notes: tuple[str, ...] = ()  # what was left out while they were read


@dataclass(frozen=True)
class Pair:
    """Two sentences, and how much alike people found them: higher is more alike, on any scale."""

    first: str
    second: str
    score: float
    place: str


@dataclass(frozen=True)
class Pairs:
    """Pairs whose scores are not all equal."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class LabelledText:
    """A text and its class. `split` is "train" or "test"; None: nobody said."""

    text: str
    label: str
    split: str | None
    place: str


@dataclass(frozen=True)
class LabelledTexts:
    """Texts of two classes or more."""

    texts: tuple[LabelledText, ...]


Data = Questions | Pairs | LabelledTexts


@dataclass(frozen=True)
class Document:
    """A text of a corpus; `text` has the title before it, where there is one."""

    id: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents, of which each id is there once. `name` is what errors and reports call the corpus."""

    name: str
    documents: tuple[Document, ...]
