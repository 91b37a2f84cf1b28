"""The way of many texts through the engine: in windows and batches, each text once, and the progress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake import FakeEngine, seen

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.prompts import TASKS
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.errors import BadVectorError, InvalidTextError, OptionError, TextError, TextTooLongError


def counted(n: int, read: list[int]) -> Iterator[str]:
    for i in range(n):
        read.append(i)
        yield f"text {i}"


def test_a_stream_gives_results_before_it_has_read_everything_and_reads_no_more_than_it_needs(embedder):
    read: list[int] = []
    stream = embedder.stream(EmbedRequest(counted(10_000, read)))
    assert not read
    for n_given, _ in enumerate(stream, 1):
        # What waits: two batches of 32 tokens, and the text that filled them; a text here has at least 7 tokens.
        # What is done: as much again, behind a text that waits.
        assert len(read) <= n_given + 2 * (2 * 32 / 7 + 1)
        if n_given == 1000:
            break


def test_a_stream_of_many_texts_keeps_the_order_across_windows(embedder):
    items = list(embedder.stream(EmbedRequest("x" * (i % 50) for i in range(1000))))
    assert [seen(item.vector)[1] for item in items if isinstance(item, Embedded)] == [i % 50 + 1 for i in range(1000)]


def test_texts_without_tokens_to_wait_for_do_not_pile_up(embedder):
    read: list[int] = []
    next(embedder.stream(EmbedRequest(None for _ in counted(10_000, read))))
    assert len(read) < 2_000


def test_wrong_options_are_refused_when_the_stream_is_made_not_when_it_is_read(embedder):
    for wrong in ({"dim": 5}, {"max_tokens": 0}, {"kind": "passage"}, {"task": "no such"}, {"texts": "one str"}):
        with pytest.raises(OptionError):
            embedder.stream(EmbedRequest(**{"texts": ["a"]} | wrong))


def test_progress_counts_texts_and_tokens_and_ends_at_all_of_them(engine, embedder):
    reports: list[tuple[int, int]] = []
    texts = ["x" * (i % 20) for i in range(100)]
    result = embedder.embed_documents(texts, progress=lambda *done: reports.append(done))
    assert reports == sorted(reports)
    assert len(reports) == engine.n_decodes
    assert reports[-1] == (100, sum(result.prompt_tokens))


def test_many_queries_have_the_vectors_of_single_queries_and_report_progress(embedder):
    reports: list[tuple[int, int]] = []
    texts = [f"question {i}?" for i in range(20)]
    result = embedder.embed_queries(
        (text for text in texts), dim=40, instruction="Find", max_tokens=33, truncate=True,
        progress=lambda *done: reports.append(done),
    )  # fmt: skip
    alone = [embedder.embed_query(text, 40, instruction="Find", max_tokens=33, truncate=True) for text in texts]
    np.testing.assert_array_equal(result.vectors, np.concatenate([each.vectors for each in alone]))
    assert result.truncated == tuple(each.truncated[0] for each in alone) == (False,) * 10 + (True,) * 10
    assert {result.space} == {each.space for each in alone}
    assert len(reports) > 1
    assert reports == sorted(reports)
    assert reports[-1] == (20, sum(result.prompt_tokens))


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_a_text_the_model_fails_on_is_named_by_the_callers_index(place):
    texts = [f"text {i}" for i in range(40)]
    texts[place] = "!" * (place + 1)
    embedder = Embedder(FakeEngine(bad="!"), "fake")
    with pytest.raises(BadVectorError, match=f"^text {place}: ") as caught:
        embedder.embed_documents(iter(texts))
    assert caught.value.index == place


def test_a_stream_goes_on_after_each_text_that_fails():
    texts: list[Any] = ["one", "bad !", None, "x" * 30, "\udc00", "! also bad", "four"]
    reports: list[tuple[int, int]] = []
    embedder = Embedder(FakeEngine(bad="!"), "fake")
    items = list(embedder.stream(EmbedRequest(texts, max_tokens=20), lambda *done: reports.append(done)))
    wrong = [BadVectorError, InvalidTextError, TextTooLongError, InvalidTextError, BadVectorError]
    assert [type(item) for item in items] == [Embedded, *wrong, Embedded]
    assert [item.index for item in items if isinstance(item, TextError)] == [1, 2, 3, 4, 5]
    assert [seen(item.vector) for item in items if isinstance(item, Embedded)] == [(256, 4), (256, 5)]
    assert reports[-1] == (7, 4 + 5)


# What is computed once


def test_identical_texts_are_decoded_once_and_each_place_has_the_vector(engine, embedder):
    reports: list[tuple[int, int]] = []
    texts = ["same", "other", "same", "e\u0301", "\u00e9", "same"] * 100
    result = embedder.embed_documents(texts, progress=lambda *done: reports.append(done))
    assert sorted(bytes(ids[:-1]).decode() for batch in engine.batches for ids in batch) == ["other", "same", "é"]
    assert [seen(row)[1] for row in result.vectors] == [5, 6, 5, 3, 3, 5] * 100
    assert reports[-1] == (600, sum(result.prompt_tokens))
    assert len(engine.texts) == 3


def test_identical_texts_that_fail_fail_at_each_place():
    embedder = Embedder(FakeEngine(bad="bad"), "fake")
    items = list(embedder.stream(EmbedRequest(["bad", "good", "bad"])))
    assert [getattr(item, "index", None) for item in items] == [0, None, 2]


def test_the_same_text_for_ever_gives_results_and_does_not_pile_up(embedder):
    read: list[int] = []
    next(embedder.stream(EmbedRequest("same" for _ in counted(10_000, read))))
    assert len(read) < 3_000


def test_a_batch_that_is_not_full_waits_for_more_texts_but_not_for_ever(engine):
    # 11 + 11 tokens fit into 32, a third does not: windows of 6 texts would leave small batches between them.
    result = Embedder(engine, "fake").embed_documents([f"{place:010}" for place in range(100)])
    assert [seen(row) for row in result.vectors] == [(256, 11)] * 100
    sizes = [len(batch) for batch in engine.batches]
    assert sizes.count(1) <= 1
    assert sum(sizes) == 100


def test_the_engine_gets_the_length_of_an_instruction_up_to_where_the_text_may_change_its_tokens():
    engine = FakeEngine(n_batch=128)
    embedder = Embedder(engine, "fake")
    prompt = f"Instruct: {TASKS['retrieval'].instruction}\nQuery:".encode()
    embedder.embed(EmbedRequest(["a", "b"], kind="query"))
    embedder.embed(EmbedRequest(["c"], kind="query"))
    assert engine.prefixes == [[len(prompt) - 1] * 2, [len(prompt) - 1]]


def test_queries_are_packed_by_what_they_do_not_share():
    engine = FakeEngine(n_batch=128, n_seq_max=64)
    Embedder(engine, "fake").embed(EmbedRequest([f"q{place}" for place in range(10)], kind="query"))
    # 90 tokens of instruction once, then its last one, two of text and the end token for each.
    assert [len(batch) for batch in engine.batches] == [9, 1]


def test_documents_with_a_long_common_beginning_share_it():
    engine = FakeEngine(n_batch=128)
    Embedder(engine, "fake").embed_documents(
        ["Minutes of May: " + name for name in ("costs", "names", "dates")] + ["Other"]
    )
    ((batch, n_prefix),) = zip(engine.batches, engine.prefixes, strict=True)
    assert {bytes(ids[:n]).decode() for ids, n in zip(batch, n_prefix, strict=True)} == {"Minutes of May: ", ""}
    assert sorted(n_prefix) == [0, 16, 16, 16]
