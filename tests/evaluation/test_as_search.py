"""What is measured is what `search` does: the same first hits in every mode, on the labelled corpus of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import demo
from fake_reranker import fake_reranker
from labelled import QUESTIONS, answers, index_corpus
from planted import opened

from q3e_local import VectorIndex
from q3e_local.evaluation import Column, Evaluation, Question, Questions, evaluate
from q3e_local.search.hits import MODES


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    path = tmp_path_factory.mktemp("labelled") / "corpus.q3e"
    index_corpus(path)
    with VectorIndex(path, demo()) as index:
        yield index


def evaluated(index: VectorIndex, column: Column, by_file: bool = False) -> Evaluation:
    """The corpus's questions. Answers are passages, or the files these are in."""
    labels = [(label.question, label.file) for label in QUESTIONS] if by_file else answers(index)
    asked = Questions(
        tuple(Question(str(number), text, {answer: 1}, f"q:{number}") for number, (text, answer) in enumerate(labels))
    )
    return evaluate(asked, (column,), index=Path(index.path), models=opened(demo(), reranker=fake_reranker()))


def expected(ranks: list[int | None]) -> dict[str, float]:
    """The measures where each question has one answer, at this place among the first ten, or not there."""
    n = len(ranks)
    there = np.array([rank for rank in ranks if rank is not None], float)
    return {
        "recall_at_10": len(there) / n,
        "mrr_at_10": float((1 / there).sum()) / n,
        "ndcg_at_10": float((1 / np.log2(1 + there)).sum()) / n,
    }


def rank(names: list[str | None], answer: str) -> int | None:
    """The place of an answer, each name at its first place; None where it is not among the first ten."""
    places = list(dict.fromkeys(names))[:10]
    return places.index(answer) + 1 if answer in places else None


@pytest.mark.parametrize(
    ("mode", "rerank"), [*((mode, None) for mode in MODES), ("vectors", 20), ("hybrid", 5)], ids=str
)
def test_an_evaluation_measures_the_hits_of_search(index: VectorIndex, mode: str, rerank: int | None) -> None:
    ranks = []
    for question, answer in answers(index):
        reranker = None if rerank is None else fake_reranker()
        hits = index.search(question, 10, mode=mode, rerank=rerank, reranker=reranker).hits
        ranks.append(rank([hit.id for hit in hits], answer))
    (result,) = evaluated(index, Column(mode=mode, rerank=rerank)).results
    for name, value in expected(ranks).items():
        assert result.measures[name] == pytest.approx(value, abs=1e-6), name


def test_where_labels_are_files_the_passages_of_a_file_count_once(index: VectorIndex) -> None:
    ranks = []
    for label in QUESTIONS:
        hits = index.search(label.question, 100, mode="vectors").hits
        ranks.append(rank([Path(hit.file or "").name for hit in hits], label.file))
    (result,) = evaluated(index, Column(), by_file=True).results
    assert result.measures["recall_at_10"] == 1
    for name, value in expected(ranks).items():
        assert result.measures[name] == pytest.approx(value, abs=1e-6), name
