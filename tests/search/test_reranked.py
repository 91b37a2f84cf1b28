"""Two stages of a search: which candidates are read, in which order they come out, and what a limit of time does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import rerankers
from fake_reranker import FakeRerankEngine, fake_reranker
from made_indexes import record

from q3e_local import EngineConfig, VectorIndex
from q3e_local.cache.sqlite import SqliteCache
from q3e_local.errors import OptionError
from q3e_local.llama.engine import LlamaEngine
from q3e_local.reranking.reranker import Reranker
from q3e_local.search.database.records import Chunk
from q3e_local.search.hits import Found, Hit
from q3e_local.search.reranked import N_CANDIDATES, SecondStage, groups, rerank
from q3e_local.vectors import finish

DIM = 32


def hits(*texts: str) -> list[Hit]:
    return [Hit(f"h{place}", 1 - place / 10, text) for place, text in enumerate(texts, 1)]


def read(texts: Sequence[str]) -> list[float]:
    """The number that a text is."""
    return [float(text) for text in texts]


def summary(found: Sequence[Hit]) -> list[tuple[str, int | None, bool]]:
    """Of each hit its id, its place before, and whether it was read."""
    return [(hit.id, hit.rank_before, hit.rerank is not None) for hit in found]


class Clock:
    """A clock that goes on by a second for each text that is read."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def read(self, texts: Sequence[str]) -> list[float]:
        self.now += len(texts)
        return [float(len(text)) for text in texts]


# The order


def test_the_first_hits_are_ordered_by_what_was_read_and_the_rest_follows_as_before() -> None:
    before = hits("0", "-2", "5", "5", "9")
    found = rerank(before, 4, read)
    assert summary(found) == [
        ("h3", 3, True), ("h4", 4, True), ("h1", 1, True), ("h2", 2, True), ("h5", 5, False),
    ]  # fmt: skip
    assert [hit.rerank for hit in found] == pytest.approx(
        [1 / (1 + math.exp(-5))] * 2 + [0.5, 1 / (1 + math.exp(2)), None]
    )
    assert [hit.score for hit in found] == [0.7, 0.6, 0.9, 0.8, 0.5]  # stays the cosine
    assert before == hits("0", "-2", "5", "5", "9")


def test_logits_that_are_one_probability_keep_their_order() -> None:
    found = rerank(hits("40", "50"), 2, read)
    assert [(hit.id, hit.rerank) for hit in found] == [("h2", 1.0), ("h1", 1.0)]


def test_nothing_is_read_of_nothing() -> None:
    def fails(texts: Sequence[str]) -> list[float]:
        raise AssertionError(texts)

    assert rerank([], 10, fails) == ()
    assert rerank([], 10, fails, seconds=1) == ()


def test_a_reranker_reads_the_headings_too() -> None:
    seen: list[str] = []

    def remember(texts: Sequence[str]) -> list[float]:
        seen.extend(texts)
        return [0.0] * len(texts)

    rerank([Hit("a", 1, "The pool.", headings=("Outage", "Cause")), Hit("b", 1, "Bare.")], 2, remember)
    assert seen == ["Outage > Cause\nThe pool.", "Bare."]
    assert seen[0] == Chunk("The pool.", headings=("Outage", "Cause")).embedded


# The limit of time


@pytest.mark.parametrize(("seconds", "n_read"), [(0.5, 1), (1, 1), (1.5, 2), (3, 3), (4.5, 4), (60, 4), (None, 4)])
def test_candidates_are_read_until_the_time_is_up(seconds: float | None, n_read: int) -> None:
    """Each takes a second; the one that is being read when the time is up is read to its end."""
    clock = Clock()
    long = ["x" * n for n in (1500, 1600, 1700, 1800, 9000)]  # the later the better
    found = rerank(hits(*long), 4, clock.read, seconds, clock)
    assert clock.now == 100 + n_read
    order = [*range(n_read, 0, -1), *range(n_read + 1, 6)]
    assert summary(found) == [(f"h{place}", place, place <= n_read) for place in order]


def test_with_a_limit_short_candidates_are_read_together_and_long_ones_alone() -> None:
    texts = ["a" * 300, "b" * 700, "c", "d" * 1000, "e" * 5000, "f", "g"]
    read = [[text[0] for text in group] for group in groups(texts, 60)]
    assert read == [["a", "b"], ["c"], ["d"], ["e"], ["f", "g"]]
    assert [len(group) for group in groups(texts, None)] == [7]


# VectorIndex


TEXTS = {"a": "one??", "b": "two!", "c": "three?", "d": "four!!", "e": "five!!!"}


