"""`Encoder` and `CrossEncoder` run mteb's tasks, and the scores are those of the vectors and of the logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from local_tasks import (
    DOCUMENTS,
    INSTRUCTION,
    QUESTIONS,
    FewNotesRetrieval,
    NotesRetrieval,
    metadata,
    ndcg_at_10,
)
from mteb.results.task_result import TaskError
from mteb.types import PromptType
from torch.utils.data import DataLoader

import q3e_local
from q3e_local import EmbedRequest
from q3e_local.errors import OptionError
from q3e_local.integrations.mteb import CrossEncoder, Encoder, Instructions, Line, line_of


def loader(*texts: str, **columns: list[str]) -> Any:
    return DataLoader(Dataset.from_dict({"text": list(texts), **columns}), batch_size=2)


def where(type: str = "Retrieval", **of_task: Any) -> dict[str, Any]:
    return {"task_metadata": metadata("Q3ETask", type, **of_task), "hf_split": "test", "hf_subset": "default"}


@pytest.fixture(scope="module")
def reranker(taught: Path) -> Any:
    with q3e_local.load_reranker(taught) as reranker:
        yield reranker


def test_mteb_finds_nothing_wrong_with_the_encoder(embedder):
    results = mteb.mock_run(Encoder(embedder, dim=64))
    ran = [name for name, status in results.items() if status is not None]
    assert (results.all_passed, len(ran) > 20) == (True, True), results.to_markdown()


def test_mteb_finds_nothing_wrong_with_the_cross_encoder(reranker):
    results = mteb.mock_run(CrossEncoder(reranker))
    ran = {name: status for name, status in results.items() if status is not None}
    # What a cross-encoder cannot do in mteb: find documents that no first stage has found.
    failed = {name for name, status in ran.items() if isinstance(status, TaskError)}
    assert all("requires top_ranked documents" in ran[name].exception for name in failed), results.to_markdown()
    assert {"MockRerankingTask", "MockInstructionReranking"} <= ran.keys() - failed


@pytest.mark.parametrize("dim", [None, 64])
def test_a_tasks_score_is_that_of_the_vectors_and_lands_in_mtebs_files(embedder, dim, tmp_path):
    found = mteb.evaluate(
        Encoder(embedder, dim=dim), NotesRetrieval(), cache=mteb.ResultCache(tmp_path), show_progress_bar=False
    )
    queries = embedder.embed_queries(QUESTIONS, dim, instruction=INSTRUCTION).vectors
    expected = ndcg_at_10(queries @ embedder.embed_documents(DOCUMENTS, dim).vectors.T)
    assert 0.5 < expected < 1
    assert found.task_results[0].get_score() == pytest.approx(expected, abs=1e-5)
    own = "" if dim is None else f"experiments/embed_dim_{dim}/"
    file = tmp_path / "results" / "q3e-local__demo" / embedder.digest / f"{own}Q3ENotesRetrieval.json"
    assert json.loads(file.read_text())["scores"]["test"][0]["main_score"] == pytest.approx(expected, abs=1e-5)


def test_vectors_are_the_librarys_cut_where_the_authors_cut(embedder):
    texts = ["a note", "", "long words " * 9000]
    found = Encoder(embedder).encode(loader(*texts), prompt_type=PromptType.document, **where())
    expected = embedder.embed(EmbedRequest(texts, "document", truncate=True, max_tokens=8192))
    assert expected.truncated == (False, False, True)
    np.testing.assert_allclose(found, expected.vectors, atol=1e-6)
    assert found.dtype == np.float32
    assert Encoder(embedder).encode(loader(), **where()).shape == (0, embedder.n_embd)


TABLE: Instructions = {"Q3ETask": "Of the table", "Q3EBoth": {"query": "Of a query", "passage": "Of a passage"}}
OWN = {"query": "Of mteb"}
OF_TABLE = Line(instruction="Of the table")


@pytest.mark.parametrize(
    ("task", "instructions", "of_document", "of_others"),
    [
        (metadata("Q3ETask", prompt=OWN), {}, Line(), Line(instruction="Of mteb")),
        (metadata("Q3ETask", prompt="Of mteb"), {}, Line(), Line(instruction="Of mteb")),
        (metadata("Q3ETask", prompt=OWN), TABLE, Line(), OF_TABLE),
        (metadata("Q3EBoth"), TABLE, Line(instruction="Of a passage"), Line(instruction="Of a query")),
        # The authors' code leaves only the documents of retrieval bare.
        (metadata("Q3ETask", "Reranking"), TABLE, OF_TABLE, OF_TABLE),
        (metadata("Q3EOther", "Reranking", prompt=OWN), TABLE, Line(), Line(instruction="Of mteb")),
        (metadata("Q3ETask", "STS"), TABLE, Line("sts"), Line("sts")),
        (metadata("Q3ETask", "PairClassification"), {}, Line("sts"), Line("sts")),
        (metadata("Q3ETask", "BitextMining"), {}, Line("bitext"), Line("bitext")),
        (metadata("Q3ETask", "BitextMining"), TABLE, OF_TABLE, OF_TABLE),
        (metadata("Q3EOwn", "Clustering", prompt="Sort"), {}, Line(), Line(instruction="Sort")),
    ],
)  # fmt: skip
def test_each_task_has_its_instruction(task, instructions, of_document, of_others):
    assert line_of(task, instructions, is_document=True) == of_document
    assert line_of(task, instructions, is_document=False) == of_others


def test_a_task_without_a_prompt_has_that_of_its_kind_of_task():
    task = mteb.get_task("TwentyNewsgroupsClustering.v2").metadata.model_copy(update={"prompt": None})
    assert line_of(task, {}, is_document=False) == Line(instruction="Identify categories in user passages.")


def test_the_instruction_goes_before_the_texts(embedder):
    encoder = Encoder(embedder, dim=32)
    texts = ["heating does not get warm", "缺铁"]
    sts = encoder.encode(loader(*texts), **where("STS"))
    np.testing.assert_allclose(sts, embedder.embed_documents(texts, 32, task="sts").vectors, atol=1e-6)
    queries = encoder.encode(loader(*texts), prompt_type=PromptType.query, **where(prompt={"query": "Find it"}))
    expected = embedder.embed_queries(texts, 32, instruction="Find it").vectors
    np.testing.assert_allclose(queries, expected, atol=1e-6)


def test_what_mteb_writes_about_a_model_is_that_of_its_family_and_this_files(embedder, monkeypatch):
    monkeypatch.setattr(embedder, "model", "qwen3-embedding:0.6b-q8_0")
    meta = Encoder(embedder, dim=128, instructions=TABLE, max_tokens=512).mteb_model_meta
    assert (meta.name, meta.adapted_from) == ("q3e-local/qwen3-embedding-0.6b-q8_0", "Qwen/Qwen3-Embedding-0.6B")
    assert (meta.revision, meta.embed_dim, meta.framework) == (embedder.digest, 128, ["GGUF"])
    assert meta.n_parameters == 595_776_512
    assert "MSMARCO" in meta.training_datasets
    assert meta.experiment_kwargs.keys() == {"embed_dim", "instructions", "max_tokens"}
    monkeypatch.setattr(embedder, "model", "mine")
    other = Encoder(embedder).mteb_model_meta
    assert (other.name, other.adapted_from, other.experiment_kwargs) == ("q3e-local/mine", None, None)


def test_a_dim_or_an_option_that_is_not_there_is_refused(embedder, reranker):
    with pytest.raises(OptionError, match="dim must be between 32 and 256 for demo, got 512"):
        Encoder(embedder, dim=512)
    with pytest.raises(OptionError, match="mteb's option 'precision' is not supported"):
        Encoder(embedder).encode(loader("a"), precision="int8", **where())
    with pytest.raises(OptionError, match="'precision'"):
        CrossEncoder(reranker).predict(loader("a"), loader("b"), precision="int8", **where())


QUESTION = "Which planet is known as the Red Planet?"
PLANETS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
]


def test_a_pair_has_the_rerankers_logit_in_the_order_of_the_pairs(reranker):
    documents = [*PLANETS, "a word", PLANETS[1]]
    queries = [QUESTION, QUESTION, "another question", QUESTION]
    found = CrossEncoder(reranker).predict(loader(*queries), loader(*documents), **where(prompt={"query": "Find it"}))
    expected = [
        reranker.rank(query, [document], instruction="Find it")[0].logit
        for query, document in zip(queries, documents, strict=True)
    ]
    assert found == pytest.approx(expected, abs=1e-3)
    assert found[1] > found[0]


def test_an_instruction_of_a_query_takes_the_place_of_the_tasks(reranker):
    """As mteb's instruction tasks have it: its own column, and joined to the query in `text`."""
    queries = loader(
        f"{QUESTION} Only planets", f"{QUESTION} Only stars", query=[QUESTION] * 2,
        instruction=["Only planets", "Only stars"],
    )  # fmt: skip
    found = CrossEncoder(reranker).predict(queries, loader(*PLANETS), **where("InstructionRetrieval"))
    expected = [
        reranker.rank(QUESTION, [PLANETS[0]], instruction="Only planets")[0].logit,
        reranker.rank(QUESTION, [PLANETS[1]], instruction="Only stars")[0].logit,
    ]
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_second_stage_orders_what_the_first_found(embedder, reranker, tmp_path):
    """A reranker that knows nothing of notes: the score must be that of its logits on the first stage's best ten."""
    first = Encoder(embedder)
    mteb.evaluate(first, FewNotesRetrieval(), cache=None, prediction_folder=tmp_path, show_progress_bar=False)
    second = CrossEncoder(reranker, settings={"top": 10})
    task = FewNotesRetrieval().convert_to_reranking(tmp_path, top_k=10)
    found = mteb.evaluate(second, task, cache=None, show_progress_bar=False).task_results[0].get_score()
    questions = FewNotesRetrieval.questions
    queries = embedder.embed_queries(questions, instruction=INSTRUCTION).vectors
    cosines = queries @ embedder.embed_documents(DOCUMENTS).vectors.T
    logits = np.full(cosines.shape, -np.inf)  # a right document that is not among the ten comes after them
    for row, question in enumerate(questions):
        best = np.argsort(-cosines[row])[:10]
        for ranked in reranker.rank(question, [DOCUMENTS[place] for place in best], INSTRUCTION):
            logits[row, best[ranked.index]] = ranked.logit
    assert found == pytest.approx(ndcg_at_10(logits), abs=1e-5)
    assert found != pytest.approx(ndcg_at_10(cosines), abs=0.05)
    assert second.mteb_model_meta.experiment_name == "top_10"
