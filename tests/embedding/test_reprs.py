"""What a person at a Python prompt sees of each object: one short line, never the numbers or the texts themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from command import demo

from q3e_local import EmbedRequest, VectorIndex, jobs
from q3e_local.search.database.records import IndexSpace

TEXTS = ["one text", "two texts about tea", "one text", "rivers and lakes", "coffee or tea " * 400]
SPACE = demo().space(EmbedRequest(()))


def shown(value: object) -> str:
    """The repr, which is one short line."""
    line = repr(value)
    assert "\n" not in line
    assert len(line) < 200
    return line


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return demo().embed_documents(TEXTS).vectors


def test_the_model_and_its_results():
    assert shown(demo()) == "<Embedder demo: dim 256, texts of up to 32,768 tokens>"
    result = demo().embed_documents(TEXTS, max_tokens=20, truncate=True)
    n_tokens = sum(result.prompt_tokens)
    said = f"5 vectors of 256 numbers, {n_tokens} tokens, demo, 1 cut, space {SPACE}"
    assert result.truncated == (False, False, False, False, True)
    assert shown(result) == f"<EmbedResult: {said}>"
    none = demo().embed_documents([])
    assert shown(none) == f"<EmbedResult: 0 vectors of 256 numbers, 0 tokens, demo, space {SPACE}>"
    embedded = next(demo().stream(EmbedRequest(["", "b"], max_tokens=1, truncate=True)))
    assert shown(embedded) == "<Embedded: dim 256, 1 token>"


def test_a_request_is_shown_without_reading_its_texts():
    def texts() -> Iterator[str]:
        raise AssertionError("the texts were read")
        yield ""

    assert shown(EmbedRequest(["a"])) == "EmbedRequest([1 text])"
    assert shown(EmbedRequest(("text " * 1000,) * 1200, "query", dim=64, truncate=True)) == (
        "EmbedRequest([1,200 texts], kind='query', dim=64, truncate=True)"
    )
    assert shown(EmbedRequest(texts(), instruction="long " * 100)).startswith(
        "EmbedRequest(<generator>, instruction="
    )
    assert shown(EmbedRequest("a str by mistake")) == "EmbedRequest(<str>)"


def test_an_index_and_what_is_found_in_it(tmp_path):
    path = tmp_path / "notes.q3e"
    with VectorIndex(path, demo(), 64) as index:
        assert repr(index) == f"<VectorIndex {path}: 0 texts, 64-dim vectors of demo>"
        index.add(TEXTS, ids=["a", "b", "c", "d", "e"])
        assert repr(index) == f"<VectorIndex {path}: 5 texts, 64-dim vectors of demo>"
        found = index.search("rivers and lakes", mode="vectors")
    assert repr(index) == f"<VectorIndex {path}: is closed; open it again>"
    assert shown(found) == "<Found: 5 hits, mode vectors, first d>"
    assert shown(found.hits[0]) == f"<Hit {found.hits[0].score:.3f} d: 'rivers and lakes'>"
    (longest,) = [hit for hit in found if hit.id == "e"]
    assert shown(longest).endswith("…'>")
    with VectorIndex(path) as index:
        (hit,) = index.search("rivers", mode="words").hits
        assert shown(hit) == "<Hit by words d: 'rivers and lakes'>"
        assert shown(index.search("nothing of that kind")) == "<Found: 0 hits, mode words>"


def test_the_jobs(vectors):
    two = jobs.duplicates(vectors, 0.9, TEXTS)
    assert shown(two) == "<Duplicates: 1 group at 0.9 or above, 1 text could go>"
    assert shown(two.groups[0]) == "<Group: 2 texts, representative row 0, lowest score 1.000>"
    parted = jobs.chapters(vectors, 2, TEXTS)
    assert shown(parted) == "<Chapters: 2 chapters of 5 texts>"
    first = parted.chapters[0]
    assert shown(first) == f"<Chapter: texts 0 to {first.last}, mean score {first.score:.3f}>"
    found = jobs.match(vectors, vectors[:2], threshold=0.999, texts=TEXTS)
    assert shown(found) == "<Matches: 3 of 5 texts at 0.999 or above>"
    assert shown(jobs.similar(vectors, TEXTS)) == "<Similarities: 5 texts, scores (5, 5)>"
    assert shown(jobs.filter_pairs(vectors, vectors[::-1], 0.9)) == "<Pairs: 1 of 5 pairs at 0.9 or above>"
    assert shown(jobs.plot(vectors, TEXTS)) == "<Map: 5 points, by pca>"
    assert shown(jobs.inspect(vectors[0])).startswith("<Inspection: dim 256, norm 1.0000, from -0.")
    seen = jobs.seen(demo(), TEXTS[4], EmbedRequest((), max_tokens=6, truncate=True))
    assert shown(seen).startswith("<Seen: 6 tokens, ")
    assert f"{seen.n_left_out:,} left out, 'coffee or tea coffee" in shown(seen)


def test_clusters(vectors):
    pytest.importorskip("sklearn")
    found = jobs.cluster(vectors, 2, TEXTS)
    assert shown(found) == "<Clusters: 2 clusters of 5 texts>"
    assert shown(found.clusters[0]).startswith(f"<Cluster: {len(found.clusters[0].rows)} texts, rows ")
    chosen = jobs.cluster(vectors, None, TEXTS)
    assert f"silhouette {chosen.silhouette:.3f}" in shown(chosen)


def test_an_index_of_the_users_vectors_says_so(tmp_path):
    with VectorIndex(tmp_path / "own.q3e", dim=3) as index:
        assert index.space == IndexSpace("", "", 3)
        assert repr(index).endswith(": 0 texts, 3-dim vectors of your own>")