@pytest.fixture
def index(path: Path) -> Iterator[VectorIndex]:
    """Five texts, the earlier the nearer to `a`."""
    vectors = np.zeros((5, DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = 1, range(5)
    with VectorIndex(path, dim=DIM) as index:
        index.add_vectors([f"budget {text}" for text in TEXTS.values()], finish(vectors), list(TEXTS))
        yield index


def found(index: VectorIndex, k: int = 5, **options: object) -> list[str]:
    return [hit.id for hit in index.search("budget", k, mode="words", **options)]


def test_an_index_has_its_first_hits_read(index: VectorIndex) -> None:
    before = found(index)
    by_eye = ["e", "d", "b", "c", "a"]
    assert before != by_eye
    reranker = fake_reranker()
    assert found(index, reranker=reranker) == by_eye
    assert sorted(reranker.engine.read) == sorted(f"budget {text}" for text in TEXTS.values())
    assert found(index, 2, reranker=reranker, rerank=True) == ["e", "d"]
    first = sorted(before[:3], key=by_eye.index)
    assert found(index, 5, reranker=reranker, rerank=3) == [*first, *before[3:]]
    assert found(index, 2, reranker=reranker, rerank=3) == first[:2]
    assert found(index, reranker=reranker, rerank=False) == before
    assert N_CANDIDATES == 10


def test_found_says_what_was_done(index: VectorIndex) -> None:
    before = found(index)
    told: list[tuple[int, int]] = []
    result = index.search(
        "budget", 1, mode="words", reranker=fake_reranker(), rerank=4,
        rerank_progress=lambda n_read, n: told.append((n_read, n)),
    )  # fmt: skip
    assert (told[0], told[-1]) == ((0, 4), (4, 4))
    assert result.reranker == "fake-reranker"
    assert "second stage: fake-reranker read 4 of 4 candidates" in result.explained
    (order,) = [line for line in result.explained if line.startswith("new order")]
    assert f": {result.hits[0].rank_before} has {result.hits[0].rerank:.3f}, " in order
    assert result.hits[0].id == before[result.hits[0].rank_before - 1]
    assert index.search("budget", mode="words").reranker is None


def test_the_question_and_its_instruction_reach_the_reranker(index: VectorIndex) -> None:
    reranker = fake_reranker()
    found(index, 1, reranker=reranker, rerank=1, instruction="Find what was paid")
    found(index, 1, reranker=reranker, rerank=1, task="code")
    assert "<Instruct>: Find what was paid\n<Query>: budget\n<Document>: budget" in reranker.engine.prompts[0]
    assert "<Instruct>: Given a question about coding" in reranker.engine.prompts[1]


def test_the_headings_of_a_file_are_read(index: VectorIndex) -> None:
    chunk = Chunk("budget of it", headings=("Money", "Plan"))
    index.database.replace_file(record("notes.md"), [chunk], finish(np.ones((1, DIM), np.float32)))
    reranker = fake_reranker()
    found(index, 10, reranker=reranker)
    assert "Money > Plan\nbudget of it" in reranker.engine.read


def test_pairs_that_were_read_before_come_from_the_cache(index: VectorIndex, tmp_path: Path) -> None:
    with Reranker(FakeRerankEngine(), "fake", cache=SqliteCache(tmp_path / "pairs.sqlite", 10**9)) as reranker:
        first = found(index, reranker=reranker)
        assert len(reranker.engine.read) == 5
        assert found(index, reranker=reranker) == first
        assert found(index, reranker=reranker, rerank_seconds=60) == first
        assert len(reranker.engine.read) == 5
        index.search("budget?", mode="words", reranker=reranker)  # another question
        assert len(reranker.engine.read) == 10


def test_however_few_are_read_at_a_time_the_question_is_shared(path: Path) -> None:
    """The engine keeps what it computed of a shared beginning: all before the document but the space, which a real
    tokenizer joins to the document's first word.
    """
    with VectorIndex(path, dim=DIM) as index:
        index.add_vectors([f"budget {n} {'x ' * 600}" for n in range(4)], np.eye(4, DIM))
        reranker = fake_reranker(n_ctx_max=4000)
        found(index, reranker=reranker, rerank_seconds=60)
    n_shared = reranker.engine.prompts[0].index("<Document>:") + len("<Document>:")
    assert reranker.engine.prefixes == [[n_shared]] * 4


def test_a_real_engine_orders_as_the_reference_does(path: Path, tmp_path: Path) -> None:
    texts = [f"The budget of {name} is {n} euros." for n, name in enumerate(("oak", "garden", "kitchen", "pool"), 3)]
    file = rerankers.write(tmp_path / "tiny-reranker.gguf", "cls")
    with VectorIndex(path, dim=DIM) as index, Reranker(LlamaEngine(file), "tiny") as reranker:
        index.add_vectors(texts, np.eye(4, DIM))
        logits = {text: rerankers.logit("cls", rerankers.ids("budget", text)) for text in texts}
        for seconds in (None, 60):
            hits = index.search("budget", mode="words", reranker=reranker, rerank_seconds=seconds).hits
            assert [hit.text for hit in hits] == sorted(texts, key=lambda text: -logits[text])
            for hit in hits:
                assert hit.rerank == pytest.approx(1 / (1 + math.exp(-logits[hit.text])), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rerank": 5}, "rerank needs a reranker, such as reranker=q3e_local.load_reranker"),
        ({"rerank": True}, "rerank needs a reranker"),
        ({"rerank_seconds": 2}, "rerank_seconds is for a search with rerank"),
        ({"reranker": fake_reranker(), "rerank": 0}, "rerank must be true or between 1 and 10000, got 0"),
        ({"reranker": fake_reranker(), "rerank": 2.0}, r"rerank must be true or between 1 and 10000, got 2\.0"),
        ({"reranker": fake_reranker(), "rerank_seconds": 0}, "rerank_seconds must be a number above 0, got 0"),
        ({"reranker": fake_reranker(), "rerank_seconds": math.nan}, "rerank_seconds must be a number above 0"),
        ({"reranker": fake_reranker(), "rerank_seconds": True}, "rerank_seconds must be a number above 0"),
        ({"reranker": fake_reranker(), "task": "cooking"}, "unknown task 'cooking'"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(index: VectorIndex, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        index.search("budget", mode="words", **options)


def test_candidates_that_were_cut_are_counted(tmp_path: Path) -> None:
    file = rerankers.write(tmp_path / "tiny-reranker.gguf", "cls")
    with Reranker(LlamaEngine(file, EngineConfig(n_ctx_max=220)), "tiny") as reranker:
        found = SecondStage(reranker).applied(Found(tuple(hits("short", "long text " * 99)), "vectors"), "who?", 2)
    assert "1 candidate cut to the reranker's limit" in found.explained
