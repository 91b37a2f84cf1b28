"""What a request comes to for one model, and what it does to texts and ids. The ids of the fake engine are bytes."""

from __future__ import annotations

from typing import Any

import pytest
from fake import FakeEngine

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.preparing import Defaults, Fitted, Preparation, Terms, resolve
from q3e_local.embedding.prompts import Kind, Prompts
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import InvalidTextError, OptionError, TextTooLongError

FAKE = "q3e1-" + "fa" * 8


def resolved(defaults: Defaults = Defaults(), **options: Any) -> Terms:  # noqa: B008 (frozen)
    return resolve(EmbedRequest((), **options), FakeEngine(), "fake", Prompts(), defaults)


def prepared(added_tokens: tuple[str, ...] = (), **options: Any) -> Preparation:
    return Preparation(FakeEngine(added_tokens=added_tokens), resolved(**options))


def test_a_bare_request_is_of_documents_at_the_size_and_limit_of_the_model():
    assert resolved() == Terms("", 64, 1000, False, f"{FAKE}-64-plain")


def test_a_request_says_everything_itself_or_leaves_it_to_the_name():
    name = Defaults("query", instruction="Find it", dim=40)
    of_name = resolved(name)
    assert (of_name.prefix, of_name.dim) == ("Instruct: Find it\nQuery:", 40)
    assert resolved(name, kind="document", dim=50, max_tokens=7, truncate=True) == Terms(
        "", 50, 7, True, f"{FAKE}-50-plain"
    )


def test_a_dim_that_only_the_name_has_is_not_told_as_an_option_of_the_caller():
    with pytest.raises(OptionError, match=r"^the name's dim must be between 32 and 64 for fake, got 65$") as caught:
        resolved(Defaults(dim=65))
    assert caught.value.option == ""
    with pytest.raises(OptionError, match=r"^dim must be between 32 and 64 for fake, got 66$") as caught:
        resolved(Defaults(dim=65), dim=66)
    assert caught.value.option == "dim"


def test_a_ready_text_has_its_prompt_and_is_normalized_around_the_tokens_of_the_model():
    preparation = prepared(("<t>",), kind="query", instruction="e\u0301")
    # U+0338 composes with ">", but not with the end of a token.
    assert preparation.ready("cafe\u0301 <t>\u0338 >\u0338", 0) == "Instruct: é\nQuery:café <t>\u0338 ≯"
    with pytest.raises(InvalidTextError, match=r"^text 3: character 1 is the lone surrogate"):
        preparation.ready("a\ud800", 3)


def test_ids_are_fitted_with_the_end_token_last():
    assert prepared(max_tokens=4).fit([1, 2, 3], 0) == Fitted([1, 2, 3, 256], False)
    assert prepared(max_tokens=3, truncate=True).fit([1, 2, 3], 0) == Fitted([1, 2, 256], True)
    with pytest.raises(TextTooLongError, match=r"^text 5: has 4 tokens, the limit is 3; truncate it or split it$"):
        prepared(max_tokens=3).fit([1, 2, 3], 5)


@pytest.mark.parametrize(("n_alike", "n_prefix"), [(7, 0), (8, 8), (9, 9)])
def test_only_a_prefix_that_is_worth_its_keep_is_shared(n_alike, n_prefix):
    prefix_ids = [*range(n_alike), 99, 98]  # the last ids are others, where a text stands behind the prompt
    assert prepared().fit([*range(n_alike), 100, 101], 0, prefix_ids).n_prefix == n_prefix


def test_the_vectors_of_all_dims_are_kept_in_one_space_for_each_prompt():
    assert str(prepared(dim=32).full_space) == str(prepared(dim=48).full_space) == f"{FAKE}-64-plain"
    assert prepared(kind="query").full_space != prepared().full_space


def test_what_a_request_comes_to_is_worked_out_once():
    kinds: list[Kind] = []

    class Counting(Prompts):
        def prefix(self, kind: Kind, task: str | None = None, instruction: str | None = None) -> str:
            kinds.append(kind)
            return super().prefix(kind, task, instruction)

    embedder = Embedder(FakeEngine(), "fake", Counting())
    result = embedder.embed_queries(["one", "two", "three"], dim=40)
    assert result.space.startswith(f"{FAKE}-40-")
    assert kinds == ["query"]
