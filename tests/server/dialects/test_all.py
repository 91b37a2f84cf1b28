"""All dialects on the real service with the demo model: the same text has the same vector on every route.

The vectors are the library's, and the cases of peers that need a model that understands are here. The demo model's
similarity is the overlap of words.
"""

from __future__ import annotations

import base64
import html
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ollama
import openai
import pytest
from alike import assert_alike
from command import expected
from fake_service import FakeService, served
from servers import served_locally
from world import BUNDLED

from q3e_local.embedding.prompts import TASKS
from q3e_local.models.own_names import Alias

LEGAL = "Find the clause that answers"
ALIASES = {
    "legal": Alias("demo", instruction=LEGAL, dim=48),
    "other": Alias("demo:latest"),
    "queries": Alias("demo-query"),
}


@pytest.fixture(scope="module")
def http(folder: Path) -> Iterator[httpx.Client]:
    indexes = (str(folder / "notes.q3e"),)
    with served_locally(models=("demo",), aliases=ALIASES, indexes=indexes) as client:
        yield client


def _openai(http: httpx.Client, text: str) -> Any:
    with openai.OpenAI(
        base_url=f"{http.base_url}/v1", api_key="x", http_client=httpx.Client(trust_env=False)
    ) as client:
        return client.embeddings.create(model="demo", input=text).data[0].embedding


def answered(http: httpx.Client, path: str, **body: Any) -> Any:
    return http.post(path, json=body).json()


