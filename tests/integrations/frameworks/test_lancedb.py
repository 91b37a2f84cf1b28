"""The embedding function for LanceDB in a table, which keeps it for the next one that opens it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector

import q3e_local
from q3e_local.errors import TextTooLongError
from q3e_local.integrations.lancedb import Q3EEmbeddings

TEXTS = ["The neighbour fed the cat.", "Prices fell in May.", "邻居喂了猫。"]
QUESTION = "who fed the cat?"


def schema(made: Q3EEmbeddings) -> type[LanceModel]:
    class Note(LanceModel):
        text: str = made.SourceField()
        vector: Vector(made.ndims()) = made.VectorField()

    return Note


def test_the_registry_has_it() -> None:
    assert get_registry().get("q3e-local") is Q3EEmbeddings


def test_questions_and_documents_are_told_apart(embedder: q3e_local.Embedder, server: str | None) -> None:
    made = Q3EEmbeddings.create(model="demo", dim=64, server=server)
    assert made.ndims() == 64
    assert np.allclose(made.compute_source_embeddings(TEXTS), embedder.embed_documents(TEXTS, 64).vectors, atol=1e-4)
    (question,) = made.compute_query_embeddings(QUESTION)
    assert np.allclose(question, embedder.embed_query(QUESTION, 64).vectors[0], atol=1e-4)
    assert not np.allclose(question, made.compute_source_embeddings(QUESTION)[0], atol=1e-2)
    assert Q3EEmbeddings.create(model="demo", server=server).ndims() == embedder.n_embd


# The next program: it knows the folder and the table's name alone.
LATER = """
import json, sys
import lancedb
import q3e_local.integrations.lancedb
table = lancedb.connect(sys.argv[1]).open_table("notes")
table.add([{"text": "The dog sleeps."}])
found = table.search(sys.argv[2]).distance_type("cosine").limit(4).to_list()
print(json.dumps([(each["text"], each["_distance"]) for each in found]))
"""


def test_a_table_asks_as_a_question_and_keeps_the_model_for_the_next_program(
    embedder: q3e_local.Embedder, server: str | None, tmp_path: Path
) -> None:
    made = Q3EEmbeddings.create(model="demo", dim=128, instruction="Find the animal", server=server)
    table = lancedb.connect(str(tmp_path)).create_table("notes", schema=schema(made))
    table.add([{"text": text} for text in TEXTS])
    held = np.array(table.to_arrow()["vector"].to_pylist())
    assert np.allclose(held, embedder.embed_documents(TEXTS, 128).vectors, atol=1e-4)
    all_texts = [*TEXTS, "The dog sleeps."]
    question = embedder.embed_query(QUESTION, 128, instruction="Find the animal").vectors[0]
    distances = 1 - embedder.embed_documents(all_texts, 128).vectors @ question
    command = [sys.executable, "-c", LATER, str(tmp_path), QUESTION]
    later: list[Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [text for text, _ in later] == [all_texts[place] for place in np.argsort(distances)]
    assert np.allclose([distance for _, distance in later], np.sort(distances), atol=1e-4)


def test_a_text_that_is_too_long_is_an_error_at_once_or_cut(
    embedder: q3e_local.Embedder, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LanceDB tries seven times again what fails, and waits longer each time."""
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it was tried again"))
    made = Q3EEmbeddings.create(model="demo")
    for embed in (made.compute_source_embeddings_with_retry, made.compute_query_embeddings_with_retry):
        with pytest.raises(TextTooLongError):
            embed([long])
    made = Q3EEmbeddings.create(model="demo", truncate=True)
    assert len(made.compute_source_embeddings([long])[0]) == embedder.n_embd
    assert len(made.compute_query_embeddings(long)[0]) == embedder.n_embd
