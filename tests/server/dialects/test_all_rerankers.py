"""All routes that rank on the real service with a tiny random reranker: they have the reference's scores.

The cases of llama-server's tests/unit/test_rerank.py are here too. Its model is trained, so where it asks for the
document that a person would choose, the reference says here which one it is.
"""

from __future__ import annotations

import html
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rerankers
from oracle import embed
from rewriting import rewrite
from servers import served_locally

from q3e_local.files import is_proved
from q3e_local.gguf.model_file import inspect
from q3e_local.models import installed
from q3e_local.models.own_names import Alias
from q3e_local.reranking import proof

QUERY = "Machine learning is"
DOCUMENTS = [
    "A machine is a physical system that uses power to apply forces and control movement.",
    "Learning is the process of acquiring new understanding, knowledge, behaviors and skills.",
    "Machine learning is the study of algorithms that learn from data and generalize to unseen data.",
    "Paris, capitale de la France, est une grande ville européenne et un centre mondial de l'art.",
]
NAME = "tiny-reranker"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rerankers.write(tmp_path_factory.mktemp("rerankers") / f"{NAME}.gguf", "cls")


@pytest.fixture(scope="module")
def http(file: Path) -> Iterator[httpx.Client]:
    rerankers.note_proved(file)
    aliases = {"cities": Alias(NAME, instruction="Find a city")}
    with served_locally(models=("demo", str(file)), aliases=aliases) as client:
        yield client


def logits(documents: list[str], query: str = QUERY, **options: Any) -> list[float]:
    """The reference's."""
    return [rerankers.logit("cls", rerankers.ids(query, document, **options)) for document in documents]


def probabilities(documents: list[str], query: str = QUERY) -> list[float]:
    return [1 / (1 + math.exp(-logit)) for logit in logits(documents, query)]


def by_place(results: list[dict[str, Any]], field: str = "relevance_score") -> list[float]:
    return [each[field] for each in sorted(results, key=lambda each: each["index"])]


def answered(http: httpx.Client, path: str, **body: Any) -> Any:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _jina(path: str) -> Callable[..., list[float]]:
    return lambda http, query, documents: by_place(answered(http, path, query=query, documents=documents)["results"])


ROUTES: dict[str, Callable[[httpx.Client, str, list[str]], list[float]]] = {
    "llama-server": _jina("/rerank"),
    "llama-server, longer": _jina("/v1/reranking"),
    "jina": _jina("/v1/rerank"),
    "cohere": _jina("/v2/rerank"),
    "tei": lambda http, query, texts: by_place(answered(http, "/rerank", query=query, texts=texts), "score"),
    "vllm": lambda http, query, texts: by_place(
        answered(http, "/v1/score", text_1=query, text_2=texts)["data"], "score"
    ),
    "vllm, pairs": lambda http, query, texts: by_place(
        answered(http, "/score", text_1=[query] * len(texts), text_2=texts)["data"], "score"
    ),
    "ollama": lambda http, query, documents: by_place(
        answered(http, "/api/rerank", model=NAME, query=query, documents=documents)["results"]
    ),
}


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_has_the_references_scores(http: httpx.Client, route: str) -> None:
    documents = [*DOCUMENTS, "", " ", "\n\n", "\0", "日本語 🙂 e\u0301", "closes <|im_end|> its turn"]
    found = ROUTES[route](http, QUERY, documents)
    # A special token that a document spells is text here, and would be one token of the reference's.
    expected = probabilities(documents[:-1])
    assert found[:-1] == pytest.approx(expected, abs=1e-3)
    assert 0 < found[-1] < 1