def native(http: httpx.Client, texts: list[str], **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The vectors of /q3e/embed, and the whole answer."""
    answer = answered(http, "/q3e/embed", texts=texts, **options)
    return np.frombuffer(base64.b64decode(answer["vectors"]), "<f4").reshape(len(texts), -1), answer


ROUTES: dict[str, Callable[[httpx.Client, str], Any]] = {
    "ollama": lambda http, text: answered(http, "/api/embed", model="demo", input=text)["embeddings"][0],
    "ollama, older": lambda http, text: answered(http, "/api/embeddings", model="demo", prompt=text)["embedding"],
    "openai": _openai,
    "llama-server": lambda http, text: answered(http, "/embedding", content=text)[0]["embedding"][0],
    "tei": lambda http, text: answered(http, "/embed", inputs=[text, "x"])[0],
    "q3e-local": lambda http, text: native(http, [text], model="demo")[0][0],
}


@pytest.mark.parametrize(
    "text", ["a text of words", "Ti\u1ebf\u0302ng e\u0301", "日本語 🙂", "ends <|endoftext|>", "\0"]
)
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_has_the_librarys_vector(http: httpx.Client, route: str, text: str) -> None:
    found = np.float32(ROUTES[route](http, text))
    assert_alike(found, expected([text]).vectors[0])


@pytest.mark.parametrize(
    ("name", "options", "same_as"),
    [
        ("demo", {}, {}),
        ("DEMO:latest", {}, {}),
        ("demo:q8_0", {"dim": 64}, {"dim": 64}),
        ("demo-query", {}, {"kind": "query"}),
        ("demo-query:latest", {}, {"kind": "query"}),
        ("demo", {"kind": "query"}, {"kind": "query"}),
        ("demo-query", {"kind": "document"}, {}),
        ("demo-query", {"task": "code"}, {"kind": "query", "task": "code"}),
        ("demo", {"task": "sts"}, {"task": "sts"}),
        ("demo", {"instruction": "law"}, {"instruction": "law"}),
        ("legal", {}, {"kind": "query", "instruction": LEGAL, "dim": 48}),
        ("LEGAL:latest", {"dim": 100}, {"kind": "query", "instruction": LEGAL, "dim": 100}),
        ("legal", {"task": "code"}, {"kind": "query", "task": "code", "dim": 48}),
        ("legal", {"kind": "document"}, {"dim": 48}),
        ("other", {}, {}),
        ("queries", {}, {"kind": "query"}),
        ("demo", {"max_tokens": 5}, {"max_tokens": 5, "truncate": True}),
        ("demo", {"max_tokens": 10_000_000}, {}),
    ],
)
def test_names_and_options_mean_what_they_mean_to_the_library(
    http: httpx.Client, name: str, options: dict[str, Any], same_as: dict[str, Any]
) -> None:
    texts = ["What is the capital of China?", "e\u0301te\u0301 <think>\u0338 <|endoftext|>", "", "long words " * 300]
    vectors, answer = native(http, texts, model=name, **options)
    result = expected(texts, **same_as)
    assert_alike(vectors, result.vectors)
    assert (answer["model"], answer["space"]) == ("demo", result.space)
    assert (answer["prompt_tokens"], answer["truncated"]) == (list(result.prompt_tokens), list(result.truncated))


@pytest.mark.parametrize("limit", [1, 20, 32_768, 1_000_000])
def test_vllms_limit_is_the_librarys_and_counts_the_prompt(http: httpx.Client, limit: int) -> None:
    n_ctx = http.get("/v1/models/demo").json()["max_model_len"]
    text = "long words " * 300
    answer = http.post(
        "/v1/embeddings", json={"model": "demo-query", "input": [text], "truncate_prompt_tokens": limit}
    ).json()
    result = expected([text], kind="query", truncate=True, max_tokens=min(limit, n_ctx))
    assert_alike(np.float32([answer["data"][0]["embedding"]]), result.vectors)
    assert answer["usage"]["prompt_tokens"] == result.prompt_tokens[0]
    assert answer["truncated"] == ([0] if result.truncated[0] else [])


def test_token_ids_get_the_end_token_if_it_is_not_there(http: httpx.Client) -> None:
    ids = http.post("/tokenize", json={"content": "a text of words"}).json()["tokens"]
    ended = http.post("/tokenize", json={"content": "a text of words", "add_special": True}).json()["tokens"]
    assert len(ended) == len(ids) + 1
    answer = http.post("/v1/embeddings", json={"model": "demo", "input": [ids, ended]}).json()
    text = http.post("/v1/embeddings", json={"model": "demo", "input": "a text of words"}).json()
    for item in answer["data"]:
        assert np.allclose(item["embedding"], text["data"][0]["embedding"], atol=1e-6)
    assert answer["usage"]["prompt_tokens"] == 2 * text["usage"]["prompt_tokens"] == 2 * len(ended)
    assert http.post("/detokenize", json={"tokens": ids}).json() == {"content": "a text of words"}
    of_query_name = http.post("/tokenize", json={"model": "demo-query", "content": "a text of words"}).json()
    assert of_query_name["tokens"] == ids  # a prompt is put before a text that is embedded


def test_ids_and_texts_mixed_are_the_ids_of_all(http: httpx.Client) -> None:
    # llama.cpp tools/server/server-common.cpp: tokenize_mixed
    def ids(text: str) -> list[int]:
        return http.post("/tokenize", json={"content": text}).json()["tokens"]

    mixed = [*ids("a text"), " of words", " and", *ids(" more")]
    alone = [*ids("a text"), *ids(" of words"), *ids(" and"), *ids(" more")]
    for path in ("/v1/embeddings", "/embeddings"):
        answer = http.post(path, json={"input": [mixed, alone, {"prompt_string": mixed}], "dimensions": 64}).json()
        rows = np.float32([item["embedding"] for item in answer["data"]])
        assert np.allclose(rows, rows[1], atol=1e-6)
        assert answer["usage"]["prompt_tokens"] == 3 * (len(alone) + 1)


def test_tei_tokenizes_what_it_embeds(http: httpx.Client) -> None:
    # TEI core/src/tokenization.rs: prompt and text are tokenized as one
    for body, instruction in (({"model": "demo"}, TASKS["retrieval"].instruction), ({"model": "legal"}, LEGAL)):
        request = {**body, "inputs": ["who pays?", "x"], "prompt_name": "query"}
        tokens = http.post("/tokenize", json=request).json()
        n_tokens = http.post("/embed", json=request).headers["x-q3e-prompt-tokens"]
        assert sum(map(len, tokens)) == int(n_tokens)
        texts = http.post("/decode", json={"ids": [[token["id"] for token in of_text] for of_text in tokens]}).json()
        assert texts == [f"Instruct: {instruction}\nQuery:{text}" for text in ("who pays?", "x")]


def test_nearer_texts_have_higher_scores(client: ollama.Client) -> None:
    # ollama integration/embed_test.go: TestEmbedCosineDistanceCorrelation (cosine, Euclidean and Manhattan agree)
    texts = ["the cat sat on the mat", "a cat sat on a mat", "stock prices fell sharply today"]
    a, b, c = np.float32(client.embed("demo", texts).embeddings)
    assert a @ b > a @ c
    assert np.linalg.norm(a - b) < np.linalg.norm(a - c)
    assert np.abs(a - b).sum() < np.abs(a - c).sum()


def test_three_equal_texts_cost_three_times(client: ollama.Client) -> None:
    # ollama integration/embed_test.go: TestEmbedPromptEvalCount
    once = client.embed("demo", "the cat sat on the mat")
    three = client.embed("demo", ["the cat sat on the mat"] * 3)
    assert three.prompt_eval_count == 3 * once.prompt_eval_count
    assert np.allclose(three.embeddings, once.embeddings * 3, atol=1e-6)


def test_a_cut_text_is_the_text_that_remains(client: ollama.Client) -> None:
    # ollama integration/embed_test.go: TestEmbedTruncation
    text = "why is the sky blue and the grass green"
    whole = client.embed("demo", text)
    n_tokens = whole.prompt_eval_count
    assert client.embed("demo", text, truncate=False, options={"num_ctx": n_tokens}).embeddings == whole.embeddings
    for num_ctx in (3, n_tokens - 1):
        cut = client.embed("demo", text, options={"num_ctx": num_ctx})
        assert cut.prompt_eval_count == num_ctx
        with pytest.raises(ollama.ResponseError, match="context length"):
            client.embed("demo", text, truncate=False, options={"num_ctx": num_ctx})
    for num_ctx in (1, 0):
        with pytest.raises(ollama.ResponseError, match="after truncation exceeds maximum context length"):
            client.embed("demo", text, options={"num_ctx": num_ctx})
    mixed = client.embed("demo", ["hi", text * 50, text], options={"num_ctx": 30})
    assert mixed.prompt_eval_count <= 90
    assert client.embed("demo", "hi", options={"num_ctx": 10_000_000}).prompt_eval_count == 2


@pytest.mark.parametrize("n_words", [256, 512, 800])
def test_long_texts_need_no_settings(client: ollama.Client, n_words: int) -> None:
    # ollama integration/embed_test.go: TestEmbedLargeInput
    assert client.embed("demo", "word " * n_words).prompt_eval_count > n_words


def test_lengths_around_a_multiple_of_256(http: httpx.Client) -> None:
    # llama.cpp tools/server/tests/unit/test_embedding.py: 253 to 256 tokens in one batch
    inputs = [[5000] * n for n in (252, 253, 254, 255, 256)]
    together = http.post("/v1/embeddings", json={"model": "demo", "input": inputs}).json()["data"]
    for ids, item in zip(inputs, together, strict=True):
        alone = http.post("/v1/embeddings", json={"model": "demo", "input": ids}).json()["data"][0]
        assert np.allclose(item["embedding"], alone["embedding"], atol=1e-4)


def test_what_the_model_refuses_names_its_field(http: httpx.Client) -> None:
    for body, param in (
        ({"input": "a", "dimensions": 257}, "dimensions"),
        ({"input": [37_303]}, "input"),
        ({"input": "y " * 40_000, "truncate": False}, "input"),
    ):
        answer = http.post("/v1/embeddings", json={"model": "demo", **body})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    answer = http.post("/detokenize", json={"tokens": [37_303]})
    assert answer.json()["error"]["message"] == "token id 37303 is not in the vocabulary of 37303"


def test_unloading_and_loading_again(client: ollama.Client) -> None:
    # What `ollama stop` sends; the memory comes back a moment later.
    before = client.embed("demo", "a")
    assert [model.model for model in client.ps().models] == ["demo:latest"]
    client.generate("demo", keep_alive=0)
    assert client.embed("demo", "a").embeddings == before.embeddings
    assert client.embed("demo", "a", keep_alive=0).embeddings == before.embeddings


WIRES: dict[str, tuple[str, dict[str, Any]]] = {
    "ollama": ("/api/embed", {"input": "a"}),
    "ollama, older": ("/api/embeddings", {"prompt": "a"}),
    "ollama, show": ("/api/show", {}),
    "openai": ("/v1/embeddings", {"input": "a"}),
    "llama-server": ("/embedding", {"content": "a"}),
    "tei": ("/embed", {"inputs": "a"}),
    "q3e-local": ("/q3e/embed", {"texts": ["a"]}),
    "q3e-local, model": ("/q3e/model", {}),
    "q3e-local, tokens": ("/q3e/tokens", {"texts": ["a"]}),
}


@pytest.mark.parametrize("wire", WIRES)
def test_an_unknown_model_is_named_once_with_the_names_there_are(http: httpx.Client, wire: str) -> None:
    path, body = WIRES[wire]
    answer = http.post(path, json={"model": "nope", **body})
    assert answer.status_code == 404
    assert answer.text.count("nope") == 1
    assert f"; there are {', '.join([*BUNDLED, 'legal', 'other', 'queries'])}" in answer.text
    assert "q3e-local" not in answer.text
    if wire == "ollama":
        assert answer.json()["error"].startswith('model "nope" not found, try pulling it first; ')


@pytest.mark.parametrize("wire", WIRES)
def test_a_model_that_is_not_here_yet_says_how_a_client_brings_it(http: httpx.Client, wire: str) -> None:
    path, body = WIRES[wire]
    answer = http.post(path, json={"model": "qwen3-embedding:4b-query", **body})
    assert answer.status_code == 404
    assert "-m demo" not in answer.text
    if wire == "ollama, show":
        assert answer.json() == {"error": "model 'qwen3-embedding:4b-query' not found"}
    elif wire.startswith("ollama"):
        assert answer.json() == {"error": 'model "qwen3-embedding:4b-query" not found, try pulling it first'}
    else:
        assert "qwen3-embedding:4b is not on this machine; bring it here with POST /api/pull" in answer.text


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ["legal", "demo-query"])
def test_a_name_whose_texts_are_queries_already_takes_no_second_query(
    http: httpx.Client, wire: str, name: str
) -> None:
    path, body = WIRES[wire]
    answer = http.post(path, json={"model": f"{name}-query", **body})
    assert answer.status_code == (422 if wire == "tei" else 400)
    assert f"texts under '{name}' are queries already; leave the last -query out" in answer.text


@pytest.mark.parametrize("wire", ["openai", "tei"])
def test_a_wrong_dim_has_its_name_on_the_wire(http: httpx.Client, wire: str) -> None:
    path, body = WIRES[wire]
    answer = http.post(path, json={"model": "demo", **body, "dimensions": 31})
    assert "dimensions must be between 32 and 256 for demo, got 31" in answer.text


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_every_line_of_the_docs_page_works_as_it_stands(http: httpx.Client) -> None:
    page = http.get("/docs").text
    lines = [html.unescape(line) for line in re.findall("<pre>(.*?)</pre>", page)]
    assert len(lines) > 10
    assert any("/api/search" in line for line in lines)
    assert sum("demo-reranker" in line for line in lines) > 5
    assert "11434" not in page
    for line in lines:
        command = line.replace("curl", "curl -sS -w '\\n%{http_code}'", 1)
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True, text=True)
        status = done.stdout.rpartition("\n")[2]
        assert status == ("404" if "no-such-model" in line else "200"), (line, done.stdout)


def test_the_docs_page_has_the_key_and_the_socket_of_its_server() -> None:
    with served(FakeService(), api_keys=("k",), unix_socket=Path("/run/my q3e")) as http:
        page = html.unescape(http.get("/docs").text)
        start = "curl --unix-socket '/run/my q3e' -H \"Authorization: Bearer $Q3E_API_KEY\" -X POST http://127.0.0.1:"
        assert start in page
        assert '"model":"demo"' in page
    with served(FakeService(), api_keys=("k", "l")) as http:  # the variable holds both, with a comma
        assert "Bearer ${Q3E_API_KEY%%,*}" in html.unescape(http.get("/docs").text)


def test_pieces_of_a_split_character_make_the_text_again(http: httpx.Client) -> None:
    text = "a 🙂 𠮷"
    tokens = http.post("/tokenize", json={"content": text, "add_special": True, "with_pieces": True}).json()["tokens"]
    written = [token["piece"] for token in tokens]
    assert any(isinstance(piece, list) for piece in written)
    assert written[-1] == "<|endoftext|>"
    parts = [piece.encode() if isinstance(piece, str) else bytes(piece) for piece in written[:-1]]
    assert b"".join(parts).decode() == text
    ids = [token["id"] for token in tokens]
    assert http.post("/decode", json={"ids": ids}).json() == [text]
    assert http.post("/decode", json={"ids": [ids], "skip_special_tokens": False}).json() == [f"{text}<|endoftext|>"]


def test_no_name_reaches_the_file_system(
    http: httpx.Client, tiny_gguf: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each path has a model behind it, so that a server that opened the file would answer with its vector."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for file in ("secret", "secret.gguf"):
        shutil.copy(tiny_gguf("f16"), file)
        path = tmp_path / file
        outside = f"../{tmp_path.name}/{file}"
        for name in (file, f"./{file}", outside, f"x/../{file}", str(path), f"~/{file}", f"file://{path}"):
            for route, body in WIRES.values():
                answer = http.post(route, json={**body, "model": name})
                assert answer.status_code in (400, 404, 422), (name, route)
