"""`q3e-local bench`, `tune` and `doctor` of a reranker. No test looks at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import rerankers
from command import failed, run

from q3e_local.checks import bench, bench_reranker
from q3e_local.llama.engine import LlamaEngine
from q3e_local.reranking.reranker import Reranker

SIZES = {"short": 64, "medium": 256, "long": 1024}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rerankers.write_taught(tmp_path_factory.mktemp("ranker") / "ranker.gguf")


@pytest.fixture(scope="module")
def reranker(path: Path) -> Iterator[Reranker]:
    with Reranker(LlamaEngine(path), "tiny") as reranker:
        yield reranker


def measured(reranker: Reranker, path: Path, budget_s: float) -> list[bench_reranker.RankCell]:
    """The cells on a clock that each look at moves by half a second."""
    looks = itertools.count()
    make = bench.Texts(path, reranker.engine.tokenize)
    return list(bench_reranker.measure(reranker, make, budget_s, clock=lambda: next(looks) / 2))


def test_documents_of_each_size_are_ranked_for_a_question(reranker, path):
    cells = measured(reranker, path, 15)
    assert {cell.size: cell.tokens_per_document for cell in cells} == SIZES
    for cell in cells:
        assert cell.n_documents % cell.documents_per_call == 0
        assert cell.documents_per_call == 10
        assert cell.documents_per_s == pytest.approx(cell.n_documents / cell.seconds)
        assert cell.tokens_per_s == pytest.approx(cell.n_tokens / cell.seconds)
        # Of a document, a question of 12 tokens and the prompt around them; where two words meet, tokens may join.
        around = len(rerankers.ids("", ""))
        expected = cell.n_documents * (cell.tokens_per_document + 12 + around)
        assert abs(cell.n_tokens - expected) <= 4 * cell.n_documents
    assert [cell.n_documents for cell in cells] > [10, 10, 10]


def test_without_time_each_size_is_measured_once(reranker, path):
    cells = measured(reranker, path, 0)
    assert [cell.n_documents for cell in cells] == [10, 10, 10]
    assert [cell.tokens_per_document for cell in cells] == [64, 32, 32]


def test_json_and_people_get_the_same(world, path):
    assert run("import", path, "--name", "mine").exit_code == 0
    result = run("bench", "-m", "mine", "--seconds", 0, "--json", "--threads", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert (found["model"]["name"], found["model"]["kind"], found["complete"]) == ("mine", "reranker", True)
    assert [cell["size"] for cell in found["cells"]] == list(SIZES)
    assert found["settings"]["n_threads"] == 1
    table = run("bench", "-m", "mine", "--seconds", 0).stdout
    assert "documents/s" in table
    assert [line.split("\u2502")[1].strip() for line in table.splitlines() if line.startswith("\u2502")] == list(
        SIZES
    )


def test_tune_says_that_it_does_not_measure_a_reranker(path):
    says = failed("tune", "-m", path, "--seconds", 0, code=2)
    assert says.startswith("Error: ranker is a reranker, and tune measures embedding models only; ")


def test_doctor_says_what_a_reranker_is_read_from(world, path):
    assert run("import", path, "--name", "mine").exit_code == 0
    said = " ".join(run("doctor").stdout.split())
    assert "mine: f32, reranker, head cls.output.weight, F32, header right" in said
