"""The embedder on the fake engine, whose vectors name the last id and the number of ids of every text.

The last tests ask the real tiny model for what needs a real tokenizer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import tiny
from fake import FakeEngine, seen
from hypothesis import given
from hypothesis import strategies as st
from oracle import Config, Weights
from tokenizers import Tokenizer

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.embedding.prompts import TASKS
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.errors import (
    BadVectorError,
    EngineError,
    InvalidTextError,
    OptionError,
    TextError,
    TextTooLongError,
)
from q3e_local.llama.engine import LlamaEngine
from q3e_local.space import comparable

RETRIEVAL = "Given a web search query, retrieve relevant passages that answer the query"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def embedder(engine: FakeEngine) -> Embedder:
    return Embedder(engine, "fake")


# Vectors


def test_vectors_are_unit_rows_of_float32_in_the_callers_order(embedder: Embedder) -> None:
    texts = ["three", "a", "a longer one", "", "a" * 30, "zwölf"]
    result = embedder.embed_documents(texts)
    assert [seen(row) for row in result.vectors] == [(256, len(text.encode()) + 1) for text in texts]
    assert result.prompt_tokens == tuple(len(text.encode()) + 1 for text in texts)
    assert result.truncated == (False,) * 6
    assert result.vectors.shape == (6, 64)
    assert result.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, rtol=1e-6)
    assert result.model == "fake"


@given(lengths=st.lists(st.integers(0, 70), max_size=40))
def test_any_list_of_texts_comes_back_in_order(lengths: list[int]) -> None:
    engine = FakeEngine()
    result = Embedder(engine, "fake").embed_documents(["x" * n for n in lengths])
    assert [seen(row) for row in result.vectors] == [(256, n + 1) for n in lengths]
    for batch, n_prefix in zip(engine.batches, engine.prefixes, strict=True):
        heads = {tuple(ids[:n]) for ids, n in zip(batch, n_prefix, strict=True)}
        n_cells = sum(map(len, heads)) + sum(map(len, batch)) - sum(n_prefix)
        assert len(batch) <= engine.n_seq_max
        assert len(batch) == 1 or n_cells <= engine.n_batch


@pytest.mark.parametrize("dim", [32, 33, 63, 64, None])
def test_dim_cuts_first_and_scales_after(embedder: Embedder, dim: int | None) -> None:
    vectors = embedder.embed_documents(["abc", "d"], dim=dim).vectors
    assert vectors.shape == (2, dim or 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("dim", [-1, 0, 1, 31, 65, 4096])
def test_a_dim_out_of_range_is_refused_with_both_limits_before_any_work(
    engine: FakeEngine, embedder: Embedder, dim: int
) -> None:
    with pytest.raises(OptionError, match=f"^dim must be between 32 and 64 for fake, got {dim}$"):
        embedder.embed_documents(iter(["never read"]), dim=dim)
    assert not engine.texts


def test_no_texts_are_no_vectors_of_the_right_size(engine: FakeEngine, embedder: Embedder) -> None:
    assert embedder.embed_documents([]).vectors.shape == (0, 64)
    result = embedder.embed_documents([], dim=40)
    assert result.vectors.shape == (0, 40)
    assert result.vectors.dtype == np.float32
    assert (result.prompt_tokens, result.truncated) == ((), ())
    assert engine.n_decodes == 0


def test_texts_may_come_from_any_iterable(embedder: Embedder) -> None:
    texts = ["a", "bb", "ccc"]
    expected = embedder.embed_documents(texts).vectors
    for source in (tuple(texts), iter(texts), (text for text in texts), dict.fromkeys(texts)):
        np.testing.assert_array_equal(embedder.embed_documents(source).vectors, expected)


def test_one_str_instead_of_a_list_is_refused(embedder: Embedder) -> None:
    with pytest.raises(OptionError, match="texts must be a list of texts, got one str; put it in a list"):
        embedder.embed_documents("hello")


# Texts that cannot be embedded


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", ["nested"]])
def test_what_is_not_a_str_is_named_with_its_place(embedder: Embedder, wrong: object) -> None:
    with pytest.raises(
        InvalidTextError, match=f"^text 2: a text must be a str, got {type(wrong).__name__}$"
    ) as caught:
        embedder.embed_documents(["a", "b", wrong, "c"])
    assert caught.value.index == 2


@pytest.mark.parametrize("kind", ["document", "query"])
def test_a_lone_surrogate_is_named_with_its_place_in_the_users_text(embedder: Embedder, kind: str) -> None:
    with pytest.raises(InvalidTextError, match=r"^text 1: character 3 is the lone surrogate '\\ud83d', which is"):
        embedder.embed(EmbedRequest(["fine", "añb\ud83d tail"], kind=kind))


@pytest.mark.parametrize(
    ("n_bytes", "truncate", "outcome"),
    [(9, False, 10), (9, True, 10), (10, False, "error"), (10, True, 10), (500, False, "error"), (500, True, 10)],
)
def test_a_text_over_max_tokens_is_an_error_or_cut_and_keeps_its_end_token(
    engine: FakeEngine, embedder: Embedder, n_bytes: int, truncate: bool, outcome: int | str
) -> None:
    request = EmbedRequest(["short", "x" * n_bytes], truncate=truncate, max_tokens=10)
    if outcome == "error":
        with pytest.raises(TextTooLongError, match=f"^text 1: has {n_bytes + 1} tokens, the limit is 10; truncate"):
            embedder.embed(request)
        return
    result = embedder.embed(request)
    assert seen(result.vectors[1]) == (256, outcome)
    assert result.prompt_tokens == (6, outcome)
    assert result.truncated == (False, n_bytes + 1 > 10)
    assert [*b"x" * 9, 256] in [ids for batch in engine.batches for ids in batch]


def test_without_max_tokens_the_models_context_is_the_limit() -> None:
    embedder = Embedder(FakeEngine(n_ctx_max=50), "fake")
    assert embedder.embed_documents(["x" * 49]).prompt_tokens == (50,)
    with pytest.raises(TextTooLongError, match="has 51 tokens, the limit is 50"):
        embedder.embed_documents(["x" * 50])
    assert embedder.embed_documents(["x" * 50], truncate=True).truncated == (True,)


@pytest.mark.parametrize("max_tokens", [-5, 0, 1001])
def test_max_tokens_out_of_range_is_refused_with_both_limits(embedder: Embedder, max_tokens: int) -> None:
    with pytest.raises(OptionError, match=f"^max_tokens must be between 1 and 1000 for fake, got {max_tokens}$"):
        embedder.embed(EmbedRequest(["a"], max_tokens=max_tokens))


def test_a_limit_of_one_leaves_the_end_token_alone(embedder: Embedder) -> None:
    result = embedder.embed(EmbedRequest(["abc", ""], truncate=True, max_tokens=1))
    assert [seen(row) for row in result.vectors] == [(256, 1), (256, 1)]
    assert result.truncated == (True, False)


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_a_text_the_model_fails_on_is_told_by_the_callers_index(place: int) -> None:
    texts = [f"text {i}" for i in range(40)]
    texts[place] = "!" * (place + 1)
    embedder = Embedder(FakeEngine(bad="!"), "fake")
    with pytest.raises(BadVectorError, match=f"^text {place}: ") as caught:
        embedder.embed_documents(iter(texts))
    assert caught.value.index == place


def test_a_stream_goes_on_after_each_text_that_fails() -> None:
    texts: list[Any] = ["one", "bad !", None, "x" * 30, "\udc00", "! also bad", "four"]
    items = list(Embedder(FakeEngine(bad="!"), "fake").stream(EmbedRequest(texts, max_tokens=20)))
    outcomes = [type(item).__name__ for item in items]
    assert outcomes == [
        "Embedded",
        "BadVectorError",
        "InvalidTextError",
        "TextTooLongError",
        "InvalidTextError",
        "BadVectorError",
        "Embedded",
    ]
    assert [item.index for item in items if isinstance(item, TextError)] == [1, 2, 3, 4, 5]
    assert [seen(item.vector) for item in items if isinstance(item, Embedded)] == [(256, 4), (256, 5)]


# Streaming


def counted(n: int, read: list[int]) -> Iterator[str]:
    for i in range(n):
        read.append(i)
        yield f"text {i}"


def test_a_stream_gives_results_before_it_has_read_everything_and_reads_no_more_than_it_needs(
    embedder: Embedder,
) -> None:
    read: list[int] = []
    stream = embedder.stream(EmbedRequest(counted(10_000, read)))
    assert not read
    for n_given, _ in enumerate(stream, 1):
        # What waits: two batches of 32 tokens, and the text that filled them; a text here has at least 7 tokens.
        # What is done: as much again, behind a text that waits.
        assert len(read) <= n_given + 2 * (2 * 32 / 7 + 1)
        if n_given == 1000:
            break


def test_a_stream_of_many_texts_keeps_the_order_across_windows(embedder: Embedder) -> None:
    items = list(embedder.stream(EmbedRequest("x" * (i % 50) for i in range(1000))))
    assert [seen(item.vector)[1] for item in items if isinstance(item, Embedded)] == [i % 50 + 1 for i in range(1000)]


def test_texts_without_tokens_to_wait_for_do_not_pile_up(embedder: Embedder) -> None:
    read: list[int] = []
    next(embedder.stream(EmbedRequest(None for _ in counted(10_000, read))))
    assert len(read) < 2_000


def test_wrong_options_are_told_when_the_stream_is_asked_for_not_when_it_is_read(embedder: Embedder) -> None:
    for wrong in ({"dim": 5}, {"max_tokens": 0}, {"kind": "passage"}, {"task": "no such"}, {"texts": "one str"}):
        with pytest.raises(OptionError):
            embedder.stream(EmbedRequest(**{"texts": ["a"]} | wrong))


def test_progress_tells_texts_and_tokens_done_and_ends_at_all_of_them(engine: FakeEngine, embedder: Embedder) -> None:
    told: list[tuple[int, int]] = []
    texts = ["x" * (i % 20) for i in range(100)]
    result = embedder.embed_documents(texts, progress=lambda *done: told.append(done))
    assert told == sorted(told)
    assert len(told) == engine.n_decodes
    assert told[-1] == (100, sum(result.prompt_tokens))


def test_queries_are_embedded_as_one_query_is_and_tell_their_progress(embedder: Embedder) -> None:
    told: list[tuple[int, int]] = []
    texts = [f"question {i}?" for i in range(20)]
    result = embedder.embed_queries(
        (text for text in texts), dim=40, instruction="Find", max_tokens=33, truncate=True,
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    alone = [embedder.embed_query(text, 40, instruction="Find", max_tokens=33, truncate=True) for text in texts]
    np.testing.assert_array_equal(result.vectors, np.concatenate([one.vectors for one in alone]))
    assert result.truncated == tuple(one.truncated[0] for one in alone) == (False,) * 10 + (True,) * 10
    assert {result.space} == {one.space for one in alone}
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (20, sum(result.prompt_tokens))


def test_no_queries_are_no_vectors_and_one_str_is_refused(embedder: Embedder) -> None:
    assert embedder.embed_queries([], dim=40).vectors.shape == (0, 40)
    with pytest.raises(OptionError, match="put it in a list"):
        embedder.embed_queries("one question")


def test_tokens_are_counted_as_they_are_embedded(embedder: Embedder) -> None:
    texts = ["", "abc", "cafe\u0301"]
    assert embedder.count_tokens(texts) == list(embedder.embed_documents(texts).prompt_tokens) == [1, 4, 6]


def test_progress_ends_at_all_texts_also_when_some_fail(embedder: Embedder) -> None:
    told: list[tuple[int, int]] = []
    request = EmbedRequest(["a", None, "b"], max_tokens=100)
    list(embedder.stream(request, progress=lambda *done: told.append(done)))
    assert told[-1] == (3, 4)


# What is computed once


def test_identical_texts_are_decoded_once_and_each_place_has_the_vector(
    engine: FakeEngine, embedder: Embedder
) -> None:
    told: list[tuple[int, int]] = []
    texts = ["same", "other", "same", "e\u0301", "\u00e9", "same"] * 100
    result = embedder.embed_documents(texts, progress=lambda *done: told.append(done))
    assert sorted(bytes(ids[:-1]).decode() for batch in engine.batches for ids in batch) == ["other", "same", "é"]
    assert [seen(row)[1] for row in result.vectors] == [5, 6, 5, 3, 3, 5] * 100
    assert told[-1] == (600, sum(result.prompt_tokens))
    assert len(engine.texts) == 3


def test_identical_texts_that_fail_fail_at_each_place() -> None:
    embedder = Embedder(FakeEngine(bad="bad"), "fake")
    items = list(embedder.stream(EmbedRequest(["bad", "good", "bad"])))
    assert [getattr(item, "index", None) for item in items] == [0, None, 2]


def test_the_same_text_for_ever_gives_results_and_does_not_pile_up(embedder: Embedder) -> None:
    read: list[int] = []
    next(embedder.stream(EmbedRequest("same" for _ in counted(10_000, read))))
    assert len(read) < 3_000


def test_a_batch_that_is_not_full_waits_for_more_texts_but_not_for_ever(engine: FakeEngine) -> None:
    # 11 + 11 tokens fit into 32, a third does not: windows of 6 texts would leave small batches between them.
    result = Embedder(engine, "fake").embed_documents([f"{place:010}" for place in range(100)])
    assert [seen(row) for row in result.vectors] == [(256, 11)] * 100
    sizes = [len(batch) for batch in engine.batches]
    assert sizes.count(1) <= 1
    assert sum(sizes) == 100


def test_an_instruction_is_told_to_the_engine_up_to_where_the_text_may_change_its_tokens() -> None:
    engine = FakeEngine(n_batch=128)
    embedder = Embedder(engine, "fake")
    prompt = f"Instruct: {RETRIEVAL}\nQuery:".encode()
    embedder.embed(EmbedRequest(["a", "b"], kind="query"))
    embedder.embed(EmbedRequest(["c"], kind="query"))
    assert engine.prefixes == [[len(prompt) - 1] * 2, [len(prompt) - 1]]


def test_queries_are_packed_by_what_they_do_not_share() -> None:
    engine = FakeEngine(n_batch=128, n_seq_max=64)
    Embedder(engine, "fake").embed(EmbedRequest([f"q{place}" for place in range(10)], kind="query"))
    # 90 tokens of instruction once, then its last one, two of text and the end token for each.
    assert [len(batch) for batch in engine.batches] == [9, 1]


def test_documents_with_a_long_common_beginning_share_it() -> None:
    engine = FakeEngine(n_batch=128)
    Embedder(engine, "fake").embed_documents(
        ["Minutes of May: " + name for name in ("costs", "names", "dates")] + ["Other"]
    )
    ((batch, n_prefix),) = zip(engine.batches, engine.prefixes, strict=True)
    assert {bytes(ids[:n]).decode() for ids, n in zip(batch, n_prefix, strict=True)} == {"Minutes of May: ", ""}
    assert sorted(n_prefix) == [0, 16, 16, 16]


# Prompts


def test_a_query_gets_the_prompt_of_the_models_readme_and_a_document_none(
    engine: FakeEngine, embedder: Embedder
) -> None:
    embedder.embed_query("What is it?")
    embedder.embed_documents(["What is it?"])
    prompt = f"Instruct: {RETRIEVAL}\nQuery:"
    assert engine.texts == [prompt, f"{prompt}What is it?", "What is it?"]


@pytest.mark.parametrize("kind", ["query", "document"])
@pytest.mark.parametrize("task", TASKS)
def test_a_task_puts_its_instruction_before_the_texts_it_is_for(
    engine: FakeEngine, embedder: Embedder, task: str, kind: str
) -> None:
    embedder.embed(EmbedRequest(["t"], kind=kind, task=task))
    bare = kind == "document" and task in ("retrieval", "code")
    assert engine.texts[-1:] == ["t" if bare else f"Instruct: {TASKS[task].instruction}\nQuery:t"]


@pytest.mark.parametrize("kind", ["query", "document"])
def test_a_free_instruction_is_used_as_it_stands(engine: FakeEngine, embedder: Embedder, kind: str) -> None:
    embedder.embed(EmbedRequest(["t"], kind=kind, instruction="Find the bug "))
    assert engine.texts[-1:] == ["Instruct: Find the bug \nQuery:t"]


def test_truncation_cuts_the_text_and_not_the_prompt_before_it(engine: FakeEngine, embedder: Embedder) -> None:
    prompt = f"Instruct: {RETRIEVAL}\nQuery:".encode()
    embedder.embed(EmbedRequest(["x" * 500], kind="query", truncate=True, max_tokens=len(prompt) + 3))
    assert engine.batches == [[[*prompt, *b"xx", 256]]]


# Spaces


def test_the_space_names_model_dim_and_prompt(embedder: Embedder) -> None:
    assert embedder.embed_documents(["a"], dim=40).space == "q3e1-fafafafafafafafa-40-plain"
    query = embedder.embed_query("a", dim=40).space
    assert re.fullmatch("q3e1-fafafafafafafafa-40-[0-9a-f]{8}", query)
    assert query == embedder.space(EmbedRequest([], kind="query", dim=40, task="retrieval"))


def test_spaces_differ_by_dim_prompt_and_model_and_compare_across_prompts(embedder: Embedder) -> None:
    other = FakeEngine()
    other.digest = "ab" * 32
    spaces = {
        "document": embedder.space(EmbedRequest([])),
        "query": embedder.space(EmbedRequest([], kind="query")),
        "code": embedder.space(EmbedRequest([], kind="query", task="code")),
        "small": embedder.space(EmbedRequest([], dim=32)),
        "other": Embedder(other, "fake").space(EmbedRequest([])),
    }
    assert len(set(spaces.values())) == 5
    for name, is_comparable in {"query": True, "code": True, "small": False, "other": False}.items():
        assert comparable(spaces["document"], spaces[name]) == is_comparable
    assert embedder.space(EmbedRequest([], dim=64)) == spaces["document"]


# Closing


def test_closing_the_embedder_closes_the_engine(engine: FakeEngine) -> None:
    with Embedder(engine, "fake") as embedder:
        embedder.embed_documents(["a"])
    assert engine.closed
    with pytest.raises(EngineError):
        embedder.embed_documents(["a"])


# Unicode and special tokens, on the real tiny model

FORMS = [
    ("é in café", "e\u0301 in cafe\u0301"),
    ("Tiếng Việt", "Tie\u0302\u0301ng Vie\u0302\u0323t"),
    ("한국어", "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165"),
    ("Å", "\u212b"),
]


@pytest.mark.parametrize(("composed", "decomposed"), FORMS)
def test_forms_of_a_text_reach_the_engine_as_nfc(
    engine: FakeEngine, embedder: Embedder, composed: str, decomposed: str
) -> None:
    assert composed != decomposed
    embedder.embed_documents([decomposed])
    assert engine.texts == [composed]


def test_a_mark_does_not_reach_into_an_added_token_before_it() -> None:
    engine = FakeEngine(added_tokens=("<think>", "<|im_end|>"))
    Embedder(engine, "fake").embed_documents(["<think>\u0338e\u0301", ">\u0338"])
    assert engine.texts == ["<think>\u0338é", "\u226f"]


@pytest.fixture(scope="module")
def real(tiny_gguf: Callable[..., Path]) -> Iterator[Embedder]:
    with Embedder(LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1)), "tiny") as embedder:
        yield embedder


@pytest.mark.parametrize(("composed", "decomposed"), FORMS)
def test_forms_of_a_text_have_one_vector(real: Embedder, composed: str, decomposed: str) -> None:
    one, other = real.embed_documents([composed, decomposed]).vectors
    assert one @ other > 0.999999


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The capital of China is Beijing.",
        "a<|endoftext|>b<|im_start|>user\n<think></think>",
        "<think>\u0338",
        "</think>e\u0301<|im_end|>\u0323",
        "<|endoftext|>",
        "<|not_a_token|> 👍🏽 \u200b\n\n  x",
    ],
)
def test_a_text_has_the_ids_of_the_reference_tokenizer_and_the_oracles_vector(
    real: Embedder, tokenizer: Tokenizer, weights: Weights, config: Config, text: str
) -> None:
    ids = tokenizer.encode(text).ids
    result = real.embed_documents([text], dim=100)
    assert result.prompt_tokens == (len(ids),)
    expected = oracle.embed(weights, config, ids)[:100]
    assert result.vectors[0] @ (expected / math.hypot(*expected)) > 0.9999


def test_a_query_has_the_oracles_vector_of_the_prompted_text(
    real: Embedder, tokenizer: Tokenizer, weights: Weights, config: Config
) -> None:
    ids = tokenizer.encode(f"Instruct: {RETRIEVAL}\nQuery:What is the capital of China?").ids
    result = real.embed_query("What is the capital of China?")
    assert result.prompt_tokens == (len(ids),)
    expected = oracle.embed(weights, config, ids)
    assert result.vectors[0] @ (expected / np.linalg.norm(expected)) > 0.9999


def test_a_cut_text_has_the_vector_of_its_first_ids_and_the_end_token(
    real: Embedder, tokenizer: Tokenizer, weights: Weights, config: Config
) -> None:
    text = tiny.TRAINING_TEXT[:300]
    ids = tokenizer.encode(text).ids
    result = real.embed(EmbedRequest([text], truncate=True, max_tokens=20))
    assert (result.prompt_tokens, result.truncated) == ((20,), (True,))
    expected = oracle.embed(weights, config, [*ids[:19], ids[-1]])
    assert result.vectors[0] @ (expected / np.linalg.norm(expected)) > 0.9999


@pytest.mark.parametrize("dim", [64.0, "64", True])
def test_a_dim_that_is_no_whole_number_is_refused(embedder: Embedder, dim: Any) -> None:
    with pytest.raises(OptionError, match=re.escape(f"got {dim!r}")):
        embedder.embed_documents(["a"], dim=dim)


def test_a_list_in_place_of_a_request_is_refused(embedder: Embedder) -> None:
    with pytest.raises(OptionError, match="take an EmbedRequest, got list; or use embed_documents"):
        embedder.embed(["a"])


def test_a_vector_whose_first_numbers_are_all_zero_cannot_be_cut_there() -> None:
    engine = FakeEngine()
    decode = engine.decode
    engine.decode = lambda sequences, n_prefix: np.concatenate(
        [np.zeros((len(sequences), 32), np.float32), decode(sequences)[:, :32]], axis=1
    )
    with Embedder(engine, "fake") as embedder:
        assert np.linalg.norm(embedder.embed_documents(["a"]).vectors) == pytest.approx(1)
        with pytest.raises(BadVectorError, match="the first 32 numbers of its vector are all 0; raise dim"):
            embedder.embed_documents(["a"], dim=32)
