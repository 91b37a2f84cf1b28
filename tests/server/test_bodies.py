"""Hostile bodies: every answer has the dialect's shape, and the server goes on."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import orjson
import pytest
from fake_service import FakeService
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import answers_by_schema

pytest_plugins = ["serving"]

# By path: the dialect whose shape its errors have, and a body that is right.
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "/api/embed": ("ollama", {"model": "demo", "input": "a"}),
    "/api/embeddings": ("ollama", {"model": "demo", "prompt": "a"}),
    "/api/show": ("ollama", {"model": "demo"}),
    "/api/generate": ("ollama", {"model": "demo"}),
    "/api/copy": ("ollama", {"source": "demo", "destination": "x"}),
    "/v1/embeddings": ("openai", {"model": "demo", "input": "a"}),
    "/embedding": ("openai", {"model": "demo", "content": "a"}),
    "/embeddings": ("openai", {"model": "demo", "input": "a"}),
    "/tokenize": ("openai", {"model": "demo", "content": "a"}),
    "/detokenize": ("openai", {"model": "demo", "tokens": [97]}),
    "/embed": ("tei", {"model": "demo", "inputs": "a"}),
    "/": ("tei", {"model": "demo", "inputs": "a"}),
    "/decode": ("tei", {"model": "demo", "ids": [97]}),
    "/similarity": ("tei", {"model": "demo", "inputs": {"source_sentence": "a", "sentences": ["b"]}}),
    "/api/rerank": ("ollama", {"model": "judge", "query": "a", "documents": ["b"]}),
    "/v1/rerank": ("openai", {"model": "judge", "query": "a", "documents": ["b"]}),
    "/rerank": ("openai", {"model": "judge", "query": "a", "documents": ["b"]}),
    "/v2/rerank": ("cohere", {"model": "judge", "query": "a", "documents": ["b"]}),
    "/score": ("openai", {"model": "judge", "text_1": "a", "text_2": "b"}),
}
EXTRAS = (
    "truncate", "dimensions", "options", "keep_alive", "encoding_format", "input_type", "instruction", "task",
    "embedding_types", "pooling_method", "embd_normalize", "parameters", "prompt_name", "normalize", "with_pieces",
    "texts", "top_n", "return_documents", "rank_fields", "max_tokens_per_doc", "raw_scores", "use_activation",
    "truncate_prompt_tokens", "truncation_side", "instruct", "queries",
)  # fmt: skip
FIELDS = sorted({*EXTRAS, *(field for _, body in ROUTES.values() for field in body)})
SMALL = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["demo", "query", "float", "base64", "last", "0", "10m", "\0", "\ud800", "a" * 300]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def check(answer: httpx.Response, dialect: str, http: httpx.Client) -> None:
    """The answer is a success, or blames the client in the dialect's shape; and the server goes on."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        body = answer.json()
        if dialect == "openai":
            assert isinstance(body["error"]["message"], str)
        elif dialect == "cohere":
            assert isinstance(body["message"], str)
        else:
            assert isinstance(body["error"], str)
            assert ("error_type" in body) == (dialect == "tei")
    assert http.get("/api/version").status_code == 200


def dump(value: Any) -> bytes:
    """The value as JSON by Python's own module, which writes lone surrogates and huge numbers too."""
    return json.dumps(value).encode()


