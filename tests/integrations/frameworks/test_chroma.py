"""The embedding function for Chroma in a collection, which keeps it for the next client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings

import q3e_local
from q3e_local.errors import OptionError, TextTooLongError
from q3e_local.integrations.chroma import Q3EEmbeddingFunction

TEXTS = ["The neighbour fed the cat.", "Prices fell in May.", "邻居喂了猫。"]
QUESTION = "who fed the cat?"


def test_questions_and_documents_are_told_apart(embedder: q3e_local.Embedder, server: str | None) -> None:
    made = Q3EEmbeddingFunction("demo", dim=64, server=server)
    assert np.allclose(made(TEXTS), embedder.embed_documents(TEXTS, 64).vectors, atol=1e-4)
    question = made.embed_query([QUESTION])
    assert np.allclose(question, embedder.embed_query(QUESTION, 64).vectors, atol=1e-4)
    assert not np.allclose(question, made([QUESTION]), atol=1e-2)
    instructed = Q3EEmbeddingFunction("demo", instruction="Find the animal", server=server)
    expected = embedder.embed_query(QUESTION, instruction="Find the animal").vectors
    assert np.allclose(instructed.embed_query([QUESTION]), expected, atol=1e-4)
    assert np.allclose(instructed(TEXTS), embedder.embed_documents(TEXTS).vectors, atol=1e-4)


# The next client: it knows the folder and the collection's name alone.
LATER = """
import json, sys
import chromadb
import q3e_local.integrations.chroma
notes = chromadb.PersistentClient(sys.argv[1]).get_collection("notes")
notes.add(["late"], documents=["The dog sleeps."])
print(json.dumps(notes.query(query_texts=[sys.argv[2]], n_results=4)))
"""


def test_a_collection_asks_as_a_question_and_keeps_the_model_for_the_next_client(
    embedder: q3e_local.Embedder, server: str | None, tmp_path: Path
) -> None:
    client = chromadb.PersistentClient(str(tmp_path), Settings(anonymized_telemetry=False))
    made = Q3EEmbeddingFunction("demo", dim=128, instruction="Find the animal", server=server)
    notes = client.create_collection("notes", embedding_function=made)
    notes.add([str(place) for place in range(3)], documents=TEXTS)
    held = notes.get(include=["embeddings"])["embeddings"]
    assert np.allclose(held, embedder.embed_documents(TEXTS, 128).vectors, atol=1e-4)
    question = embedder.embed_query(QUESTION, 128, instruction="Find the animal").vectors[0]
    distances = 1 - embedder.embed_documents([*TEXTS, "The dog sleeps."], 128).vectors @ question  # cosine
    found = notes.query(query_texts=[QUESTION], n_results=3)
    assert found["ids"] == [[str(place) for place in np.argsort(distances[:3])]]
    assert np.allclose(found["distances"][0], np.sort(distances[:3]), atol=1e-4)
    command = [sys.executable, "-c", LATER, str(tmp_path), QUESTION]
    later = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert later["ids"] == [[["0", "1", "2", "late"][place] for place in np.argsort(distances)]]
    assert np.allclose(later["distances"][0], np.sort(distances), atol=1e-4)


def test_settings_are_written_and_read() -> None:
    made = Q3EEmbeddingFunction("demo", dim=32, instruction="Find the animal", truncate=True, server="localhost:1")
    again = Q3EEmbeddingFunction.build_from_config(json.loads(json.dumps(made.get_config())))
    assert again.get_config() == made.get_config()
    assert made.get_config() | {"model": "demo", "dim": 32, "truncate": True} == made.get_config()


def test_what_would_mix_vectors_is_refused() -> None:
    old = Q3EEmbeddingFunction("demo", dim=32).get_config()
    made = Q3EEmbeddingFunction("demo", dim=32)
    made.validate_config_update(old, old | {"server": "localhost:1"})
    with pytest.raises(OptionError, match="has vectors of dim 32, not 64"):
        made.validate_config_update(old, old | {"dim": 64})
    with pytest.raises(OptionError, match="has vectors of model demo, not qwen3-embedding:4b"):
        made.validate_config_update(old, old | {"model": "qwen3-embedding:4b"})


def test_a_text_that_is_too_long_is_an_error_or_cut(embedder: q3e_local.Embedder, long: str) -> None:
    with pytest.raises(TextTooLongError):
        Q3EEmbeddingFunction("demo")([long])
    with pytest.raises(TextTooLongError):
        Q3EEmbeddingFunction("demo").embed_query([long])
    made = Q3EEmbeddingFunction("demo", truncate=True)
    assert [len(each[0]) for each in (made([long]), made.embed_query([long]))] == [embedder.n_embd] * 2
