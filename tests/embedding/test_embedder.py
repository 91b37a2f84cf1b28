"""The embedder on the fake engine, whose vectors name the last id and the number of ids of every text.

The last tests use a real tiny model, for what needs a real tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import oracle
import pytest
import tiny
from engines import hold
from fake import FakeEngine, seen
from hypothesis import given
from hypothesis import strategies as st

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import BadVectorError, EngineError, InvalidTextError, OptionError, TextTooLongError
from q3e_local.llama.engine import LlamaEngine
from q3e_local.space import comparable

RETRIEVAL = "Given a web search query, retrieve relevant passages that answer the query"


def test_vectors_are_unit_rows_of_float32_in_the_callers_order(embedder):
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
def test_any_list_of_texts_comes_back_in_order(lengths):
    engine = FakeEngine()
    result = Embedder(engine, "fake").embed_documents(["x" * n for n in lengths])
    assert [seen(row) for row in result.vectors] == [(256, n + 1) for n in lengths]
    for batch, n_prefix in zip(engine.batches, engine.prefixes, strict=True):
        heads = {tuple(ids[:n]) for ids, n in zip(batch, n_prefix, strict=True)}
        n_cells = sum(map(len, heads)) + sum(map(len, batch)) - sum(n_prefix)
        assert len(batch) <= engine.n_seq_max
        assert len(batch) == 1 or n_cells <= engine.n_batch


@pytest.mark.parametrize("dim", [32, 33, 63, 64, None])
def test_dim_cuts_first_and_scales_after(embedder, dim):
    vectors = embedder.embed_documents(["abc", "d"], dim=dim).vectors
    assert vectors.shape == (2, dim or 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("dim", [-1, 0, 1, 31, 65, 4096, 64.0, "64", True])
def test_a_dim_out_of_range_is_refused_with_both_limits_before_any_work(engine, embedder, dim):
    with pytest.raises(OptionError, match=f"^dim must be between 32 and 64 for fake, got {dim!r}$"):
        embedder.embed_documents(iter(["never read"]), dim=dim)
    assert not engine.texts


def test_no_texts_are_no_vectors_of_the_right_size(engine, embedder):
    assert embedder.embed_documents([]).vectors.shape == (0, 64)
    result = embedder.embed_documents([], dim=40)
    assert result.vectors.shape == (0, 40)
    assert result.vectors.dtype == np.float32
    assert (result.prompt_tokens, result.truncated) == ((), ())
    assert engine.n_decodes == 0


def test_texts_may_come_from_any_iterable(embedder):
    texts = ["a", "bb", "ccc"]
    expected = embedder.embed_documents(texts).vectors
    for source in (tuple(texts), iter(texts), (text for text in texts), dict.fromkeys(texts)):
        np.testing.assert_array_equal(embedder.embed_documents(source).vectors, expected)


def test_one_str_instead_of_a_list_is_refused(embedder):
    for embed in (embedder.embed_documents, embedder.embed_queries):
        with pytest.raises(OptionError, match="texts must be a list of texts, got one str; put it in a list"):
            embed("hello")


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", ["nested"]])
def test_what_is_not_a_str_is_named_with_its_place(embedder, wrong):
    with pytest.raises(
        InvalidTextError, match=f"^text 2: a text must be a str, got {type(wrong).__name__}$"
    ) as caught:
        embedder.embed_documents(["a", "b", wrong, "c"])
    assert caught.value.index == 2


@pytest.mark.parametrize("kind", ["document", "query"])
def test_a_lone_surrogate_is_named_with_its_place_in_the_users_text(embedder, kind):
    with pytest.raises(InvalidTextError, match=r"^text 1: character 3 is the lone surrogate '\\ud83d', which is"):
        embedder.embed(EmbedRequest(["fine", "añb\ud83d tail"], kind=kind))


@pytest.mark.parametrize(
    ("n_bytes", "truncate", "outcome"),
    [(9, False, 10), (9, True, 10), (10, False, "error"), (10, True, 10), (500, False, "error"), (500, True, 10)],
)
def test_a_text_over_max_tokens_is_an_error_or_cut_and_keeps_its_end_token(
    engine, embedder, n_bytes, truncate, outcome
):
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


@pytest.mark.parametrize("max_tokens", [-5, 0, 1001])
def test_max_tokens_out_of_range_is_refused_with_both_limits(embedder, max_tokens):
    with pytest.raises(OptionError, match=f"^max_tokens must be between 1 and 1000 for fake, got {max_tokens}$"):
        embedder.embed(EmbedRequest(["a"], max_tokens=max_tokens))


def test_tokens_are_counted_as_they_are_embedded(embedder):
    texts = ["", "abc", "cafe\u0301"]
    assert embedder.count_tokens(texts) == list(embedder.embed_documents(texts).prompt_tokens) == [1, 4, 6]


def test_a_query_gets_the_prompt_of_the_models_readme_and_a_document_none(engine, embedder):
    embedder.embed_query("What is it?")
    embedder.embed_documents(["What is it?"])
    prompt = f"Instruct: {RETRIEVAL}\nQuery:"
    assert engine.texts == [prompt, f"{prompt}What is it?", "What is it?"]


def test_truncation_cuts_the_text_and_not_the_prompt_before_it(engine, embedder):
    prompt = f"Instruct: {RETRIEVAL}\nQuery:".encode()
    embedder.embed(EmbedRequest(["x" * 500], kind="query", truncate=True, max_tokens=len(prompt) + 3))
    assert engine.batches == [[[*prompt, *b"xx", 256]]]


def test_the_space_names_model_dim_and_prompt(embedder):
    assert embedder.embed_documents(["a"], dim=40).space == "q3e1-fafafafafafafafa-40-plain"
    query = embedder.embed_query("a", dim=40).space
    assert re.fullmatch("q3e1-fafafafafafafafa-40-[0-9a-f]{8}", query)
    assert query == embedder.space(EmbedRequest([], kind="query", dim=40, task="retrieval"))


def test_spaces_differ_by_dim_prompt_and_model_and_compare_across_prompts(embedder):
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


def test_closing_the_embedder_closes_the_engine(engine):
    with Embedder(engine, "fake") as embedder:
        embedder.embed_documents(["a"])
    assert engine.closed
    with pytest.raises(EngineError):
        embedder.embed_documents(["a"])


def test_a_list_in_place_of_a_request_is_refused(embedder):
    with pytest.raises(OptionError, match="take an EmbedRequest, got list; or use embed_documents"):
        embedder.embed(["a"])


def test_a_vector_whose_first_numbers_are_all_zero_cannot_be_cut_there():
    engine = FakeEngine()
    decode = engine.decode
    engine.decode = lambda sequences, n_prefix: np.concatenate(
        [np.zeros((len(sequences), 32), np.float32), decode(sequences)[:, :32]], axis=1
    )
    with Embedder(engine, "fake") as embedder:
        assert np.linalg.norm(embedder.embed_documents(["a"]).vectors) == pytest.approx(1)
        with pytest.raises(BadVectorError, match="the first 32 numbers of its vector are all 0; raise dim"):
            embedder.embed_documents(["a"], dim=32)


# Unicode and special tokens, on the real tiny model

FORMS = [
    ("é in café", "e\u0301 in cafe\u0301"),
    ("Tiếng Việt", "Tie\u0302\u0301ng Vie\u0302\u0323t"),
    ("한국어", "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165"),
    ("Å", "\u212b"),
]


@pytest.fixture(scope="module")
def real(tiny_gguf: Callable[..., Path]) -> Iterator[Embedder]:
    with Embedder(LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1)), "tiny") as embedder:
        yield embedder


@pytest.mark.parametrize(("composed", "decomposed"), FORMS)
def test_forms_of_a_text_have_one_vector(real, composed, decomposed):
    first, second = real.embed_documents([composed, decomposed]).vectors
    assert first @ second > 0.999999


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
def test_a_text_has_the_ids_of_the_reference_tokenizer_and_the_oracles_vector(real, tokenizer, weights, config, text):
    ids = tokenizer.encode(text).ids
    result = real.embed_documents([text], dim=100)
    assert result.prompt_tokens == (len(ids),)
    hold(result.vectors, oracle.embed(weights, config, ids)[:100])


def test_a_query_has_the_oracles_vector_of_the_prompted_text(real, tokenizer, weights, config):
    ids = tokenizer.encode(f"Instruct: {RETRIEVAL}\nQuery:What is the capital of China?").ids
    result = real.embed_query("What is the capital of China?")
    assert result.prompt_tokens == (len(ids),)
    hold(result.vectors, oracle.embed(weights, config, ids))


def test_a_cut_text_has_the_vector_of_its_first_ids_and_the_end_token(real, tokenizer, weights, config):
    text = tiny.TRAINING_TEXT[:300]
    ids = tokenizer.encode(text).ids
    result = real.embed(EmbedRequest([text], truncate=True, max_tokens=20))
    assert (result.prompt_tokens, result.truncated) == ((20,), (True,))
    hold(result.vectors, oracle.embed(weights, config, [*ids[:19], ids[-1]]))