@SMALL
@given(path=st.sampled_from(sorted(ROUTES)), fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_fields_of_any_type(http: httpx.Client, fake: FakeService, path: str, fields: dict[str, Any]) -> None:
    dialect, body = ROUTES[path]
    if path == "/tokenize" and fields.get("inputs") is not None:
        dialect = "tei"
    if (
        path in ("/rerank", "/v1/rerank")
        and {**body, **fields}["documents"] is None
        and fields.get("texts") is not None
    ):
        dialect = "tei"
    check(http.post(path, content=dump({**body, **fields})), dialect, http)


@SMALL
@given(path=st.sampled_from(sorted(ROUTES)), body=JSON)
def test_bodies_of_any_type(http: httpx.Client, fake: FakeService, path: str, body: Any) -> None:
    check(http.post(path, content=dump(body)), ROUTES[path][0], http)


@SMALL
@given(path=st.sampled_from(sorted(ROUTES)), body=st.binary(max_size=50))
def test_bodies_of_any_bytes(http: httpx.Client, fake: FakeService, path: str, body: bytes) -> None:
    answer = http.post(path, content=body)
    assert 400 <= answer.status_code < 500
    check(answer, ROUTES[path][0], http)


HOSTILE = {
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a lone surrogate": rb'"\ud800"',
    "half a pair": rb'"a\udc00b"',
    "no UTF-8": b'"\xff\xfe"',
    "a number too large": b"1e400",
    "a long number": b"9" * 100_000,
    "NaN": b"NaN",
    "a very long text": b'"' + b"x" * 1_000_000 + b'"',
    "a list of everything": b'[1,"a",null,[],{}]',
    "many nulls": b"[" + b"null," * 100_000 + b"null]",
    "many ids": b"[" + b"97," * 500_000 + b"-1]",
}


SHORT = ("model", "source", "destination", "query", "text_1")


@pytest.mark.parametrize("path", sorted(ROUTES))
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_values(http: httpx.Client, path: str, what: str) -> None:
    dialect, right = ROUTES[path]
    for field in right:
        rest = orjson.dumps({key: value for key, value in right.items() if key != field})[1:]
        comma = b"," if len(rest) > 1 else b""
        answer = http.post(path, content=b'{"%s":%s%s%s' % (field.encode(), HOSTILE[what], comma, rest))
        is_text = what == "a very long text" and isinstance(right[field], str) and field not in SHORT
        assert (answer.status_code == 200) == (is_text and path != "/api/embeddings" and path != "/embedding"), field
        check(answer, dialect, http)


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings", "/embed"])
def test_ten_megabytes_of_text(http: httpx.Client, path: str) -> None:
    dialect, right = ROUTES[path]
    field = "inputs" if path == "/embed" else "input"
    cut = http.post(path, json={**right, field: "ab" * 5_000_000})
    assert (cut.status_code, cut.headers["x-q3e-truncated"]) == (200, "0")
    refused = http.post(path, json={**right, field: "ab" * 5_000_000, "truncate": False})
    assert refused.status_code in (400, 422)
    assert len(refused.content) < 1000
    check(refused, dialect, http)


def test_nul_characters_are_text(http: httpx.Client, fake: FakeService) -> None:
    answer = http.post("/v1/embeddings", json={"model": "demo", "input": ["\0", "a\0b"]})
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] == 2 + 4
    assert http.post("/v1/embeddings", json={"model": "demo\0", "input": "a"}).status_code == 404


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "", "nonsense", "application/json; x"]
)
@pytest.mark.parametrize("path", sorted(ROUTES))
def test_the_content_type_is_ignored(http: httpx.Client, path: str, kind: str) -> None:
    """`curl -d` calls everything a form."""
    answer = http.post(path, content=orjson.dumps(ROUTES[path][1]), headers={"content-type": kind})
    assert answer.status_code == 200


def test_the_server_goes_on_after_a_body_that_ends_too_early(address: str, http: httpx.Client) -> None:
    host, port = address.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b'POST /api/embed HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"model":')
    assert http.get("/health").status_code == 200


def test_the_page_of_docs_needs_no_network(http: httpx.Client) -> None:
    page = http.get("/docs").text
    for path in http.get("/openapi.json").json()["paths"]:
        assert path in page
    assert "<script" not in page
    assert "https://" not in page


def test_the_page_of_docs_renders_the_markdown_of_the_schema(http: httpx.Client) -> None:
    page = http.get("/docs").text
    schema = http.get("/openapi.json").json()
    assert "`x-q3e-space`" in schema["info"]["description"]
    assert "(<code>x-q3e-space</code>)" in page
    assert "(what <code>ollama stop</code> sends)" in page  # a summary
    assert "<td>Required. A name as in <code>/api/tags</code>; with <code>-query</code> behind it" in page  # a field
    assert "<td><code>task</code><td><code>retrieval</code>, <code>code</code>, " in page  # what it may be
    assert "`" not in page


def test_openapi_names_what_is_served(http: httpx.Client) -> None:
    paths = set(http.get("/openapi.json").json()["paths"])
    served = """
        /api/version /api/tags /api/show /api/ps /api/embed /api/embeddings /api/pull /api/delete /api/copy
        /api/generate /v1/embeddings /v1/models /v1/models/{model} /embedding /embeddings /embed /tokenize
        /api/rerank /v1/rerank /rerank /reranking /v1/reranking /v2/rerank /score /v1/score
        /detokenize /similarity /decode /info /props /models /health /q3e/embed /q3e/rank /q3e/model
        /q3e/tokens /q3e/stop
    """
    assert set(served.split()) < paths


def test_no_request_of_the_schema_fails_in_the_server(http: httpx.Client, fake: FakeService) -> None:
    for answer in answers_by_schema(http, n_examples=12):
        # Ollama answers 500 too where a pull fails that has no stream.
        is_as_in_ollama = answer.url.path == "/api/pull" and "pull model manifest" in answer.text
        assert answer.status_code < 500 or is_as_in_ollama, answer.text
