"""The routes that `--server` needs: what a model is, and how many tokens texts have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import rerankers
from command import demo
from servers import served_locally

from q3e_local import EmbedRequest
from q3e_local.jobs import seen


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with served_locally(models=("demo",), max_items=5) as client:
        yield client


@pytest.mark.parametrize(
    "options", [{}, {"kind": "query", "dim": 64}, {"instruction": "Find it", "kind": "query"}, {"max_tokens": 20}]
)
def test_a_model_is_described_as_the_library_knows_it(http: httpx.Client, options: dict[str, Any]) -> None:
    answer = http.post("/q3e/model", json={"model": "demo", **options})
    resolved = demo().resolve(EmbedRequest((), **options))
    assert answer.json() == {
        "model": "demo", "digest": demo().digest, "n_embd": 256, "n_ctx_max": 32768,
        "added_tokens": list(demo().engine.added_tokens), "max_items": 5,
        "space": resolved.space, "dim": resolved.dim, "prefix": resolved.prefix, "limit": resolved.limit,
        "truncate": True,
    }  # fmt: skip


def test_an_option_the_model_cannot_do_is_named(http: httpx.Client) -> None:
    answer = http.post("/q3e/model", json={"model": "demo", "dim": 8})
    assert answer.status_code == 400
    assert answer.json() == {"error": "dim must be between 32 and 256 for demo, got 8", "option": "dim"}


def test_tokens_are_those_of_the_texts_as_they_stand(http: httpx.Client) -> None:
    texts = ["", "one two", "cafe\u0301", "<|endoftext|>", "\u4f60\u597d " * 100_000]
    answer = http.post("/q3e/tokens", json={"model": "demo", "texts": texts})
    assert answer.json() == {"counts": [n - 1 for n in demo().count_tokens(texts)]}


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"texts": ["a"]}, 400, "model is required"),
        ({"model": "demo"}, 400, "texts must be a list with one text or more"),
        ({"model": "demo", "texts": []}, 400, "texts must be a list with one text or more"),
        ({"model": "demo", "texts": "a"}, 400, "texts must be a list, got 'a'"),
        ({"model": "demo", "texts": ["a", 1]}, 400, "texts must be texts, got 1"),
        ({"model": "demo", "texts": ["a"] * 6}, 400, "texts has 6 items, the limit of this server is 5"),
        ({"model": "nope", "texts": ["a"]}, 404, "there is no model 'nope' here"),
    ],
)
def test_what_cannot_be_counted_is_refused(http: httpx.Client, body: Any, status: int, error: str) -> None:
    answer = http.post("/q3e/tokens", json=body)
    assert answer.status_code == status
    assert error in answer.json()["error"]


def test_a_huge_text_without_a_place_to_part_at_is_named(http: httpx.Client) -> None:
    answer = http.post("/q3e/tokens", json={"model": "demo", "texts": ["a", "x" * 2_000_000]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("has 400000 characters in a row without a space or a mark")
    assert answer.json()["index"] == 1


# /q3e/rank


@pytest.fixture(scope="module")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = rerankers.write_taught(tmp_path_factory.mktemp("models") / "taught-reranker.gguf")
    with served_locally(models=("demo", str(path)), max_items=5) as client:
        yield client


def rank(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post(
        "/q3e/rank", json={"model": "taught-reranker", "query": rerankers.QUESTION, "texts": ["a"]} | fields
    )


def test_texts_get_logits_in_their_order(ranking: httpx.Client) -> None:
    texts = list(rerankers.BEST_FIRST[::-1])
    answer = rank(ranking, texts=texts)
    assert answer.json() == {
        "model": "taught-reranker", "logits": pytest.approx(rerankers.TAUGHT[::-1], abs=0.05), "max_items": 5,
        "prompt_tokens": [len(rerankers.ids(rerankers.QUESTION, text)) for text in texts],
        "truncated": [False] * 3,
    }  # fmt: skip
    assert answer.headers["x-q3e-texts"] == "3"
    assert rank(ranking, texts=["x " * 500], max_document_tokens=9).json()["truncated"] == [True]


def test_without_texts_the_options_alone_are_checked(ranking: httpx.Client) -> None:
    assert rank(ranking, texts=[]).json() == {
        "model": "taught-reranker", "logits": [], "prompt_tokens": [], "truncated": [], "max_items": 5
    }  # fmt: skip
    refused = rank(ranking, texts=[], max_tokens=20)
    assert (refused.status_code, refused.json()["option"]) == (400, "query")
    assert "the limit is 20 with the document; shorten the query" in refused.json()["error"]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"model": ""}, 400, {"error": "model is required"}),
        ({"query": " "}, 400, {"error": "query is empty; ask something"}),
        ({"query": None}, 400, {"error": '"query" must be provided'}),
        ({"query": "q" * 20_001}, 400, {"error": "query has 20001 characters, the limit is 20000"}),
        ({"texts": None}, 400, {"error": "texts must be a list of texts"}),
        ({"texts": ["a", 1]}, 400, {"error": "texts must be texts, got 1"}),
        ({"texts": ["a"] * 6}, 400, {"error": "texts has 6 items, the limit of this server is 5 (--max-items)"}),
        ({"task": "cooking"}, 400, {"error": "unknown task 'cooking'"}),
        ({"max_document_tokens": 0}, 400, {"error": "max_document_tokens must be 1 or more, got 0"}),
        ({"texts": ["a", "x " * 9_000], "truncate": False}, 400, {"index": 1}),
        ({"model": "demo"}, 400, {"error": "demo is an embedding model"}),
        ({"model": "nope"}, 404, {"error": "there is no model 'nope' here"}),
    ],
)
def test_what_cannot_be_ranked_is_refused(ranking: httpx.Client, fields: Any, status: int, said: Any) -> None:
    answer = rank(ranking, **fields)
    assert answer.status_code == status
    for name, value in said.items():
        assert answer.json()[name] == value or answer.json()[name].startswith(value)


# /q3e/seen


@pytest.mark.parametrize("text", ["the budget", "预算复盘 🙂", "", "a\nb  c <|endoftext|>"])
@pytest.mark.parametrize(
    "options", [{}, {"kind": "query"}, {"kind": "query", "instruction": "Find it", "max_tokens": 4}]
)
def test_a_text_is_seen_as_the_library_sees_it(http: httpx.Client, text: str, options: dict[str, Any]) -> None:
    answer = http.post("/q3e/seen", json={"model": "demo", "text": text, **options}).json()
    expected = seen(demo(), text, EmbedRequest((), truncate=True, **options))
    kept = answer["tokens"][: answer["n_kept"] - 1]
    assert [(token["id"], token["piece"]) for token in (*kept, answer["end"])] == [
        (token.id, token.piece) for token in expected.tokens
    ]
    assert answer["n_tokens"] - answer["n_kept"] == expected.n_left_out
    assert answer["limit"] == demo().resolve(EmbedRequest((), **options)).limit


def test_of_a_long_text_so_many_tokens_are_answered_as_are_wanted(http: httpx.Client) -> None:
    body = {"model": "demo", "text": "the oak " * 3_000}
    full = http.post("/q3e/seen", json=body).json()
    assert (len(full["tokens"]), full["n_tokens"]) == (2_000, demo().count_tokens([body["text"]])[0])
    few = http.post("/q3e/seen", json=body | {"shown": 3}).json()
    assert few == full | {"tokens": full["tokens"][:3]}
    wrong = http.post("/q3e/seen", json=body | {"shown": 10_001})
    assert (wrong.status_code, wrong.json()["error"]) == (400, "shown must be between 0 and 10000, got 10001")
