"""`llm` finds the models by the entry point of the installed program, and embeds with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import llm
import numpy as np
import pytest

import q3e_local
from q3e_local.integrations.llm import MODELS
from q3e_local.models.catalog import files

TEXT = "The neighbour fed the cat."


def test_llm_has_each_card_that_embeds_once_for_documents_and_once_for_questions() -> None:
    cards = {card.name for card, _ in files() if card.kind == "embedder"}
    assert {name.partition(":")[0] for name in MODELS} == {name.partition(":")[0] for name in cards}
    known = {model.model_id for model in llm.get_embedding_models()}
    assert {f"q3e-local/{name}{end}" for name in MODELS for end in ("", "-query")} <= known


@pytest.mark.parametrize(("name", "kind"), [("demo", "document"), ("demo-query", "query")])
def test_the_vectors_are_ours(embedder: q3e_local.Embedder, name: str, kind: str) -> None:
    model = llm.get_embedding_model(f"q3e-local/{name}")
    expected = embedder.embed(q3e_local.EmbedRequest([TEXT, "x"], kind)).vectors
    assert np.allclose(list(model.embed_multi([TEXT, "x"])), expected, atol=1e-4)
    assert np.allclose(model.embed(TEXT), expected[0], atol=1e-4)


def test_the_command_embeds_and_finds(tmp_path: Path, embedder: q3e_local.Embedder) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text("Prices fell in May.")
    done = run("embed", "-m", "q3e-local/demo", "-c", TEXT)
    assert done.stderr == ""
    assert np.allclose(json.loads(done.stdout), embedder.embed_documents([TEXT]).vectors[0], atol=1e-4)
    database = str(tmp_path / "notes.db")
    run("embed-multi", "notes", "-d", database, "--files", str(tmp_path), "*.txt", "-m", "q3e-local/demo")
    found = [json.loads(line) for line in run("similar", "notes", "-d", database, "-c", TEXT).stdout.splitlines()]
    assert [each["id"] for each in found] == ["a.txt", "b.txt"]


def test_a_server_computes_where_the_variable_names_one(
    embedder: q3e_local.Embedder, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("Q3E_SERVER", address)
    expected = embedder.embed_documents([TEXT]).vectors[0]
    assert np.allclose(json.loads(run("embed", "-m", "q3e-local/demo", "-c", TEXT).stdout), expected, atol=1e-4)
    monkeypatch.setenv("Q3E_SERVER", f"{address}, {address.replace('127.0.0.1', 'localhost')}")
    assert np.allclose(llm.get_embedding_model("q3e-local/demo").embed(TEXT), expected, atol=1e-4)
    monkeypatch.setenv("Q3E_SERVER", "127.0.0.1:9")  # discard: nobody listens
    with pytest.raises(llm.ModelError, match="no server answers"):
        llm.get_embedding_model("q3e-local/demo").embed(TEXT)


def test_a_model_that_is_not_here_is_told_with_the_line_that_brings_it() -> None:
    with pytest.raises(llm.ModelError, match=r"q3e-local pull qwen3-embedding:8b"):
        llm.get_embedding_model("q3e-local/qwen3-embedding:8b").embed(TEXT)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "llm", *arguments], capture_output=True, text=True, check=True)
