"""Large bodies stall nobody: counted and parsed beside the event loop, refused by count before they are parsed."""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from fake_service import FakeService
from server_process import in_background

from q3e_local.server.dialects import body, routes
from q3e_local.server.dialects.body import LARGE, VALUES_MAX
from q3e_local.server.dialects.fields import Body, Fields
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.errors import BadRequestError

pytest_plugins = ["serving"]

# Every route that takes many texts, and the field that has them.
TEXT_ROUTES = {
    "/api/embed": "input",
    "/v1/embeddings": "input",
    "/embeddings": "input",
    "/embedding": "content",
    "/embed": "inputs",
    "/tokenize": "inputs",
    "/similarity": "sentences",
    "/q3e/embed": "texts",
    "/q3e/tokens": "texts",
    "/q3e/rank": "texts",
}
LIMIT = 50  # of items, as the server of these tests has it


def with_list(path: str, field: str, items: bytes) -> bytes:
    """A body whose list holds `items`, without the comma behind the last of them."""
    if path == "/similarity":
        return b'{"model":"demo","inputs":{"source_sentence":"a","sentences":[%s]}}' % items[:-1]
    return b'{"model":"demo","%s":[%s]}' % (field.encode(), items[:-1])


def message(answer: httpx.Response) -> str:
    """The message of an error in any dialect's shape."""
    error = answer.json()["error"]
    return str(error["message"] if isinstance(error, dict) else error)


class Parser:
    """orjson, which notes the threads that parse large bodies, and holds them while `go_on` is not set."""

    JSONDecodeError = orjson.JSONDecodeError
    dumps = staticmethod(orjson.dumps)

    def __init__(self) -> None:
        self.large: list[str] = []  # the threads that parsed a large body
        self.collected = False  # whether the garbage collector was on meanwhile
        self.began, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def loads(self, text: bytes) -> Any:
        if len(text) > LARGE:
            self.large.append(threading.current_thread().name)
            self.collected |= gc.isenabled()
            self.began.set()
            assert self.go_on.wait(20)
        return orjson.loads(text)


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parser]:
    parser = Parser()
    monkeypatch.setattr(body, "orjson", parser)
    yield parser
    parser.go_on.set()


