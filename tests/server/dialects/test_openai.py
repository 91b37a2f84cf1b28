"""OpenAI's wire: OpenAI's client from PyPI on a real server, and cases of other servers' tests.

A test that comes from another project names the file it comes from.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from fake_service import FakeService, served, vector
from world import BUNDLED_LATEST

from q3e_local.models import importing
from q3e_local.server.errors import QueueFullError
from q3e_local.vectors import to_binary, to_int8

pytest_plugins = ["serving"]

A, B = vector(ord("a"), 2), vector(ord("b"), 3)


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    transport = httpx.Client(trust_env=False)
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, http_client=transport) as client:
        yield client


def post(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/v1/embeddings", json={"model": "demo", **body})


def test_a_text_and_a_list(client: openai.OpenAI) -> None:
    # llama.cpp tools/server/tests/unit/test_embedding.py: test_embedding_openai_library_single, _multiple
    single = client.embeddings.create(model="demo", input="a")  # the client's default is base64, which it decodes
    assert np.allclose(single.data[0].embedding, A)
    assert (single.usage.prompt_tokens, single.usage.total_tokens) == (2, 2)
    assert (single.model, single.object, single.data[0].object) == ("demo", "list", "embedding")
    many = client.embeddings.create(model="demo", input=["a", "ab", "a", "ab"])
    assert np.allclose([item.embedding for item in many.data], [A, B, A, B])
    assert [item.index for item in many.data] == [0, 1, 2, 3]
    assert many.usage.prompt_tokens == 10


def test_the_default_equals_floats(client: openai.OpenAI) -> None:
    # vLLM tests/entrypoints/pooling/embed: the default client call equals the explicit float call
    texts = ["a", "hello", "Grüße"]
    default = client.embeddings.create(model="demo", input=texts)
    floats = client.embeddings.create(model="demo", input=texts, encoding_format="float")
    for as_base64, as_floats in zip(default.data, floats.data, strict=True):
        assert np.array_equal(np.float32(as_base64.embedding), np.float32(as_floats.embedding))


async def test_the_async_client(address: str) -> None:
    # infinity tests/end_to_end: the async client works; order inside and across batches
    transport = httpx.AsyncClient(trust_env=False)
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", http_client=transport) as client:
        answers = await asyncio.gather(
            *(client.embeddings.create(model="demo", input=["x" * n, "y" * n]) for n in range(1, 20))
        )
    for n, answer in enumerate(answers, start=1):
        assert np.allclose(answer.data[0].embedding, vector(ord("x"), n + 1))
        assert np.allclose(answer.data[1].embedding, vector(ord("y"), n + 1))


def test_models(client: openai.OpenAI, http: httpx.Client) -> None:
    # ollama server/routes_test.go: OpenAI List Models, Retrieve Model
    models = client.models.list().data
    assert sorted(model.id for model in models) == sorted(BUNDLED_LATEST)
    assert {(model.object, model.owned_by) for model in models} == {("model", "library")}
    for name in ("demo", "demo:latest", "demo-query", "demo:q8_0", "demo-reranker", "demo-reranker:latest"):
        assert client.models.retrieve(name).id == name
    assert http.get("/v1/models").headers["content-type"] == "application/json"
    for name in ("nope", "Qwen/Qwen3-Embedding-4B", "qwen3-embedding:4b", "../../etc/passwd", "a b"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(name)
        assert caught.value.body["code"] == "model_not_found"


def test_a_model_with_a_slash_and_a_colon_is_reached(client: openai.OpenAI, tiny_gguf: Any) -> None:
    importing.import_file(tiny_gguf("f16"), "me/mine:f16")
    assert client.models.retrieve("me/mine:f16").owned_by == "me"
    assert {model.id for model in client.models.list().data} == {*BUNDLED_LATEST, "me/mine:f16"}


def test_errors_the_client_knows(client: openai.OpenAI, fake: FakeService) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="nope", input="a")
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="demo", input="a", dimensions=5000)
    assert caught.value.param == "dimensions"
    fake.fail = QueueFullError("full", 3)
    with pytest.raises(openai.RateLimitError) as limited:
        client.embeddings.create(model="demo", input="a")
    assert limited.value.response.headers["retry-after"] == "3"


def test_token_ids_are_logged_once_as_such(caplog: pytest.LogCaptureFixture) -> None:
    with served(FakeService()) as http:
        post(http, input="a")
        post(http, input=["a", {"prompt_string": "b"}])
        assert [record for record in caplog.records if record.levelname == "WARNING"] == []
        for body in ([97], [[97], "b"], [97, "b"]):
            assert post(http, input=body).status_code == 200
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("token ids were sent to /v1/embeddings: they are read as ids of demo's vocabulary; ")
    assert line.endswith("unless it is made with check_embedding_ctx_length=False")


def test_an_instruction_goes_into_extra_body(client: openai.OpenAI, fake: FakeService) -> None:
    # As README.md and docs/server.md say. As an argument, the instruction is an error of the client's.
    with pytest.raises(TypeError, match="instruction"):
        client.embeddings.create(model="demo", input="a", instruction="Find it")
    client.embeddings.create(model="demo", input="a", extra_body={"instruction": "Find it"})
    assert [request.instruction for request in fake.requests] == ["Find it"]


def test_extras_through_extra_body(client: openai.OpenAI, fake: FakeService) -> None:
    body = {"instruction": "Find it", "input_type": "query", "truncate": False}
    found = client.embeddings.create(model="demo", input="a", dimensions=32, extra_body=body)
    assert found.space == "q3e1-fake-32-query"
    assert found.truncated == []
    (seen,) = fake.requests
    assert (seen.instruction, seen.kind, seen.truncate, seen.dim) == ("Find it", "query", False, 32)


@pytest.mark.parametrize("encoding", ["base64", "Base64", "BASE64"])
def test_base64(http: httpx.Client, encoding: str) -> None:
    # ollama middleware/openai_encoding_format_test.go
    answer = post(http, input=["a", "ab", "abc"], encoding_format=encoding).json()
    for i, item in enumerate(answer["data"]):
        raw = base64.b64decode(item["embedding"])
        assert item["index"] == i
        assert len(raw) == 4 * 256
        assert np.allclose(struct.unpack("<256f", raw), vector(ord("abc"[i]), i + 2))


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "FLOAT"}])
def test_floats_are_shortest_and_exact(http: httpx.Client, encoding: dict[str, str]) -> None:
    answer = post(http, input="a", **encoding)
    values = answer.json()["data"][0]["embedding"]
    assert np.array_equal(np.float32(values), np.float32(A))
    assert b"0.9997344," in answer.content


def test_every_answer_says_space_tokens_and_what_was_cut(http: httpx.Client) -> None:
    answer = post(http, input=["y" * 200, "a", "y" * 201], dimensions=64)
    assert answer.headers["x-q3e-space"] == answer.json()["space"] == "q3e1-fake-64-plain"
    assert answer.headers["x-q3e-truncated"] == "0,2"
    assert answer.headers["x-q3e-prompt-tokens"] == "202"
    assert answer.json()["truncated"] == [0, 2]
    assert answer.headers["content-type"] == "application/json"


def test_header_of_very_many_cut_texts_is_bounded() -> None:
    with served(FakeService(), max_items=2048) as http:
        answer = post(http, input=["y" * 200] * 2048, dimensions=32, encoding_format="base64")
        assert len(answer.headers["x-q3e-truncated"]) < 4_010
        assert answer.headers["x-q3e-truncated"].endswith(",...")
        assert answer.json()["truncated"] == list(range(2048))


def test_smaller_forms(http: httpx.Client) -> None:
    row = np.float32([vector(ord("a"), 2, dim=32)])
    for encoding in ("float", "base64"):
        body = {"embedding_types": ["float", "int8", "binary"], "encoding_format": encoding}
        found = post(http, input="a", dimensions=32, **body).json()["data"][0]["embedding"]
        codes, scales = to_int8(row)
        assert np.allclose(found["float"], row[0])
        assert found["int8"] == codes[0].tolist()
        assert found["int8_scale"] == pytest.approx(float(scales[0, 0]))
        assert found["binary"] == to_binary(row)[0].tolist()
    (item,) = post(http, input="a", embedding_types=["int8"]).json()["data"]
    assert list(item["embedding"]) == ["int8", "int8_scale"]


@pytest.mark.parametrize(
    ("extra", "kind", "task"),
    [
        ({}, None, None),
        ({"input_type": None}, None, None),
        ({"input_type": "query"}, "query", None),
        ({"input_type": "Document"}, "document", None),
        ({"task": "sts"}, None, "sts"),
        ({"pooling_method": "last"}, None, None),
        ({"user": "me", "unknown": [1]}, None, None),
    ],
)
def test_what_reaches_the_service(
    http: httpx.Client, fake: FakeService, extra: dict[str, Any], kind: str | None, task: str | None
) -> None:
    assert post(http, input="a", **extra).status_code == 200
    assert (fake.requests[0].kind, fake.requests[0].task) == (kind, task)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": "y" * 200, "truncate": False}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 257}, "dimensions"),
        ({"input": "a", "dimensions": "64"}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "input_type": "nope"}, "input_type"),
        ({"input": "a", "prompt_name": "nope"}, "prompt_name"),
        ({"input": "a", "instruction": " "}, "instruction"),
        ({"input": "a", "instruction": 5}, "instruction"),
        ({"input": "a", "instruction": "x", "task": "sts"}, "instruction"),
        ({"input": "a", "task": "nope"}, "task"),
        ({"input": "a", "truncate": "END"}, "truncate"),
        ({"input": "a", "embedding_types": []}, "embedding_types"),
        ({"input": "a", "embedding_types": ["hex"]}, "embedding_types"),
        ({"input": "a", "embedding_types": [{}]}, "embedding_types"),
        ({"input": "a", "embedding_types": "int8"}, "embedding_types"),
        ({"input": "a", "pooling_method": "mean"}, "pooling_method"),
        ({"input": "a", "model": 5}, "model"),
        ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"input": "a", "truncate_prompt_tokens": "all"}, "truncate_prompt_tokens"),
        ({"input": "a", "truncate_prompt_tokens": 8.0}, "truncate_prompt_tokens"),
        ({"input": "a", "truncation_side": "left"}, "truncation_side"),
    ],
)
def test_what_is_refused_names_its_field(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    # vLLM (unknown values are 400), infinity (empty list); test_mixed_inputs.py has what an input may not be
    answer = post(http, **body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_why_there_is_one_pooling(http: httpx.Client) -> None:
    assert "every other pooling gives wrong vectors" in post(http, input="a", pooling_method="mean").text


def test_too_long_says_which_and_how_long(http: httpx.Client) -> None:
    error = post(http, input=["a", "y" * 200], truncate=False).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "text 1: has 201 tokens, the limit is 100" in error["message"]


def test_vllms_limit_keeps_the_beginning_and_the_end_token(http: httpx.Client) -> None:
    # vLLM tests/entrypoints/pooling/embed: truncate_prompt_tokens 10, -1, and below -1
    whole, cut = vector(ord("c"), 4), vector(ord("b"), 3)
    for limit, expected, places in ((3, cut, [0]), (4, whole, []), (-1, whole, []), (None, whole, [])):
        answer = post(http, input=["abc"], truncate_prompt_tokens=limit, truncation_side="right").json()
        assert np.allclose(answer["data"][0]["embedding"], expected)
        assert (answer["truncated"], answer["usage"]["prompt_tokens"]) == (places, 3 if places else 4)
    assert post(http, input=["y" * 200], truncate_prompt_tokens=-1).json()["usage"]["prompt_tokens"] == 100
    refused = post(http, input=["abc"], truncate_prompt_tokens=3, truncate=False).json()["error"]
    assert (refused["code"], "text 0: has 4 tokens, the limit is 3" in refused["message"]) == (
        "context_length_exceeded",
        True,
    )


def test_unknown_routes_and_methods(http: httpx.Client) -> None:
    for method, path, status, code in (
        ("GET", "/v1/nope", 404, "unknown_url"),
        ("POST", "/v1/chat/completions", 404, "unknown_url"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/demo", 405, "method_not_allowed"),
    ):
        answer = http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
