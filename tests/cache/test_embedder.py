"""An embedder with a cache: the vectors of a text are the same to the last bit, without tokenizing or decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake import FakeEngine, seen
from hypothesis import given
from hypothesis import strategies as st

import q3e_local
from q3e_local.cache import Entry, Key
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.prompts import Prompts
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import BadVectorError, InvalidTextError, OptionError, TextError, TextTooLongError
from q3e_local.files import cache_folder

TEXTS = ["three", "a", "a longer one", "", "a" * 30, "zwölf", "e\u0301te\u0301"]


class Memory:
    """A cache in a dict. `questions` has how many keys each call asked for."""

    where = "memory"

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}
        self.questions: list[int] = []
        self.closed = False

    def get_many(self, keys: list[Key]) -> list[Entry | None]:
        self.questions.append(len(keys))
        return [self.entries.get(key) for key in keys]

    def put_many(self, items: list[tuple[Key, Entry]]) -> None:
        self.entries |= {key: replace(entry, pooled=entry.pooled.copy()) for key, entry in items}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def make(memory: Memory) -> Callable[..., Embedder]:
    def made(prompts: Prompts = Prompts(), **engine: Any) -> Embedder:  # noqa: B008
        return Embedder(FakeEngine(**engine), "fake", prompts, cache=memory)

    return made


def rows(vectors: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in vectors]


@pytest.mark.parametrize("dim", [None, 64, 33, 32])
def test_the_second_time_nothing_is_tokenized_or_decoded_and_all_is_the_same(make, dim):
    plain = Embedder(FakeEngine(), "fake").embed_documents(TEXTS, dim)
    first = make().embed_documents(TEXTS, dim)
    embedder = make()
    second = embedder.embed_documents(TEXTS, dim)
    assert embedder.engine.texts == embedder.engine.batches == []
    assert rows(plain.vectors) == rows(first.vectors) == rows(second.vectors)
    assert plain.prompt_tokens == first.prompt_tokens == second.prompt_tokens
    assert (plain.space, plain.truncated) == (second.space, second.truncated)
    assert set(plain.cached) == set(first.cached) == {False}
    assert set(second.cached) == {True}
    second.vectors[:] = 0  # the vectors of a result are the caller's: the cache keeps others
    assert rows(make().embed_documents(TEXTS, dim).vectors) == rows(plain.vectors)


@pytest.mark.parametrize(("first", "second"), [(64, 32), (32, 64), (40, 50)])
def test_any_dim_is_served_from_any_other(make, first, second):
    make().embed_documents(TEXTS, first)
    embedder = make()
    result = embedder.embed_documents(TEXTS, second)
    assert embedder.engine.n_decodes == 0
    assert rows(result.vectors) == rows(Embedder(FakeEngine(), "fake").embed_documents(TEXTS, second).vectors)


def test_a_vector_that_the_engine_computed_coarsely_is_handed_out_and_not_kept(make, memory):
    coarse = make()
    coarse.engine.n_keepable = 6  # "three" and its end token
    assert rows(coarse.embed_documents(TEXTS).vectors) == rows(
        Embedder(FakeEngine(), "fake").embed_documents(TEXTS).vectors
    )
    kept = [len(text.encode()) < 6 for text in TEXTS[:-1]]
    assert make().embed_documents(TEXTS[:-1]).cached == tuple(kept)
    assert coarse.embed_documents(["three"]).cached == (True,)  # what was kept before is good


def test_only_what_is_new_is_computed_and_the_order_is_the_callers(make):
    make().embed_documents(TEXTS[::2])
    embedder = make()
    result = embedder.embed_documents(TEXTS)
    assert result.cached == tuple(place % 2 == 0 for place in range(len(TEXTS)))
    assert embedder.engine.texts == ["a", "", "zwölf"]
    assert rows(result.vectors) == rows(Embedder(FakeEngine(), "fake").embed_documents(TEXTS).vectors)


@given(
    before=st.lists(st.integers(0, 40), max_size=30),
    lengths=st.lists(st.integers(0, 40), max_size=60),
    limit=st.integers(1, 45),
    truncate=st.booleans(),
)
def test_any_mix_gives_what_it_gives_without_a_cache(before, lengths, limit, truncate):
    memory = Memory()

    def outcome(embedder: Embedder, lengths: list[int], limit: int, truncate: bool) -> list[Any]:
        request = EmbedRequest(["x" * n for n in lengths], truncate=truncate, max_tokens=limit)
        return [
            str(got) if isinstance(got, TextError) else (got.vector.tobytes(), got.prompt_tokens, got.truncated)
            for got in embedder.stream(request)
        ]

    for of_run, at, cut in ((before, 20, True), (lengths, limit, truncate), (lengths, limit, not truncate)):
        plain = outcome(Embedder(FakeEngine(), "fake"), of_run, at, cut)
        assert outcome(Embedder(FakeEngine(), "fake", cache=memory), of_run, at, cut) == plain
        again = Embedder(FakeEngine(), "fake", cache=memory)
        assert outcome(again, of_run, at, cut) == plain
        assert again.engine.n_decodes == 0


def test_queries_and_documents_and_instructions_are_kept_apart(make):
    embedder = make()
    embedder.embed_documents(["text"])
    for request in ({}, {"task": "code"}, {"instruction": "find it"}):
        assert embedder.embed_query("text", **request).cached == (False,)
        assert embedder.embed_query("text", **request).cached == (True,)
    # The prompt makes the same ids of another text; spaces with other prompts are kept apart all the same.
    prompts = Prompts(query="a {text}")
    assert make(prompts).embed_query("b").cached == (False,)
    assert make(prompts).embed_documents(["a b"]).cached == (False,)


def test_another_model_has_another_vector(make, monkeypatch):
    make().embed_documents(["text"])
    monkeypatch.setattr(FakeEngine, "digest", "fb" * 32)
    assert make().embed_documents(["text"]).cached == (False,)


def test_two_spellings_of_a_text_in_unicode_share_an_entry(make):
    make().embed_documents(["e\u0301"])
    assert make().embed_documents(["é"]).cached == (True,)


# Whether a text of 9 tokens that was embedded whole or cut to 5 tokens comes from the cache.
@pytest.mark.parametrize(
    ("kept_at", "limit", "truncate", "is_served"),
    [
        (None, 9, True, True), (None, 9, False, True), (None, 10, True, True), (None, 1000, False, True),
        (None, 8, True, False), (None, 8, False, False), (None, 1, True, False),
        (5, 5, True, True), (5, 5, False, False), (5, 4, True, False), (5, 6, True, False), (5, 9, False, False),
        (5, 1000, True, False),
    ],
)  # fmt: skip
def test_an_entry_serves_only_requests_it_is_right_for(make, kept_at, limit, truncate, is_served):
    make().embed_documents(["12345678"], max_tokens=kept_at, truncate=True)
    (got,) = make().stream(EmbedRequest(["12345678"], max_tokens=limit, truncate=truncate))
    if limit < 9 and not truncate:
        assert isinstance(got, TextTooLongError)
        return
    assert (got.cached, got.truncated, seen(got.vector)) == (is_served, limit < 9, (256, min(limit, 9)))


def test_errors_name_their_places_among_texts_that_are_kept(make):
    texts = ["one", "two", "three", "four", "five"]
    make().embed_documents(texts)
    given = ["one", "\ud800", "two", "bad text", "three", "x" * 50, "four", 7, "five"]
    embedder = make(bad="bad")
    results = list(embedder.stream(EmbedRequest(given, max_tokens=30)))
    failed = {error.index: type(error) for error in results if isinstance(error, TextError)}
    assert failed == {1: InvalidTextError, 3: BadVectorError, 5: TextTooLongError, 7: InvalidTextError}
    assert [place for place, got in enumerate(results) if isinstance(got, TextError)] == list(failed)
    assert [got.cached for got in results if not isinstance(got, TextError)] == [True] * 5
    assert [got.cached for got in make().stream(EmbedRequest(["bad text"]))] == [False], "a failure is not kept"


def test_a_vector_that_is_cut_to_zeros_is_an_error_each_time(make, memory):
    make().embed_documents(["text"])
    ((key, kept),) = memory.entries.items()
    memory.entries[key] = Entry(np.roll(kept.pooled, 40), kept.prompt_tokens)
    embedder = make()
    with pytest.raises(BadVectorError, match="text 1: the first 32 numbers of its vector are all 0; raise dim"):
        embedder.embed_documents(["other", "text"], 32)
    assert embedder.embed_documents(["other", "text"]).cached == (True, True)


def test_a_text_that_comes_twice_is_computed_once_and_kept_once(make, memory):
    embedder = make()
    result = embedder.embed_documents(["same"] * 5 + ["other"])
    assert sum(len(batch) for batch in embedder.engine.batches) == len(memory.entries) == 2
    assert result.cached == (False,) * 6
    assert make().embed_documents(["same"] * 5).cached == (True,) * 5


def test_a_thousand_kept_texts_are_a_few_questions(make, memory):
    texts = [f"text {number}" for number in range(3000)]
    make().embed_documents(texts)
    del memory.questions[:]
    assert all(make().embed_documents(texts).cached)
    assert sum(memory.questions) == 3000
    assert len(memory.questions) <= 10


def test_reading_ahead_is_bounded(make):
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"{taken} " * 40

    for _ in range(2):
        taken = 0
        stream = make().stream(EmbedRequest(endless()))
        next(stream)
        assert taken < 20
        stream.close()


def test_progress_counts_the_texts_from_the_cache_too(make):
    told: list[tuple[int, int]] = []
    make().embed_documents(TEXTS[:3])
    result = make().embed_documents(TEXTS, progress=lambda *done: told.append(done))
    assert told[-1] == (len(TEXTS), sum(result.prompt_tokens))


def test_closing_closes_the_cache(make, memory):
    with make():
        pass
    assert memory.closed


def test_load_with_a_cache(tmp_path):
    text, path = "What did we decide?", tmp_path / "mine.sqlite"
    with q3e_local.load("demo", n_threads=1) as embedder:
        plain = embedder.embed_query(text, 64)
    assert not cache_folder().exists()
    for where, is_there in ((path, path), (True, cache_folder() / "vectors.sqlite")):
        for was_there in (False, True):
            with q3e_local.load("demo", n_threads=1, cache=where) as embedder:
                result = embedder.embed_query(text, 64)
            assert result.cached == (was_there,)
            assert rows(result.vectors) == rows(plain.vectors)
        assert is_there.exists()
    with q3e_local.load("demo", n_threads=1, cache="off") as embedder:
        assert embedder.embed_query(text, 64).cached == (False,)


def test_load_refuses_what_is_no_cache_before_it_loads():
    with pytest.raises(OptionError, match="redis://"):
        q3e_local.load("demo", cache="http://127.0.0.1")