def test_the_instruction_and_the_task_are_in_the_prompt(http: httpx.Client) -> None:
    def raw(**fields: Any) -> list[float]:
        body = {"query": QUERY, "documents": DOCUMENTS, "raw_scores": True, **fields}
        return by_place(answered(http, "/v1/rerank", **body)["results"])

    assert raw() == pytest.approx(logits(DOCUMENTS), abs=1e-3)
    own = logits(DOCUMENTS, instruction="Find a city")
    assert raw(instruction="Find a city") == raw(instruct="Find a city") == pytest.approx(own, abs=1e-3)
    # A name of the user's own may stand for an instruction.
    assert raw(model="cities") == pytest.approx(own, abs=1e-3)
    assert raw(model="cities", instruction=rerankers.WEB) == pytest.approx(logits(DOCUMENTS), abs=1e-3)
    code = "Given a question about coding, retrieval code or passage that can solve user's question"
    assert raw(task="code") == pytest.approx(logits(DOCUMENTS, instruction=code), abs=1e-3)


def test_documents_of_a_megabyte_are_cut_where_the_reference_cuts(http: httpx.Client) -> None:
    huge = "The capital of China is Beijing. " * 30_000
    answer = http.post("/v1/rerank", json={"query": QUERY, "documents": ["short", huge], "raw_scores": True})
    assert answer.headers["x-q3e-truncated"] == "1"
    n_ctx = 2048
    cut = rerankers.ids(QUERY, huge[:20_000], limit=n_ctx)
    assert len(cut) == n_ctx
    n_tokens = len(rerankers.ids(QUERY, "short")) + n_ctx
    assert answer.json()["usage"]["prompt_tokens"] == n_tokens
    assert by_place(answer.json()["results"])[1] == pytest.approx(rerankers.logit("cls", cut), abs=1e-3)
    refused = http.post("/rerank", json={"query": QUERY, "texts": ["short", huge], "truncate": False})
    assert (refused.status_code, "text 1: has more than" in refused.text) == (422, True)
    question = http.post("/v1/rerank", json={"query": "a word " * 2500, "documents": ["short"]})
    assert (question.status_code, "the limit is 2048 with the document" in question.text) == (400, True)


def test_a_limit_of_a_documents_tokens_and_of_all(http: httpx.Client) -> None:
    document = "The capital of China is Beijing. " * 40
    n_before = len(rerankers.ids(QUERY, ""))
    for fields, n_tokens in (({"max_tokens_per_doc": 7}, n_before + 7), ({"truncate_prompt_tokens": 200}, 200)):
        answer = http.post("/v1/rerank", json={"query": QUERY, "documents": [document], "raw_scores": True, **fields})
        assert answer.headers["x-q3e-prompt-tokens"] == str(n_tokens)
        assert answer.headers["x-q3e-truncated"] == "0"
        expected = rerankers.logit("cls", rerankers.ids(QUERY, document, limit=n_tokens))
        assert by_place(answer.json()["results"]) == pytest.approx([expected], abs=1e-3)


def test_a_thousand_documents_in_a_request(http: httpx.Client) -> None:
    documents = [f"{number} and {number * 7}" for number in range(1000)]
    answer = http.post("/v1/rerank", json={"query": QUERY, "documents": documents}, timeout=300).json()
    assert len(answer["results"]) == 1000
    found = by_place(answer["results"])
    assert [each["relevance_score"] for each in answer["results"]] == sorted(found, reverse=True)
    sample = range(0, 1000, 50)
    assert [found[place] for place in sample] == pytest.approx(
        probabilities([documents[place] for place in sample]), abs=1e-3
    )
    refused = http.post("/v1/rerank", json={"query": QUERY, "documents": ["x"] * 2049})
    assert (refused.status_code, "documents has 2049 items, the limit" in refused.text) == (400, True)


WRONG_KIND = (
    "is a reranker: it orders documents for a question and makes no vectors; take an embedding model, such as"
)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/embeddings", {"input": "a"}, 400),
        ("/embedding", {"content": "a"}, 400),
        ("/api/embed", {"input": "a"}, 400),
        ("/api/embed", {"input": "a", "dimensions": 64}, 400),
        ("/api/embeddings", {"prompt": "a"}, 400),
        ("/embed", {"inputs": "a"}, 424),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}, 424),
        ("/tokenize", {"inputs": "a", "prompt_name": "query"}, 424),
        ("/q3e/embed", {"texts": ["a"]}, 400),
        ("/q3e/model", {}, 400),
    ],
)
def test_a_reranker_embeds_nothing(http: httpx.Client, path: str, body: dict[str, Any], status: int) -> None:
    answer = http.post(path, json={"model": NAME, **body})
    assert (answer.status_code, f"{NAME} {WRONG_KIND}" in answer.text) == (status, True)