@pytest.mark.parametrize(
    ("path", "item", "n"),
    [
        *((path, b'"a",', 80_000) for path in TEXT_ROUTES),
        ("/v1/embeddings", b'"a",', VALUES_MAX + 100_000),
        ("/api/embed", b"[],", 2_000_000),
        ("/embed", b"{},", 100_000),
        ("/similarity", b"null,", 90_000),
    ],
)
def test_too_many_items_are_refused_before_they_are_parsed(
    http: httpx.Client, parser: Parser, path: str, item: bytes, n: int
) -> None:
    field = TEXT_ROUTES[path]
    answer = http.post(path, content=with_list(path, field, item * n))
    assert answer.status_code == (422 if path in ("/embed", "/tokenize", "/similarity") else 400)
    limit = LIMIT - (path == "/similarity")
    said = message(answer)
    assert said.startswith(f"{field} has ")
    assert said.endswith(f" items, the limit of this server is {limit} (--max-items)")
    if 2 * n < VALUES_MAX:
        assert said.startswith(f"{field} has {n} items")
    else:
        assert said.startswith(f"{field} has at least ")
    assert parser.large == []


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/embeddings", "input"), ("/api/embed", "input"), ("/embedding", "content"), ("/embed", "inputs"),
     ("/detokenize", "tokens"), ("/decode", "ids")],
)  # fmt: skip
def test_too_many_token_ids_are_refused_before_they_are_parsed(
    http: httpx.Client, parser: Parser, path: str, field: str
) -> None:
    of_one = http.post(path, content=with_list(path, field, b"1," * (VALUES_MAX + 1)))
    assert of_one.status_code == (422 if path in ("/embed", "/decode") else 400)
    assert f"{field} has " in message(of_one)
    assert message(of_one).endswith(f" token ids; a request may have {VALUES_MAX} values in all")
    of_two = with_list(path, field, (b"[" + b"1," * (VALUES_MAX // 2) + b"1],") * 2)
    answer = http.post(path, content=of_two)
    assert answer.status_code == of_one.status_code
    assert f"the limit is {VALUES_MAX}; send them in several requests" in message(answer)
    assert parser.large == []


def test_counting_takes_no_memory_to_speak_of() -> None:
    text = with_list("/v1/embeddings", "input", b"[]," * 2_000_000)
    tracemalloc.start()
    try:
        # Over HTTP, the memory of client and server would count too.
        with pytest.raises(BadRequestError, match="items, the limit of this server is 50"):
            body._large(text, False, {"input": LIMIT})
        assert tracemalloc.get_traced_memory()[1] < 20_000_000  # parsed, it takes 130 MB
    finally:
        tracemalloc.stop()


def test_too_many_items_of_a_wrong_type_are_too_many(http: httpx.Client) -> None:
    for path, field in TEXT_ROUTES.items():
        if path != "/similarity":  # where empty texts come first, as in TEI
            answer = http.post(path, content=with_list(path, field, b"null," * (LIMIT + 1)))
            assert f"{field} has {LIMIT + 1} items" in message(answer), path
    answer = http.post("/decode", json={"model": "demo", "ids": [["a"]] * (LIMIT + 1)})
    assert f"ids has {LIMIT + 1} items" in message(answer)


@pytest.mark.parametrize("path", [path for path in TEXT_ROUTES if path != "/tokenize"])
def test_others_are_answered_while_a_large_body_is_parsed(
    http: httpx.Client, fake: FakeService, parser: Parser, path: str
) -> None:
    text = b'"' + b"word " * (LARGE // 10) + b'",'
    parser.go_on.clear()
    content = with_list(path, TEXT_ROUTES[path], text * 20)
    answer = in_background(httpx.post, f"{http.base_url}{path}", content=content)
    assert parser.began.wait(20)
    for _ in range(5):
        assert http.get("/health").status_code == 200
        assert http.post("/v1/embeddings", json={"model": "demo", "input": "a"}).status_code == 200
    assert not answer.done()
    parser.go_on.set()
    assert answer.result(20).status_code in (200, 400)  # 400 on routes that do not cut texts that are too long
    assert parser.large == ["q3e-body_0"]
    assert not parser.collected
    assert gc.isenabled()


def test_the_garbage_collector_goes_on_after_a_body_that_is_not_json(http: httpx.Client, parser: Parser) -> None:
    answer = http.post("/v1/embeddings", content=b'{"input":"' + b"a" * LARGE)
    assert answer.status_code == 400
    assert message(answer).startswith("the body is not JSON: ")
    assert len(parser.large) == 1
    assert not parser.collected
    assert gc.isenabled()


def test_large_bodies_that_are_right_are_embedded(http: httpx.Client, fake: FakeService) -> None:
    texts = [f"{number} " + 'wörter "und" \\ [mehr], ' * 2_000 for number in range(LIMIT)]
    for path in ("/api/embed", "/v1/embeddings"):
        content = json.dumps({"input": texts, "model": "demo"}, ensure_ascii=False).encode()
        assert len(content) > 2_000_000
        assert http.post(path, content=content).status_code == 200
        assert list(fake.requests[-1].inputs) == texts
    ids = [list(range(90)) * 1_000] * 5
    assert http.post("/v1/embeddings", json={"model": "demo", "input": ids}).status_code == 200
    assert list(fake.requests[-1].inputs) == [tuple(of_text) for of_text in ids]


def test_bytes_behind_a_large_first_value_are_ignored_by_ollamas_routes(
    http: httpx.Client, fake: FakeService, parser: Parser
) -> None:
    content = orjson.dumps({"model": "demo", "input": ["}]" * LARGE]}) + b' garbage "[{' + b"," * (2 * VALUES_MAX)
    assert http.post("/api/embed", content=content).status_code == 200
    assert fake.requests[-1].inputs == ("}]" * LARGE,)
    assert len(parser.large) == 1
    assert "not JSON" in message(http.post("/v1/embeddings", content=content))


@pytest.mark.parametrize(
    ("path", "fields", "field"),
    [
        ("/api/chat", {}, "model"),
        ("/api/show", {}, "model"),
        ("/v1/embeddings", {"input": "a"}, "model"),
        ("/api/copy", {"destination": "x"}, "source"),
        ("/v1/embeddings", {"model": "demo", "input": "a"}, "instruction"),
        ("/q3e/embed", {"model": "demo", "texts": ["a"]}, "instruction"),
        ("/q3e/embed", {"model": "demo", "texts": ["a"]}, "task"),
        ("/embed", {"inputs": "a"}, "prompt_name"),
    ],
)
def test_only_a_text_to_embed_may_be_long(http: httpx.Client, path: str, fields: dict[str, Any], field: str) -> None:
    """A 30 MB instruction, put before 2,048 texts, took all memory; a name that long came back in the error."""
    answer = http.post(path, json={**fields, field: "a" * 30_000})
    assert answer.status_code == (422 if path == "/embed" else 400)
    assert message(answer) == f"{field} has 30000 characters, the limit is 20000"


def test_a_duration_of_many_digits_is_refused_at_once(http: httpx.Client) -> None:
    """Reading it took the square of their number: 16,000 digits held up the server for 3 s."""
    began = time.process_time()
    answer = http.post("/api/embed", json={"model": "demo", "input": "a", "keep_alive": "1" * 16_000})
    assert message(answer).startswith("keep_alive must be seconds or a duration")
    assert time.process_time() - began < 1


def test_of_many_unknown_fields_only_the_first_are_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    class Counted(dict[str, Any]):
        n_looked_at = 0

        def __iter__(self) -> Iterator[str]:
            for key in super().__iter__():
                self.n_looked_at += 1
                yield key

    with caplog.at_level(logging.WARNING):
        many = Counted((f"f{number}", 1) for number in range(100_000))
        Fields(many, Body({"input": {}})).log_unknown("/x", Notices())
    assert len(caplog.records) == 100
    assert many.n_looked_at <= 101


def test_the_pieces_of_many_tokens_are_fetched_in_parts(
    http: httpx.Client, fake: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real limits would need megabytes of tokens.
    monkeypatch.setattr(routes, "_PIECES_AT_ONCE", 10)
    monkeypatch.setattr(routes, "_MAX_PIECES", 100)
    n_at_once = []
    pieces = fake.pieces

    async def counted(model: str, ids: list[int]) -> list[bytes]:
        n_at_once.append(len(ids))
        return await pieces(model, ids)

    monkeypatch.setattr(fake, "pieces", counted)
    answer = http.post("/tokenize", json={"model": "demo", "content": "ab" * 50, "with_pieces": True})
    assert [token["piece"] for token in answer.json()["tokens"]] == list("ab" * 50)
    assert n_at_once == [10] * 10
    too_many = "the request has 101 tokens or more, an answer has the pieces of 100 at most"
    answer = http.post("/tokenize", json={"model": "demo", "content": "a" * 101, "with_pieces": True})
    assert (answer.status_code, message(answer)[: len(too_many)]) == (400, too_many)
    texts = {"model": "demo", "inputs": ["a" * 40, "b" * 40, "c" * 21, "d"], "add_special_tokens": False}
    answer = http.post("/tokenize", json=texts)
    assert (answer.status_code, message(answer)[: len(too_many)]) == (422, too_many)
    assert sum(n_at_once) == 100 + 80  # none of the text with which the tokens are too many
