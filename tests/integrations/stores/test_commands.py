"""The commands with real stores and the model that comes with the program: what they say, what a question finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cases import NAME, Chroma, Lance, Milvus, Pgvector, Qdrant
from store_contract import Case

import q3e_local
from q3e_local.search.database import Database

ROOT = Path(__file__).parents[3]
QUESTIONS = ["which shop was offline?", "数据库", "what did we decide about the budget?"]

STORES: dict[str, Callable[[pytest.FixtureRequest, Path], Case]] = {
    "qdrant": lambda request, folder: Qdrant(folder),
    "milvus": lambda request, folder: Milvus(str(folder / "m.db"), f"milvus:{folder / 'm.db'}#{NAME}"),
    "pgvector": lambda request, folder: Pgvector(request.getfixturevalue("postgres").get_uri()),
    "lancedb": lambda request, folder: Lance(folder),
    "chroma": lambda request, folder: Chroma(f"chroma:{folder / 'chroma'}#{NAME}", folder / "chroma"),
}


@pytest.fixture(params=STORES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return STORES[request.param](request, tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., list[str]]:
    """`q3e-local ARGUMENTS`, which ends well and writes nothing to stdout: its lines on stderr."""

    def run(*arguments: object, code: int = 0) -> list[str]:
        command = [sys.executable, "-m", "q3e_local", *map(str, arguments)]
        environment = os.environ | {"Q3E_HOME": str(tmp_path / "home")}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        return done.stderr.splitlines()

    return run


def test_a_question_finds_in_the_store_what_it_finds_in_the_index(
    case: Case, run: Callable[..., list[str]], tmp_path: Path
) -> None:
    index = tmp_path / "notes.q3e"
    run("index", ROOT / "examples" / "notes", "-m", "demo", "--db", index, "-q")
    with Database.open(index) as database:
        n = database.facts().n_chunks
    first, second = run("index", "export", "--db", index, "--to", case.address)
    assert first.startswith(f"{n} chunks, 256-dim vectors of demo: ")
    assert second == f"{n} sent, 0 there already, 0 deleted"
    assert run("index", "export", "--db", index, "--to", case.address)[1] == f"0 sent, {n} there already, 0 deleted"
    with q3e_local.load("demo") as embedder, Database.open(index) as database:
        for question in QUESTIONS:
            vector = embedder.embed_query(question).vectors[0]
            with database.snapshot() as state:
                entries = state.entries_of(state.exact(vector, 10).rows)
            assert case.nearest(vector, 10) == [entry.id for entry in entries]


def test_texts_with_ids_go_there_once(case: Case, run: Callable[..., list[str]], tmp_path: Path) -> None:
    records = [
        {"id": f"n°{number}", "text": f"text {number}", "label": None if number % 2 else "even"}
        for number in range(9)
    ]
    lines = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
    (tmp_path / "r.jsonl").write_text(lines, encoding="utf-8")
    by_id = ("--jsonl", "text", "--id", "id", "--keep", "label")
    arguments = ("embed", "-m", "demo", "r.jsonl", *by_id, "--to", case.address)
    assert run(*arguments)[-1].startswith("9 sent to ")
    assert run(*arguments)[0].startswith("0 texts (9 were there already)")
    rows = case.rows()
    assert {name: (row["text"], row.get("label")) for name, row in rows.items()} == {
        record["id"]: (record["text"], record["label"]) for record in records
    }
    with q3e_local.load("demo") as embedder:
        vectors = embedder.embed_documents([record["text"] for record in records]).vectors
        query = embedder.embed_query("text 4").vectors[0]
    order = np.argsort(-(vectors @ query), kind="stable")
    assert case.nearest(query, 9) == [records[place]["id"] for place in order]