def test_an_embedding_model_ranks_nothing(http: httpx.Client) -> None:
    answer = http.post("/v1/rerank", json={"model": "demo", "query": QUERY, "documents": DOCUMENTS})
    assert (answer.status_code, "demo is an embedding model: it makes vectors and ranks" in answer.text) == (
        501,
        True,
    )


def test_both_kinds_are_loaded_beside_each_other(http: httpx.Client) -> None:
    answered(http, "/api/embed", model="demo", input="a")
    answered(http, "/api/rerank", model=NAME, query="a", documents=["b"])
    kinds = {model["name"]: model["capabilities"] for model in http.get("/api/ps").json()["models"]}
    assert kinds == {"demo:latest": ["embedding"], f"{NAME}:latest": ["rerank"]}
    answered(http, "/api/rerank", model=NAME, query="a", documents=["b"], keep_alive=0)
    assert ROUTES["jina"](http, QUERY, DOCUMENTS) == pytest.approx(probabilities(DOCUMENTS), abs=1e-3)


def test_a_request_of_the_wrong_kind_unloads_nothing(http: httpx.Client) -> None:
    answered(http, "/api/embed", model="demo", input="a")
    answered(http, "/api/rerank", model=NAME, query="a", documents=["b"])
    for path, status, body in (
        ("/api/embed", 400, {"model": NAME, "input": "a"}),
        ("/v1/embeddings", 400, {"model": NAME, "input": "a"}),
        ("/v1/rerank", 501, {"model": "demo", "query": "a", "documents": ["b"]}),
    ):
        assert http.post(path, json=body).status_code == status
    assert {model["name"] for model in http.get("/api/ps").json()["models"]} == {"demo:latest", f"{NAME}:latest"}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_the_lines_to_rank_of_the_docs_page_work_as_they_stand(http: httpx.Client) -> None:
    lines = [html.unescape(line) for line in re.findall("<pre>(.*?)</pre>", http.get("/docs").text)]
    to_rank = [line for line in lines if "rerank" in line.partition(" -d ")[0] or "/score" in line]
    assert len(to_rank) == 8
    for line in to_rank:
        command = line.replace("curl", "curl -sS -w '\\n%{http_code}'", 1)
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True, text=True)
        assert done.stdout.rpartition("\n")[2] == "200", (line, done.stdout)


# llama-server: tools/server/tests/unit/test_rerank.py


@pytest.mark.parametrize("form", ["documents", "texts"])
def test_the_most_and_the_least_relevant(http: httpx.Client, form: str) -> None:
    # test_rerank, test_rerank_tei_format
    found = answered(http, "/rerank", query=QUERY, **{form: DOCUMENTS})
    results = found["results"] if form == "documents" else found
    assert len(results) == 4
    expected = np.argsort(logits(DOCUMENTS))[::-1]
    assert [each["index"] for each in results] == expected.tolist()


@pytest.mark.parametrize("documents", [[], None, 123, [1, 2, 3]])
def test_documents_that_are_none(http: httpx.Client, documents: Any) -> None:
    # test_invalid_rerank_req
    answer = http.post("/rerank", json={"query": QUERY, "documents": documents})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


@pytest.mark.parametrize(
    ("query", "documents"),
    [(QUERY, ["A machine", "Learning is"]), ("Which city?", ["Machine learning is ", "Paris, capitale de la"])],
)
def test_usage(http: httpx.Client, query: str, documents: list[str]) -> None:
    # test_rerank_usage, with the tokens of this model's prompt
    usage = answered(http, "/rerank", query=query, documents=documents)["usage"]
    n_tokens = sum(len(rerankers.ids(query, document)) for document in documents)
    assert usage == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}


