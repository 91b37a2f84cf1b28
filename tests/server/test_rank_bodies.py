"""Bodies of any kind to the routes that rank: an error of the client in the dialect's shape, or right scores."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
from fake_service import FakeService
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest_plugins = ["serving"]

PATHS = ("/v1/rerank", "/rerank", "/v2/rerank", "/api/rerank")
N_CTX = 100  # the fake's
TEXT = st.text("ab é\n", max_size=6) | st.sampled_from(["", "a" * 99, "ab" * 60, "\0", "\ud800"])
DOCUMENTS = st.lists(TEXT | st.builds(lambda text: {"text": text}, TEXT) | st.sampled_from([None, 5, {}]), max_size=6)
BODIES = st.fixed_dictionaries(
    {"query": TEXT, "documents": DOCUMENTS},
    optional={
        "top_n": st.none() | st.integers(-2, 8) | st.sampled_from([2**31, "1", 1.0, True]),
        "raw_scores": st.none() | st.booleans() | st.just(0),
        "truncate": st.none() | st.booleans(),
        "instruction": st.sampled_from([None, "", "Find it", 7]),
    },
)


def is_right(body: dict[str, Any]) -> bool:
    """Whether the body is one that the routes are to answer, by what each field may be."""
    top_n, documents = body.get("top_n"), body["documents"]
    return (
        body["query"] != "\ud800"
        and bool(body["query"].strip())
        and bool(documents)
        and all(isinstance(each, str) or (isinstance(each, dict) and "text" in each) for each in documents)
        and all(text(each) != "\ud800" for each in documents)
        and (top_n is None or (type(top_n) is int and 0 <= top_n < 2**31))
        and type(body.get("raw_scores")) is not int
        and body.get("instruction") in (None, "Find it")
        and room(body) > 0
        and (body.get("truncate") is not False or all(len(text(each).encode()) <= room(body) for each in documents))
    )


def text(document: Any) -> str:
    return document if isinstance(document, str) else document["text"]


def room(body: dict[str, Any]) -> int:
    """How many bytes of a document the fake reads beside the query."""
    return N_CTX - len(body["query"].encode()) - 1


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=BODIES)
def test_a_client_error_or_right_scores(
    http: httpx.Client, fake: FakeService, path: str, body: dict[str, Any]
) -> None:
    # Python's json writes lone surrogates, which httpx's encoder refuses.
    answer = http.post(path, content=json.dumps({"model": "judge", **body}).encode())
    if not is_right(body):
        assert 400 <= answer.status_code < 500, answer.text
        found = answer.json()
        message = found["message"] if path == "/v2/rerank" else found["error"]
        assert message if isinstance(message, str) else message["message"]
        return
    assert answer.status_code == 200, answer.text
    logits = [text(each)[: room(body)].count(body["query"]) - 1 for each in body["documents"]]
    best = sorted(range(len(logits)), key=lambda place: (-logits[place], place))[: body.get("top_n") or None]
    results = answer.json()["results"]
    assert [each["index"] for each in results] == best
    for each in results:
        logit = logits[each["index"]]
        expected = logit if body.get("raw_scores") else 1 / (1 + math.exp(-logit))
        assert math.isclose(each["relevance_score"], expected, abs_tol=1e-12)
