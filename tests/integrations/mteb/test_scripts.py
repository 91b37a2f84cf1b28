"""scripts/bench/mteb_run.py writes mteb's own files, goes on where it stopped, and mteb_table.py reads them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import mteb
import pytest
from click.testing import CliRunner, Result
from local_tasks import DOCUMENTS, INSTRUCTION, ROOT, FewNotesRetrieval, NotesRetrieval, ndcg_at_10

from q3e_local.integrations.mteb import Encoder
from q3e_local.llama.engine import LlamaEngine

TASK, OTHER = "Q3EFewNotesRetrieval", "Q3ENotesRetrieval"


@pytest.fixture(autouse=True)
def _tasks_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {TASK: FewNotesRetrieval, OTHER: NotesRetrieval}
    monkeypatch.setattr(mteb, "get_task", lambda name: known[name]())


def run(*arguments: object) -> Result:
    script = runpy.run_path(str(ROOT / "scripts" / "bench" / "mteb_run.py"))
    return CliRunner().invoke(script["main"], [*map(str, arguments)])


def table(folder: Path) -> list[str]:
    script = runpy.run_path(str(ROOT / "scripts" / "bench" / "mteb_table.py"))
    found = CliRunner().invoke(script["main"], [str(folder), "-t", TASK], catch_exceptions=False)
    return [line for line in found.stdout.splitlines() if line.startswith("| demo")]


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("it computes again")


def test_dims_and_a_second_stage_are_rows_of_the_table(embedder, taught, tmp_path, monkeypatch):
    asked = [TASK, "-m", "demo", "-d", 256, "-d", 64, "--rerank", taught, "--top", 10, "--results", tmp_path]
    result = run(*asked)
    assert result.exit_code == 0, result.output
    expected = []
    for dim in (64, 256):
        queries = embedder.embed_queries(FewNotesRetrieval.questions, dim, instruction=INSTRUCTION).vectors
        expected.append(f"{100 * ndcg_at_10(queries @ embedder.embed_documents(DOCUMENTS, dim).vectors.T):.2f}")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(tmp_path)]
    assert [row[:3] for row in rows] == [
        ["demo", "64", ""],
        ["demo (top 10)", "64", "taught-reranker"],
        ["demo", "256", ""],
        ["demo (top 10)", "256", "taught-reranker"],
    ]
    assert [row[3] for row in rows if not row[2]] == expected
    assert len({row[3] for row in rows}) > 2
    # All of it again: mteb has the results.
    monkeypatch.setattr(Encoder, "encode", refuse)
    monkeypatch.setattr(LlamaEngine, "decode", refuse)
    assert run(*asked).exit_code == 0


def test_a_further_dim_is_cut_from_the_vectors_that_are_there(tmp_path, monkeypatch):
    assert run(TASK, "-m", "demo", "--results", tmp_path).exit_code == 0
    monkeypatch.setattr(LlamaEngine, "decode", refuse)
    assert run(TASK, "-m", "demo", "-d", 32, "--results", tmp_path).exit_code == 0
    assert [line.split("|")[2].strip() for line in table(tmp_path)] == ["32", "256"]


def test_an_interrupted_task_goes_on_with_the_texts_that_are_missing(tmp_path, monkeypatch):
    n_decoded = 0
    decode = LlamaEngine.decode

    def interrupted(engine: LlamaEngine, sequences: Any, *arguments: Any) -> Any:
        nonlocal n_decoded
        n_decoded += len(sequences)
        if n_decoded > 60:
            raise KeyboardInterrupt
        return decode(engine, sequences, *arguments)

    def counted(engine: LlamaEngine, sequences: Any, *arguments: Any) -> Any:
        nonlocal n_decoded
        n_decoded += len(sequences)
        return decode(engine, sequences, *arguments)

    monkeypatch.setattr(LlamaEngine, "decode", interrupted)
    assert run(TASK, "-m", "demo", "--results", tmp_path).exit_code != 0
    assert table(tmp_path) == []
    n_decoded = 0
    monkeypatch.setattr(LlamaEngine, "decode", counted)
    assert run(TASK, "-m", "demo", "--results", tmp_path).exit_code == 0
    assert 0 < n_decoded < len(FewNotesRetrieval.questions) + len(DOCUMENTS)
    assert len(table(tmp_path)) == 1


def test_the_authors_table_of_instructions_is_another_run(tmp_path):
    prompts = tmp_path / "task_prompts.json"
    prompts.write_text(json.dumps({TASK: "Given a query, find what is nothing like it"}))
    for options in ((), ("--instructions", prompts)):
        assert run(TASK, "-m", "demo", "--results", tmp_path, *options).exit_code == 0
    plain, own = table(tmp_path)
    assert "(instructions " in own
    assert plain.split("|")[4] != own.split("|")[4]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["Nope", "-m", "demo"], 2, "mteb has no task 'Nope'"),
        ([TASK, "-m", "nope"], 1, "there is no model 'nope'"),
        ([TASK, "-m", "demo", "-d", "512"], 1, "dim must be between 32 and 256 for demo, got 512"),
        ([TASK, "-m", "demo", "--rerank", "demo"], 1, "demo is an embedding model"),
        ([TASK, "-m", "demo", "--instructions", __file__], 2, "is not JSON"),
    ],
)
def test_wrong_usage_is_refused_with_the_reason(arguments, code, said, tmp_path):
    result = run(*arguments, "--results", tmp_path)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output


def test_a_table_of_instructions_is_an_object(tmp_path):
    (tmp_path / "list.json").write_text('["Find it"]')
    result = run(TASK, "-m", "demo", "--results", tmp_path, "--instructions", tmp_path / "list.json")
    assert (result.exit_code, "must have an object" in result.stderr) == (2, True)