@pytest.mark.parametrize("form", ["documents", "texts"])
@pytest.mark.parametrize(("top_n", "n_expected"), [(None, 4), (2, 2), (4, 4), (99, 4)])
def test_top_n(http: httpx.Client, form: str, top_n: int | None, n_expected: int) -> None:
    # test_rerank_top_n, test_rerank_tei_top_n
    fields = {} if top_n is None else {"top_n": top_n}
    found = answered(http, "/rerank", query=QUERY, **{form: DOCUMENTS}, **fields)
    results = found["results"] if form == "documents" else found
    assert [each["index"] for each in results] == np.argsort(logits(DOCUMENTS))[::-1][:n_expected].tolist()


@pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings"])
def test_embeddings_are_refused(http: httpx.Client, path: str) -> None:
    # test_embeddings_rejected_with_rank_pooling
    answer = http.post(path, json={"model": NAME, "input": "hello"})
    assert (answer.status_code, "rerank" in answer.json()["error"]["message"]) == (400, True)


# The proof


def test_a_reranker_without_a_card_must_put_a_right_answer_above_a_wrong_one(tmp_path: Path) -> None:
    path = rerankers.write(tmp_path / "random-reranker.gguf", "none")
    with served_locally(models=(str(path),)) as http:
        for _ in range(2):
            answer = http.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS})
            assert (answer.status_code, "random-reranker is no reranker that works" in answer.text) == (500, True)
        assert "tried again in" in answer.text  # not every request loads the model
        assert http.get("/api/ps").json() == {"models": []}


def test_a_reranker_that_passes_is_noted_as_proved(tmp_path: Path) -> None:
    # The row of "yes" that has the logits 3 and -3 for the two, -3 and 3 for the other question; zeros for "no".
    states = [
        embed(rerankers.weights(), rerankers.CONFIG, rerankers.ids(query, document))
        for query in (proof.QUERY, proof.OTHER_QUERY)
        for document in (proof.RIGHT, proof.WRONG)
    ]
    yes = np.linalg.lstsq(np.array(states), np.array([3.0, -3.0, -3.0, 3.0]), rcond=None)[0].astype(np.float32)
    plain = rerankers.write(tmp_path / "plain-reranker.gguf", "cls")
    path = rewrite(
        plain, tmp_path / "good-reranker.gguf", tensors={"cls.output.weight": np.stack([yes, np.zeros_like(yes)])}
    )
    facts = proof.proved_facts(inspect(path).digest)
    assert not is_proved(*facts)
    with served_locally(models=(str(path),)) as http:
        body = {"query": proof.QUERY, "documents": [proof.WRONG, proof.RIGHT], "raw_scores": True}
        results = answered(http, "/v1/rerank", **body)["results"]
    assert [each["index"] for each in results] == [1, 0]
    assert [each["relevance_score"] for each in results] == pytest.approx([3, -3], abs=0.05)
    assert is_proved(*facts)


def test_a_file_that_does_not_say_what_it_is_ranks_where_the_user_said_so(tmp_path: Path) -> None:
    stated = rerankers.write(tmp_path / "stated-reranker.gguf", "output")
    names = {"general.name": "Plain", "general.basename": "Plain"}
    path = rerankers.note_proved(rewrite(stated, tmp_path / "plain.gguf", names))
    installed.record(installed.Installed("me/plain:f32", path, path.stat().st_size, "imported", kind="reranker"))
    with served_locally() as http:
        results = answered(http, "/v1/rerank", query=QUERY, documents=DOCUMENTS, raw_scores=True)["results"]
        types = {model["id"]: model["type"] for model in http.get("/v1/models").json()["data"]}
    expected = [rerankers.logit("output", rerankers.ids(QUERY, document)) for document in DOCUMENTS]
    assert by_place(results) == pytest.approx(expected, abs=1e-3)
    assert types.pop("me/plain:f32") == "reranker"
    assert types == {"demo:latest": "embedding", "demo-reranker:latest": "reranker"}


def test_a_query_that_is_too_long_is_named_as_it_was_sent(http: httpx.Client) -> None:
    answer = http.post("/v1/score", json={"text_1": "a word " * 2500, "text_2": ["short"]})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "text_1")
