"""Inputs that only llama-server takes, on each of its routes, with the cases of llama-server's tests.

llama.cpp tools/server/tests/unit/test_embedding.py and tools/server/server-common.cpp (tokenize_input_prompts).
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import numpy as np
import pytest
from fake_service import END, FakeService, vector

from q3e_local.errors import InvalidTextError

pytest_plugins = ["serving"]
pytestmark = pytest.mark.usefixtures("_loaded")

PATHS = ("/embedding", "/embeddings", "/v1/embeddings")
AB = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def vectors(answer: httpx.Response) -> list[Any]:
    """The vectors of an answer, which is OpenAI's object or llama-server's bare list."""
    assert answer.status_code == 200, answer.text
    found = answer.json()
    if "data" in found:
        return [item["embedding"] for item in found["data"]]
    return [item["embedding"][0] for item in found]


# The value of a field, and for each input in it: the last id before the end token, and the number of ids with that.
SHAPES = [
    ("", [(0, 1)]),
    ("string", [("g", 7)]),
    ([12, 34, 56], [(56, 4)]),
    ([12, 34, "string", 56, 78], [(78, 11)]),
    ([12, "ab"], [("b", 4)]),
    (["ab", 12], [(12, 4)]),
    (["ab", 12, "", "cd", "e"], [("e", 7)]),
    ([12, END, "ab", END], [("b", 5)]),
    (["string1", "string2"], [("1", 8), ("2", 8)]),
    (["string1", [12, 34, 56]], [("1", 8), (56, 4)]),
    ([[12, 34, 56], [12, 34, 56]], [(56, 4), (56, 4)]),
    ([[12, 34, 56], [12, "string", 34, 56]], [(56, 4), (56, 10)]),
    ({"prompt_string": "string"}, [("g", 7)]),
    ({"prompt_string": ""}, [(0, 1)]),
    ({"prompt_string": [12, "ab"]}, [("b", 4)]),
    ({"prompt_string": "string", "content": None}, [("g", 7)]),
    ({"content": [{"type": "text", "text": "string"}]}, [("g", 7)]),
    ({"content": AB}, [("b", 3)]),
    (["string1", {"prompt_string": "ab"}, {"content": AB}], [("1", 8), ("b", 3), ("b", 3)]),
    ([[97], [97, 98, END]], [(97, 2), (98, 3)]),
    (["a", "", [12], [12, "ab"], {"content": AB}], [("a", 2), (0, 1), (12, 2), ("b", 4), ("b", 3)]),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("value", "expected"), SHAPES)
def test_shapes_of_input(http: httpx.Client, path: str, value: Any, expected: list[tuple[Any, int]]) -> None:
    # test_embedding_mixed_input, test_embedding_content_text_same_as_string
    rows = [vector(ord(last) if isinstance(last, str) else last, n_ids) for last, n_ids in expected]
    assert np.allclose(vectors(http.post(path, json={"input": value})), rows)
    if path != "/v1/embeddings":
        assert np.allclose(vectors(http.post(path, json={"content": value})), rows)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("value", "where"),
    [  # test_embedding_invalid_input, and what llama-server refuses in code
        ([], "must not be empty"),
        ([[]], "cannot be empty"),
        ([[12], []], "cannot be empty"),
        ({}, "input must have prompt_string"),
        ({"prompt_string": 5}, "input must have prompt_string"),
        ({"prompt_string": None}, "input must have prompt_string"),
        ({"prompt_string": {"prompt_string": "a"}}, "input must have prompt_string"),
        ({"prompt_string": ["a", "b"]}, "input.prompt_string must be"),
        ({"prompt_string": []}, "cannot be empty"),
        ({"prompt_string": "a", "multimodal_data": ["AAAA"]}, "the model reads text alone"),
        ({"content": "string"}, "input.content must be a list"),
        ({"content": []}, "input.content must be a list"),
        ({"content": ["a"]}, "input.content[0] must be a part of type text"),
        ({"content": [{"type": "unknown"}]}, "got one of type 'unknown'"),
        ({"content": [*AB, {"type": "image_url", "image_url": {"url": "x"}}]}, "input.content[2] must be"),
        ({"content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}, "got one of type 'input_audio'"),
        ({"content": [{"type": "input_video", "input_video": {"url": "x"}}]}, "got one of type 'input_video'"),
        ({"content": [{"type": "text"}]}, "input.content[0] must be a part of type text with a text"),
        ({"content": [{"type": ["text"], "text": "a"}]}, "input.content[0] must be"),
        (["a", None], "input[1] must be a text, a list of token ids"),
        (["a", ["b"]], "input[1] must be a text, a list of token ids"),
        (["a", {"content": "b"}], "input[1].content must be a list"),
        ([12, None], "got null among"),
        ([12, "a", None], "got null among"),
        ([12, "a", 1.5], "got 1.5 among"),
        ([12, {"prompt_string": "a"}], "input"),
        ([12, [34]], "input"),
        ([12, "a", -1], "no vocabulary has"),
        ([-1], "no vocabulary has"),
        ([2**31], "no vocabulary has"),
        ([[2**70]], "whole numbers as token ids, got 1.18"),
        ([999], "not in the vocabulary"),
        ([97, True], "got true among"),
        ([True], "input[0] must be a text, a list of token ids"),
        ([[97], ["a"]], "input[1] must be a text, a list of token ids"),
        ([12, "a", 999], "not in the vocabulary"),
        (True, "input must be a text, a list of token ids"),
        (5, "or an object with prompt_string or content, or a list of these, got 5"),
        (["a"] * 51, "51 items, the limit of this server is 50"),
        ([12, *["a"] * 51], "52 items, the limit of this server is 50"),
        ([[12, *["a"] * 30], [12, *["a"] * 30]], "items, the limit of this server is 50"),
    ],
)
def test_what_is_refused(http: httpx.Client, path: str, value: Any, where: str) -> None:
    answer = http.post(path, json={"input": value})
    assert answer.status_code == 400, answer.text
    assert where in answer.json()["error"]["message"]
    if path != "/embedding":
        assert answer.json()["error"]["param"] == "input"
    else:
        as_content = http.post(path, json={"content": value}).json()["error"]
        assert (as_content["code"], as_content["type"]) == (400, "invalid_request_error")
        assert re.sub("^input", "content", where) in as_content["message"]


def test_a_mixed_input_is_cut_or_refused_as_ids_are(http: httpx.Client) -> None:
    mixed = [*range(60), "y" * 60]
    cut = http.post("/v1/embeddings", json={"input": ["a", mixed]})
    assert cut.json()["truncated"] == [1]
    assert np.allclose(vectors(cut)[1], vector(ord("y"), 100))
    refused = http.post("/v1/embeddings", json={"input": ["a", mixed], "truncate": False}).json()["error"]
    assert refused["code"] == "context_length_exceeded"
    assert "text 1: has 121 tokens" in refused["message"]


def test_a_text_among_ids_that_cannot_be_tokenized_is_named_by_the_place_of_its_input(
    http: httpx.Client, fake: FakeService
) -> None:
    fake.fail = InvalidTextError("has no end", 0)
    answer = http.post("/v1/embeddings", json={"input": ["a", "b", [12, "c"]]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
    assert answer.json()["error"]["message"] == "text 2: has no end"
