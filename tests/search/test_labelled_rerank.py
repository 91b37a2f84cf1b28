"""Two stages are better than one: of the labelled questions, more have their answer first when the demo's reranker
has read the first hits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command import demo
from paths import TESTS

import q3e_local
from q3e_local import Reranker, VectorIndex
from q3e_local.search.documents import space_of
from q3e_local.search.hits import Hit
from q3e_local.search.indexing.folders import index_folders
from q3e_local.search.indexing.tally import Tally

CORPUS = TESTS / "corpus"
QUESTIONS = [line.split("\t") for line in (CORPUS / "questions.tsv").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    path = tmp_path_factory.mktemp("labelled") / "corpus.q3e"
    embedder = demo()
    index_folders(path, [CORPUS], lambda space: (embedder, space_of(embedder)), Tally(), globs=["*.md"])
    with VectorIndex(path, embedder) as index:
        yield index


def answered_first(index: VectorIndex, reranker: Reranker | None) -> int:
    """How many questions have their answer in the first hit of ten by meaning alone."""

    def answers(hit: Hit, file: str, answer: str) -> bool:
        return Path(hit.file or "").name == file and answer in " ".join(hit.text.split())

    n_candidates = None if reranker is None else 10
    firsts = [
        index.search(question, 10, mode="vectors", rerank=n_candidates, reranker=reranker).hits[0]
        for _, _, question in QUESTIONS
    ]
    return sum(answers(hit, file, answer) for hit, (file, answer, _) in zip(firsts, QUESTIONS, strict=True))


def test_two_stages_are_better_than_one(index: VectorIndex) -> None:
    with q3e_local.load_reranker("demo-reranker") as reranker:
        assert answered_first(index, reranker) > answered_first(index, None)
