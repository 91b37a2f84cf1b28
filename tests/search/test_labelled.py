"""A search finds the answers to the questions of a small corpus in two languages.

Each question of the corpus shares words with its answer, so that words alone find it too. The tests check that words
and meaning together find no fewer answers than either alone. Questions that share no word with their answer are those
of scripts/bench/understanding: words that another text has by chance must not hide what meaning finds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from command import demo
from labelled import QUESTIONS, Labelled, index_corpus
from paths import ROOT

import q3e_local
from q3e_local import Reranker, VectorIndex
from q3e_local.search.hits import Mode

K = 3


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    path = tmp_path_factory.mktemp("labelled") / "corpus.q3e"
    index_corpus(path)
    with VectorIndex(path, demo()) as index:
        yield index


@pytest.fixture(scope="module")
def missed(index: VectorIndex) -> dict[Mode, list[Labelled]]:
    """For each mode the questions whose answer is not among the first."""
    modes: tuple[Mode, ...] = ("auto", "hybrid", "vectors", "words")
    return {mode: [label for label in QUESTIONS if not has_answer(index, label, mode)] for mode in modes}


def has_answer(index: VectorIndex, label: Labelled, mode: Mode) -> bool:
    hits = index.search(label.question, K, mode=mode).hits
    return any(label.is_answered_by(hit.file, hit.text) for hit in hits)


def test_the_labels_are_sound(index: VectorIndex) -> None:
    texts = [" ".join(entry.chunk.text.split()) for window in index.entries() for entry in window.entries]
    assert len(texts) >= 35
    for label in QUESTIONS:
        assert sum(label.answer in text for text in texts) == 1, label


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("both", ["auto", "hybrid"])
@pytest.mark.parametrize("alone", ["vectors", "words"])
def test_words_and_meaning_find_no_less_than_either(
    missed: dict[Mode, list[Labelled]], language: str, both: Mode, alone: Mode
) -> None:
    n_missed = {mode: sum(label.file.startswith(language) for label in missed[mode]) for mode in (both, alone)}
    assert n_missed[both] <= n_missed[alone]


def test_most_answers_are_among_the_first(missed: dict[Mode, list[Labelled]]) -> None:
    assert len(missed["auto"]) <= len(QUESTIONS) // 20


@pytest.fixture(scope="module")
def in_other_words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VectorIndex, dict[str, str]]]:
    """An index of 60 texts, and questions in two languages with the id of the text that answers them."""
    path = ROOT / "scripts/bench/understanding/questions.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["split"] == "dev"]
    with VectorIndex(tmp_path_factory.mktemp("other-words") / "texts.q3e", demo()) as index:
        index.add([line["text"] for line in lines], [line["id"] for line in lines])
        yield index, {line[side]: line["id"] for line in lines for side in ("same", "across")}


@pytest.mark.parametrize("k", [1, 3])
def test_words_that_are_shared_by_chance_hide_no_answer(in_other_words, k: int) -> None:
    index, questions = in_other_words
    found: dict[Mode, int] = {
        mode: sum(
            answer in [hit.id for hit in index.search(question, k, mode=mode).hits]
            for question, answer in questions.items()
        )
        for mode in ("vectors", "auto", "hybrid")
    }
    assert found["auto"] >= found["vectors"] - 2
    assert found["hybrid"] < found["auto"]  # so chance does share words


def test_a_search_that_is_left_with_meaning_says_so(in_other_words) -> None:
    index, questions = in_other_words
    facts = "auto: vectors alone, since no chunk shares enough of the query's words"
    searches = [found for question in questions if facts in (found := index.search(question, 3)).explained]
    assert len(searches) > 10
    for found in searches:
        assert found.mode == "vectors"
        assert any(
            re.fullmatch(r"words: 0 of the first \d+ share enough of the query's words", fact)
            for fact in found.explained
        )
        assert [hit.vectors_rank for hit in found.hits] == [1, 2, 3]


def test_two_stages_are_better_than_one(index: VectorIndex) -> None:
    with q3e_local.load_reranker("demo-reranker") as reranker:
        assert n_answered_first(index, reranker) > n_answered_first(index, None)


def n_answered_first(index: VectorIndex, reranker: Reranker | None) -> int:
    """How many questions have their answer in the first of ten hits by meaning alone."""
    options: dict[str, Any] = {"mode": "vectors"} if reranker is None else {"mode": "vectors", "rerank": 10}
    firsts = [index.search(label.question, 10, reranker=reranker, **options).hits[0] for label in QUESTIONS]
    return sum(label.is_answered_by(hit.file, hit.text) for label, hit in zip(QUESTIONS, firsts, strict=True))


def test_a_hit_has_its_places_in_the_rankings_and_its_cosine_in_every_mode(index: VectorIndex) -> None:
    question = QUESTIONS[0].question
    found = {mode: index.search(question, 100, mode=mode).hits for mode in ("hybrid", "vectors", "words")}
    order = {mode: [hit.id for hit in found[mode]] for mode in found}
    cosines = {hit.id: hit.score for hit in found["vectors"]}
    assert set(order["hybrid"]) == set(order["vectors"]) > set(order["words"])
    for hit in found["hybrid"]:
        assert hit.vectors_rank == order["vectors"].index(hit.id) + 1
        assert hit.words_rank == (order["words"].index(hit.id) + 1 if hit.id in order["words"] else None)
    assert all(hit.score == cosines[hit.id] for hit in (*found["hybrid"], *found["words"]))
