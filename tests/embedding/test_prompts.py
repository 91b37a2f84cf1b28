"""Instructions, tasks and the normalizer: the text the model sees, letter by letter."""

from __future__ import annotations

import unicodedata

import pytest
from fake import FakeEngine
from hypothesis import given
from hypothesis import strategies as st
from tiny import NOT_SPECIAL, SPECIAL
from tokenizers import AddedToken, Tokenizer, models, normalizers

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.prompts import TASKS, normalizer
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import OptionError

# From evaluation/task_prompts.json and qwen3_embedding_model.py of QwenLM/Qwen3-Embedding.
OFFICIAL = {
    "retrieval": "Given a web search query, retrieve relevant passages that answer the query",
    "code": "Given a question about coding, retrieval code or passage that can solve user's question",
    "sts": "Retrieve semantically similar text",
    "bitext": "Retrieve parallel sentences",
    "clustering": "Identify the category of documents",
}
ADDED = (*SPECIAL, *NOT_SPECIAL)


def seen_by_the_model(text: str, **options: str | None) -> str:
    engine = FakeEngine()
    Embedder(engine, "fake").embed(EmbedRequest([text], **options))
    return engine.texts[-1]


@pytest.mark.parametrize("task", OFFICIAL)
def test_the_official_instructions_are_word_for_word(task):
    assert TASKS[task].instruction == OFFICIAL[task]


@pytest.mark.parametrize(
    ("kind", "task", "expected"),
    [
        ("query", None, OFFICIAL["retrieval"]),
        ("document", None, None),
        ("query", "code", OFFICIAL["code"]),
        ("document", "code", None),
        ("query", "sts", OFFICIAL["sts"]),
        ("document", "sts", OFFICIAL["sts"]),
        ("document", "clustering", OFFICIAL["clustering"]),
    ],
)
def test_documents_share_the_instruction_only_where_texts_are_compared_with_their_like(kind, task, expected):
    # No space after `Query:`, as in the model's README.
    whole = " What? " if expected is None else f"Instruct: {expected}\nQuery: What? "
    assert seen_by_the_model(" What? ", kind=kind, task=task) == whole


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "passage"}, "kind must be 'document' or 'query', got 'passage'"),
        ({"task": "nonsense"}, "unknown task 'nonsense'; choose from retrieval, code, sts,"),
        ({"kind": "query", "task": ""}, "unknown task ''"),
        ({"kind": "query", "task": "code", "instruction": "free"}, "give task 'code' or an instruction, not both"),
        ({"kind": "query", "instruction": ""}, "the instruction is empty"),
        ({"instruction": " \n"}, "the instruction is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, says):
    with pytest.raises(OptionError, match=f"^{says}"):
        seen_by_the_model("t", **options)


def test_braces_in_a_text_or_an_instruction_are_letters():
    text, instruction = "a {text} {instruction} {0}", "Find {text} in {}"
    seen = seen_by_the_model(text, kind="query", instruction=instruction)
    assert seen == f"Instruct: {instruction}\nQuery:{text}"


def reference_normalize(text: str) -> str:
    """What the `tokenizers` library leaves of a text: normalized, but not its added tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    vocabulary = {
        character: 100 + i for i, character in enumerate(sorted({*unicodedata.normalize("NFC", text), *text}))
    }
    vocabulary |= {token: i for i, token in enumerate(ADDED)}
    tokenizer.model = models.BPE(vocab=vocabulary, merges=[])
    return "".join(tokenizer.encode(text).tokens)


PIECES = st.sampled_from(
    [*ADDED, "<", ">", "think>", "<|", "e", "e\u0301", "\u0301", "\u0338", "\u212b", "\u1112\u1161\u11ab", "a b"]
)


@given(text=st.lists(PIECES, max_size=8).map("".join))
def test_texts_are_normalized_as_the_reference_does_between_added_tokens(text):
    assert normalizer(ADDED)(text) == reference_normalize(text)


def test_without_added_tokens_the_whole_text_is_normalized():
    assert normalizer(())("<think>\u0338") == "<think\u226f"


def test_a_longer_added_token_is_found_before_a_token_that_it_begins_with():
    assert normalizer(("<a", "<a>"))("<a>\u0338") == "<a>\u0338"
