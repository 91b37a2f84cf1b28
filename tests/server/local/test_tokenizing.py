"""Huge texts: their pieces have the ids of the whole, and only the part that is decoded is tokenized."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hard_texts import LETTERS, MARKS, SPECIAL
from workers import FakeWorker

from q3e_local.embedding import cutting
from q3e_local.embedding.preparing import Defaults, Fitted, Preparation
from q3e_local.embedding.prompts import Prompts
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import InvalidTextError, TextTooLongError
from q3e_local.llama.engine import LlamaEngine
from q3e_local.models.installed import Located, locate
from q3e_local.server.local import tokenizing
from q3e_local.server.workers.loaded_models import Model


class Worker(FakeWorker):
    """The real tokenizer of the demo model."""

    def __init__(self, engine: LlamaEngine) -> None:
        super().__init__(Located("demo", Path("demo"), Prompts()))
        self.engine, self.added_tokens = engine, engine.added_tokens
        self.eos_id, self.n_vocab, self.n_ctx_max = engine.eos_id, engine.n_vocab, engine.n_ctx_max
        self.n_written: list[int] = []  # the ids of each call that wrote text

    def tokenize(self, text: str) -> list[int]:
        self.texts.append(text)
        return self.engine.tokenize(text)

    def detokenize(self, ids: Sequence[int]) -> str:
        self.n_written.append(len(ids))
        return self.engine.detokenize(ids)

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        return self.engine.pieces(ids)


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    with LlamaEngine(locate("demo").path) as engine:
        yield engine


@pytest.fixture
def model(engine: LlamaEngine) -> Model:
    queue: Any = None
    return Model("demo", Worker(engine), Prompts(), queue)


def prepared(model: Model, **options: Any) -> Preparation:
    return model.prepare(EmbedRequest((), **options), Defaults())


def fitted(model: Model, *inputs: str | tuple[int, ...], **options: Any) -> list[Fitted]:
    return asyncio.run(tokenizing.fitted(model, prepared(model, **options), list(enumerate(inputs))))


def at_once(model: Model, text: str, **options: Any) -> Fitted:
    """The ids of a text as the library tokenizes it."""
    preparation = prepared(model, **options)
    prefix_ids = model.worker.tokenize(preparation.resolved.prefix)
    return preparation.fit(model.worker.tokenize(preparation.ready(text, 0)), 0, prefix_ids)


@pytest.mark.parametrize("seed", range(40))
def test_the_pieces_of_a_text_have_the_ids_of_the_whole(
    model: Model, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # With the real sizes, only texts of megabytes have several pieces.
    monkeypatch.setattr(cutting, "PIECE", 7)
    monkeypatch.setattr(tokenizing, "_SLICE", 20)
    chance = random.Random(seed)
    for _ in range(20):
        n_parts = chance.randrange(200)
        text = "".join(chance.choice(chance.choice([LETTERS, LETTERS, MARKS, SPECIAL])) for _ in range(n_parts))
        whole = at_once(model, text)
        assert fitted(model, text) == [whole]
        assert asyncio.run(tokenizing.whole(model, text)) == whole.ids[:-1]
        assert fitted(model, "before", text, "after", kind="query")[1] == at_once(model, text, kind="query")


@pytest.mark.parametrize(
    "text",
    ["the quick brown fox " * 100_000, "abcdefghij" * 200_000, "\u4e2d\u6587" * 500_000, "cafe\u0301, " * 300_000,
     "<|endoftext|>" * 60_000, "5" * 2_000_000],
    ids=["words", "one word", "Chinese without marks", "decomposed", "special tokens", "digits"],
)  # fmt: skip
def test_a_huge_text_is_tokenized_as_far_as_it_is_needed_and_in_pieces(model: Model, text: str) -> None:
    (found,) = fitted(model, text, truncate=True, max_tokens=4000)
    lengths = [len(each) for each in model.worker.texts]
    assert max(lengths) <= 4 * cutting.PIECE
    assert sum(lengths) <= 8 * cutting.PIECE
    assert found.truncated
    # The library tokenizes a part that is far longer than the ids that are left.
    assert found == at_once(model, text[:200_000], truncate=True, max_tokens=4000)


def test_a_huge_text_that_may_not_be_cut_is_refused_without_being_tokenized_to_its_end(model: Model) -> None:
    with pytest.raises(TextTooLongError, match=r"text 1: has more than \d+ tokens, the limit is 100; truncate it"):
        fitted(model, "short", "words and words " * 1_000_000, max_tokens=100)
    assert sum(map(len, model.worker.texts)) < 100_000


def test_a_lone_surrogate_at_the_end_of_a_huge_text_is_found(model: Model) -> None:
    with pytest.raises(InvalidTextError, match="character 500000 is the lone surrogate"):
        fitted(model, "abcd " * 100_000 + "\ud800", truncate=True)


def test_a_run_that_cannot_be_parted_has_no_list_of_tokens(model: Model) -> None:
    with pytest.raises(InvalidTextError, match="without a space"):
        asyncio.run(tokenizing.whole(model, "a" * 2_000_000))


def test_a_text_with_too_many_tokens_to_list_is_not_tokenized_to_its_end(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "TOKENS_MAX", 1_000)
    assert len(asyncio.run(tokenizing.whole(model, "word " * 200))) <= 1_000
    with pytest.raises(InvalidTextError, match="has more than 1000 tokens; split it"):
        asyncio.run(tokenizing.whole(model, "words and words " * 100_000))
    assert sum(map(len, model.worker.texts)) < 3 * cutting.PIECE


def test_a_long_instruction_counts_with_each_text_in_what_is_tokenized_at_once(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "_SLICE", 1_000)  # the real size takes an instruction of 100,000 characters
    n_characters = []
    tokenize_all = model.worker.tokenize_all

    def counted(texts: Sequence[str]) -> list[list[int]]:
        n_characters.append(sum(map(len, texts)))
        return tokenize_all(texts)

    monkeypatch.setattr(model.worker, "tokenize_all", counted)
    instruction = "find " * 60
    found = fitted(model, *["a text"] * 20, kind="query", instruction=instruction)
    assert found == [at_once(model, "a text", kind="query", instruction=instruction)] * 20
    assert sum(n_characters) > 20 * 300
    assert max(n_characters) < 3_000


def test_token_ids_that_are_too_many_are_refused_before_anything_is_tokenized(model: Model) -> None:
    with pytest.raises(TextTooLongError, match="text 2: has 101 tokens, the limit is 100; truncate it"):
        fitted(model, "a", (*(1,) * 99, model.worker.eos_id), (1,) * 100, max_tokens=100)
    assert model.worker.texts == []


@pytest.mark.parametrize("n_ids", [80, 98, 99, 100, 101, 5_000])
@pytest.mark.parametrize("with_end", [False, True])
@pytest.mark.parametrize("kind", ["document", "query"])
def test_token_ids_are_cut_as_a_text_is(model: Model, n_ids: int, with_end: bool, kind: Any) -> None:
    worker = model.worker
    options = {"kind": kind, "truncate": True, "max_tokens": 100}
    sent = tuple(range(300, 300 + n_ids))
    (found,) = fitted(model, (*sent, worker.eos_id) if with_end else sent, **options)
    prefix = prepared(model, **options).resolved.prefix
    ids = [*(worker.tokenize(prefix) if prefix else []), *sent]
    assert found.ids == [*ids[:99], worker.eos_id]
    assert found.truncated == (len(ids) > 99)


@pytest.mark.parametrize("bad", [-1, 10**6])
def test_a_token_id_that_no_vocabulary_has_is_found_where_it_is_cut_too(model: Model, bad: int) -> None:
    with pytest.raises(InvalidTextError, match=f"text 1: token id {bad} is not in the vocabulary"):
        fitted(model, "a", (*(5,) * 200, bad, 7), truncate=True, max_tokens=100)


@pytest.mark.parametrize("seed", range(20))
def test_ids_become_text_in_parts_that_split_no_character(
    model: Model, engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A million ids at once held up every request that tokenized for half a second, and several such for seconds."""
    monkeypatch.setattr(tokenizing, "_IDS_AT_ONCE", 3)  # with the real number, few parts begin in a character
    chance = random.Random(seed)
    # Characters of several tokens, and ids in an order that no text has: pieces of characters without the rest.
    ids = engine.tokenize("".join(chance.choices(["龘", "😀", "word ", "é", "<|endoftext|>"], k=100)))
    ids += [chance.randrange(300) for _ in range(200)] + [167] * 100
    assert asyncio.run(tokenizing.text_of(model, ids)) == engine.detokenize(ids)
    assert sum(model.worker.n_written) == len(ids)
    assert max(model.worker.n_written) <= 3 + tokenizing._SEAM
    assert asyncio.run(tokenizing.text_of(model, [])) == ""
