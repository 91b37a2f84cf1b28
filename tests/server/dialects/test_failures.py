"""The answer of every dialect to each error: statuses and words are the originals', as their clients know them."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
from fake_service import FakeService

from q3e_local import errors
from q3e_local.server import errors as server
from q3e_local.server.app import refusal_body
from q3e_local.server.dialects import llama_server, names, ollama, openai, q3e, q3e_search, rerank, score, tei
from q3e_local.server.dialects.failures import failure_of
from q3e_local.server.http.refusal import Refusal

pytest_plugins = ["serving"]

DIALECTS: tuple[Any, ...] = (openai, ollama, tei, llama_server, q3e)

BUSY = "server busy, please try again.  maximum pending requests exceeded: full"

# An error, and its status in OpenAI's dialect, Ollama's, TEI's, llama-server's and q3e-local's.
STATUSES: list[tuple[Exception, tuple[int, int, int, int, int]]] = [
    (errors.TextTooLongError("too long", 0), (400, 400, 422, 400, 400)),
    (errors.InvalidTextError("no text", 0), (400, 400, 422, 400, 400)),
    (errors.BadVectorError("NaN", 0), (400, 400, 422, 400, 400)),
    (server.EmptyInputError("empty", "input"), (400, 400, 400, 400, 400)),
    (server.MissingBodyError("none"), (400, 400, 400, 400, 400)),
    (server.BadRequestError("wrong", "input"), (400, 400, 422, 400, 400)),
    (errors.OptionError("wrong"), (400, 400, 422, 400, 400)),
    (names.InvalidNameError("no name"), (404, 400, 422, 404, 400)),
    (errors.UnknownModelError("unknown"), (404, 404, 404, 404, 404)),
    (errors.ModelNotHereError("not here"), (404, 404, 404, 404, 404)),
    (errors.WrongKindError("a reranker"), (400, 400, 424, 400, 400)),
    (errors.WrongModelError("a chat model"), (500, 500, 500, 500, 500)),
    (server.QueueFullError("full", 7), (429, 503, 429, 429, 429)),
    (server.ClientGoneError("gone"), (499, 499, 499, 499, 499)),
    (server.WorkerDiedError("died"), (500, 500, 500, 500, 500)),
    (errors.EngineError("failed"), (500, 500, 500, 500, 500)),
    (errors.ModelFileError("broken"), (500, 500, 500, 500, 500)),
    (errors.NotEnoughMemoryError("large"), (500, 500, 500, 500, 500)),
    (errors.Q3EError("else"), (500, 500, 500, 500, 500)),
    (ZeroDivisionError("secret"), (500, 500, 500, 500, 500)),
    (server.NotServedError("not served"), (501, 501, 501, 501, 501)),
    (server.StoppingError("stopping"), (503, 503, 503, 503, 503)),
]


@pytest.mark.parametrize(("error", "statuses"), STATUSES, ids=lambda error: type(error).__name__)
def test_every_error_has_its_status_in_every_dialect(error: Exception, statuses: tuple[int, ...]) -> None:
    answers = [dialect.answer_failure(failure_of(error)) for dialect in DIALECTS]
    assert tuple(answer.status_code for answer in answers) == statuses
    retry = {server.QueueFullError: "7", server.StoppingError: "5"}.get(type(error))
    for answer in answers:
        assert answer.headers.get("retry-after") == retry
        said = "internal error" if isinstance(error, ZeroDivisionError) else error.args[0]
        assert said in answer.body.decode()
        assert "secret" not in answer.body.decode()


# Routes that need a model, the dialect whose errors they have, and a body that is right.
ROUTES: list[tuple[str, Any, dict[str, Any]]] = [
    ("/v1/embeddings", openai, {"input": "a"}),
    ("/embeddings", openai, {"input": "a"}),
    ("/api/embed", ollama, {"input": "a"}),
    ("/api/embed", ollama, {}),
    ("/api/embeddings", ollama, {"prompt": "a"}),
    ("/embed", tei, {"inputs": "a"}),
    ("/similarity", tei, {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
    ("/tokenize", tei, {"inputs": "a"}),
    ("/tokenize", llama_server, {"content": "a"}),
    ("/detokenize", llama_server, {"tokens": [1]}),
    ("/embedding", llama_server, {"content": "a"}),
    ("/q3e/embed", q3e, {"texts": ["a"]}),
    ("/q3e/rank", q3e, {"model": "judge", "query": "a", "texts": ["a"]}),
    ("/v1/rerank", rerank, {"model": "judge", "query": "a", "documents": ["a"]}),
    ("/reranking", rerank, {"model": "judge", "query": "a", "documents": ["a"]}),
    ("/rerank", tei, {"model": "judge", "query": "a", "texts": ["a"]}),
    ("/v1/score", score, {"model": "judge", "text_1": "a", "text_2": ["a"] * 4}),
    ("/api/rerank", ollama, {"model": "judge", "query": "a", "documents": ["a"]}),
]


@pytest.mark.parametrize(
    "error",
    [
        server.QueueFullError("full", 7),
        server.StoppingError("stopping"),
        server.WorkerDiedError("killed"),
        errors.InvalidTextError("a lone surrogate", 3),
        errors.ModelNotHereError("pull it"),
        RuntimeError("a bug with a /secret/path"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(("path", "dialect", "body"), ROUTES)
def test_a_route_answers_an_error_as_its_dialect_does(
    http: httpx.Client, fake: FakeService, path: str, dialect: Any, body: dict[str, Any], error: Exception
) -> None:
    fake.fail = error
    answer = http.post(path, json={"model": "demo", **body})
    expected = dialect.answer_failure(failure_of(error))
    assert answer.status_code == expected.status_code
    assert answer.headers.get("retry-after") == expected.headers.get("retry-after")
    assert "secret" not in answer.text
    if dialect is ollama and isinstance(error, errors.ModelNotHereError):
        name = body.get("model", "demo")
        assert answer.json() == {"error": f'model "{name}" not found, try pulling it first'}
    else:
        assert answer.content == expected.body
    fake.fail = None
    assert http.post(path, json={"model": "demo", **body}).status_code == 200


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            server.QueueFullError("full", 7),
            BUSY,
        ),
        (
            errors.TextTooLongError("too long", 0),
            "the input length exceeds the context length: text 0: too long",
        ),
        (errors.BadVectorError("NaN", 0), "embedding contains NaN or Inf values: text 0: NaN"),
        (errors.OptionError("dim must be between"), "dim must be between"),
    ],
)
def test_ollamas_words_come_first(error: Exception, words: str) -> None:
    assert orjson.loads(ollama.answer_failure(failure_of(error)).body) == {"error": words}


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (server.UnknownIndexError("none"), 404, "none"),
        (errors.SpaceMismatchError("of another model"), 409, "of another model"),
        (server.IndexUnusableError("damaged"), 503, "damaged"),
        (server.RebuiltError("rebuilt"), 503, "rebuilt"),
        (errors.TextTooLongError("is too long", 0), 400, "query is too long"),
        (errors.UnknownModelError("unknown"), 404, "unknown"),
        (
            server.QueueFullError("full", 7),
            503,
            BUSY,
        ),
    ],
)
def test_a_search_has_ollamas_errors_and_those_of_an_index(error: Exception, status: int, said: str) -> None:
    answer = q3e_search.answer_failure(failure_of(error))
    assert (answer.status_code, orjson.loads(answer.body)) == (status, {"error": said})


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (errors.TextTooLongError("too long", 0), "invalid_request_error", "context_length_exceeded", "input"),
        (server.BadRequestError("wrong", "task"), "invalid_request_error", None, "task"),
        (errors.UnknownModelError("unknown"), "invalid_request_error", "model_not_found", "model"),
        (server.QueueFullError("full", 7), "rate_limit_error", "rate_limit_exceeded", None),
        (server.StoppingError("stopping"), "service_unavailable", None, None),
        (server.WorkerDiedError("died"), "server_error", None, None),
    ],
)
def test_openais_error_object(error: Exception, kind: str, code: str | None, param: str | None) -> None:
    found = orjson.loads(openai.answer_failure(failure_of(error)).body)["error"]
    assert found == {"message": str(error), "type": kind, "param": param, "code": code}


def test_the_kinds_of_tei_and_of_llama_server() -> None:
    kinds = {
        server.EmptyInputError("x"): ("Empty", "invalid_request_error"),
        server.BadRequestError("x"): ("Validation", "invalid_request_error"),
        errors.TextTooLongError("x", 0): ("Validation", "exceed_context_size_error"),
        errors.UnknownModelError("x"): ("Validation", "not_found_error"),
        server.QueueFullError("x", 1): ("Overloaded", "unavailable_error"),
        server.StoppingError("x"): ("Unhealthy", "unavailable_error"),
        errors.EngineError("x"): ("Backend", "server_error"),
        errors.WrongKindError("x"): ("Backend", "invalid_request_error"),
    }
    for error, (of_tei, of_llama_server) in kinds.items():
        failure = failure_of(error)
        assert orjson.loads(tei.answer_failure(failure).body)["error_type"] == of_tei
        assert orjson.loads(llama_server.answer_failure(failure).body)["error"]["type"] == of_llama_server


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/rerank", {"error": {"code": 401, "message": "no key", "type": "authentication_error"}}),
        ("/reranking", {"error": {"code": 401, "message": "no key", "type": "authentication_error"}}),
        ("/api/rerank", {"error": "no key"}),
        ("/score", {"error": {"message": "no key", "type": "UnauthorizedError", "param": None, "code": 401}}),
    ],
)
def test_a_request_to_rank_that_is_refused_before_its_route(path: str, expected: dict[str, Any]) -> None:
    assert orjson.loads(refusal_body(path, Refusal(401, "no key"))) == expected
    coheres = orjson.loads(refusal_body("/v2/rerank", Refusal(401, "no key")))
    assert (list(coheres), coheres["message"]) == (["id", "message"], "no key")
