"""A request's options resolved for a model, and the prompt that texts share. The ids of the fake engine are bytes."""

from __future__ import annotations

from typing import Any

import pytest
from fake import FakeEngine

from q3e_local.embedding.preparing import Defaults, ResolvedOptions, TextPreparation, resolve
from q3e_local.embedding.prompts import Prompts
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import OptionError

FAKE = "q3e1-" + "fa" * 8


def resolved(defaults: Defaults = Defaults(), **options: Any) -> ResolvedOptions:  # noqa: B008 (frozen)
    return resolve(EmbedRequest((), **options), FakeEngine(), "fake", Prompts(), defaults)


def prepared(**options: Any) -> TextPreparation:
    return TextPreparation(FakeEngine(), resolved(**options))


def test_a_bare_request_is_of_documents_at_the_size_and_limit_of_the_model():
    assert resolved() == ResolvedOptions("", 64, 1000, False, f"{FAKE}-64-plain")


def test_a_request_says_everything_itself_or_leaves_it_to_the_name():
    name = Defaults("query", instruction="Find it", dim=40)
    of_name = resolved(name)
    assert (of_name.prefix, of_name.dim) == ("Instruct: Find it\nQuery:", 40)
    assert resolved(name, kind="document", dim=50, max_tokens=7, truncate=True) == ResolvedOptions(
        "", 50, 7, True, f"{FAKE}-50-plain"
    )


def test_an_error_about_the_dim_of_a_name_names_no_option_of_the_caller():
    with pytest.raises(OptionError, match=r"^the name's dim must be between 32 and 64 for fake, got 65$") as caught:
        resolved(Defaults(dim=65))
    assert caught.value.option == ""
    with pytest.raises(OptionError, match=r"^dim must be between 32 and 64 for fake, got 66$") as caught:
        resolved(Defaults(dim=65), dim=66)
    assert caught.value.option == "dim"


@pytest.mark.parametrize(("n_alike", "n_prefix"), [(7, 0), (8, 8), (9, 9)])
def test_only_a_prefix_that_is_worth_its_keep_is_shared(n_alike, n_prefix):
    prefix_ids = [*range(n_alike), 99, 98]  # a text behind the prompt changes the last ids
    assert prepared().fit([*range(n_alike), 100, 101], 0, prefix_ids).n_prefix == n_prefix


def test_the_vectors_of_all_dims_are_kept_in_one_space_for_each_prompt():
    assert str(prepared(dim=32).full_space) == str(prepared(dim=48).full_space) == f"{FAKE}-64-plain"
    assert prepared(kind="query").full_space != prepared().full_space
