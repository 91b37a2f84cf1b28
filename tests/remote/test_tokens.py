"""Counting tokens far away: the sum over words is the count of the whole, for few requests."""

from __future__ import annotations

import random

import pytest
from command import demo
from hard_texts import DOCUMENTS, LETTERS, MARKS, SPECIAL

from q3e_local.reading import read_bytes
from q3e_local.remote import tokens
from q3e_local.remote.tokens import TokenCounts
from q3e_local.search.indexing.chunking import chunks, counted_first


class FarTokenizer:
    """The demo model's tokenizer as a server answers for it. `requests` has the texts of each request."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []

    def __call__(self, texts: list[str]) -> list[int]:
        self.requests.append(texts)
        return [n - 1 for n in demo().count_tokens(texts)]


@pytest.fixture
def tokenizer() -> FarTokenizer:
    return FarTokenizer()


@pytest.fixture
def counts(tokenizer: FarTokenizer) -> TokenCounts:
    return TokenCounts(tokenizer, demo().engine.added_tokens, 2048)


@pytest.mark.parametrize("seed", range(40))
def test_the_words_of_a_text_have_as_many_tokens_as_the_whole(counts: TokenCounts, seed: int) -> None:
    chance = random.Random(seed)
    texts = [
        "".join(chance.choice(chance.choice([LETTERS, LETTERS, MARKS, SPECIAL])) for _ in range(chance.randrange(80)))
        for _ in range(50)
    ]
    assert counts.count(texts) == demo().count_tokens(texts)


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "a\n\n  b", "x.\n- y", "(\n)\n\n\n  (", "a \n b",
        "\u4f60\u597d\uff0c\u4e16\u754c\u3002\n\u518d\u89c1",
        "a\n\u0338b", "\r\n\r\n1\n2", "don't\n'quoted'", "tab\n\tx", "\u2028a\n\u3000b", "e\n\u0301", "5\n5 5\n 5",
    ],
)  # fmt: skip
def test_line_ends_are_places_to_part_at(counts: TokenCounts, text: str) -> None:
    assert counts.count([text]) == demo().count_tokens([text])


def test_a_word_is_asked_for_once_and_as_many_at_once_as_the_server_takes(tokenizer: FarTokenizer) -> None:
    counts = TokenCounts(tokenizer, (), 10)
    counts.expect([" ".join(f"word{n}" for n in range(25))] * 3)
    assert [len(texts) for texts in tokenizer.requests] == [10, 10, 5]
    tokenizer.requests.clear()
    counts.count(["word0 word24", "word3 word4 word5"])
    # The other words were counted before, at the beginning of a text or behind a space.
    assert tokenizer.requests == [["word3"]]


def test_requests_are_bounded_by_their_size_too(tokenizer: FarTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_REQUEST_BYTES", 100)  # 256 kB of words would take long to count
    counts = TokenCounts(tokenizer, (), 2048)
    texts = ["x" * 70, "y" * 70, "z" * 70, "w"]
    assert counts.count(texts) == demo().count_tokens(texts)
    assert [[text[0] for text in texts] for texts in tokenizer.requests] == [["x", "y"], ["z", "w"]]


def test_what_is_remembered_is_bounded(tokenizer: FarTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_KNOWN_CHARACTERS", 100)  # two million would take long to count
    counts = TokenCounts(tokenizer, (), 2048)
    texts = [f"{word} {word} again" for word in map(str, range(1000))]
    for text in texts:
        assert counts.count([text]) == demo().count_tokens([text])
    assert len(counts._known) < 100  # what is remembered shows in memory alone


def test_a_stretch_without_a_place_to_part_at_is_not_asked_for_until_it_is_counted(counts, tokenizer):
    run = "\u4e2d\u6587" * 1000
    counts.expect([run])
    assert tokenizer.requests == []
    assert counts.count([run]) == demo().count_tokens([run])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_cut_into_the_same_chunks_for_a_few_requests(name, counts, tokenizer):
    document = read_bytes(name, DOCUMENTS[name]().encode())
    here = chunks(document, lambda text: demo().count_tokens([text])[0], 128)
    counts.expect(counted_first(document))
    there = chunks(document, lambda text: counts.count([text])[0], 128, expect=counts.expect)
    assert there == here
    assert len(here) > 10
    # A text without a mark cannot be parted: each chunk is counted by itself.
    assert len(tokenizer.requests) <= 12 + (len(here) if name == "unmarked.txt" else 0)


def test_words_that_another_thread_forgets_meanwhile_are_counted_all_the_same(monkeypatch):
    monkeypatch.setattr(tokens, "_KNOWN_CHARACTERS", 0)  # each look forgets all words

    def ask(texts: list[str]) -> list[int]:
        if "these" in texts:
            counts.count(["another"])
            counts.count(["thread"])
        return [n - 1 for n in demo().count_tokens(texts)]

    counts = TokenCounts(ask, demo().engine.added_tokens, 1)
    assert counts.count(["these words"]) == demo().count_tokens(["these words"])
